//! Counters of one endpoint: each worker writes its own shard, readers add them up.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::observe::Counter;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// One worker's counters of one endpoint. Only that worker writes, so a count is a load and a store, never a locked instruction.
        #[derive(Debug, Default)]
        pub struct Shard { $($(#[$doc])* pub $name: Counter,)* }

        /// Sums over all workers.
        #[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
        pub struct Totals { $($(#[$doc])* pub $name: u64,)* }

        impl Totals {
            fn add(&mut self, shard: &Shard) { $(self.$name = self.$name.wrapping_add(shard.$name.get());)* }
            /// Adds the counters of another endpoint.
            pub fn merge(&mut self, other: &Totals) { $(self.$name = self.$name.wrapping_add(other.$name);)* }
        }
    };
}

counters! {
    /// Tries begun.
    attempts,
    /// Tries that brought a response head with status below 500.
    answered,
    /// Tries that brought a response head with status 500 or above.
    answered_5xx,
    /// Tries that could not connect (TCP or TLS).
    connect_failures,
    /// Tries refused by us, because the endpoint is not who it should be in the mesh; among the connect failures too.
    identity_refused,
    /// Tries that ran into a timeout.
    timeouts,
    /// Tries that were cut or answered with nonsense.
    resets,
    /// Connections opened.
    connects,
    /// Requests that used a pooled connection.
    reused,
    /// Requests refused by a limit.
    overflows,
    /// Requests in flight now.
    active,
    /// Connections open now, idle ones included.
    connections,
}

/// All shards of one endpoint.
#[derive(Debug, Default)]
pub struct Stats(Mutex<Vec<Arc<Shard>>>);

impl Stats {
    /// A new shard; each worker takes one when it first meets the endpoint.
    pub fn shard(&self) -> Arc<Shard> {
        let shard = Arc::new(Shard::default());
        self.0.lock().push(shard.clone());
        shard
    }

    /// Sums over all workers.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for shard in self.0.lock().iter() {
            totals.add(shard);
        }
        totals
    }
}
