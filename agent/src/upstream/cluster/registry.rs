//! All clusters of a node by name, and the tasks that keep them up to date.

use std::collections::HashMap;
use std::sync::Arc;

use heddle_node::clock;
use heddle_xds::model;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use super::edition::{Edition, News};
use super::keeper::Keeper;
use super::locality;
use super::state::Context;
use super::tls::Secrets;
use crate::dns::Resolver;

/// Look-ups of names under way at once, over all clusters.
const MAX_LOOKUPS: usize = 64;

/// All clusters of a node. What it hands out is shared by all workers; its tasks run on the runtime of `control`.
pub struct Clusters {
    context: Arc<Context>,
    resolver: Option<Resolver>,
    control: Handle,
    lookups: Arc<Semaphore>,
    known: Arc<Mutex<HashMap<Arc<str>, Kept>>>,
}

struct Kept {
    /// The newest one.
    edition: Arc<Edition>,
    /// Runs while there is something to keep up to date.
    keeper: Option<AbortHandle>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(keeper) = &self.keeper {
            keeper.abort();
        }
    }
}

impl Clusters {
    /// None yet. Without a resolver only addresses are endpoints.
    pub fn new(context: Arc<Context>, resolver: Option<Resolver>, control: Handle) -> Clusters {
        let known: Arc<Mutex<HashMap<Arc<str>, Kept>>> = Arc::default();
        let weak = Arc::downgrade(&known);
        let clusters =
            move || weak.upgrade().map(|known| known.lock().values().map(|kept| kept.edition.cluster().clone()).collect());
        control.spawn(locality::follow(context.membership.clone(), context.callers.clone(), clusters));
        Clusters { context, resolver, control, lookups: Arc::new(Semaphore::new(MAX_LOOKUPS)), known }
    }

    /// The edition of an upstream that these news make: the one that there is where they are none, or come from discovery. An unchanged upstream costs a
    /// comparison.
    pub fn apply(
        &self,
        config: &Arc<model::Upstream>,
        nodes: &Arc<[model::Endpoint]>,
        secrets: Secrets<'_>,
        news: News,
    ) -> Arc<Edition> {
        let now = clock::now();
        let mut known = self.known.lock();
        let kept = match known.get_mut(&config.name) {
            Some(kept) => {
                kept.edition = kept.edition.next(config.clone(), nodes, secrets, news, now);
                kept
            }
            None => {
                let edition = Edition::first(self.context.clone(), config.clone(), nodes, secrets, now);
                known.entry(config.name.clone()).or_insert(Kept { edition, keeper: None })
            }
        };
        let cluster = kept.edition.cluster();
        match (&kept.keeper, cluster.needs_keeper()) {
            (None, true) => {
                let keeper = Keeper::new(cluster.clone(), self.resolver.clone(), self.lookups.clone(), fastrand::Rng::new());
                kept.keeper = Some(self.control.spawn(keeper.run()).abort_handle());
            }
            (Some(keeper), false) => {
                keeper.abort();
                cluster.unshare(now);
                kept.keeper = None;
            }
            _ => {}
        }
        kept.edition.clone()
    }

    /// Lets go of upstreams that are not named any more. Requests under way keep theirs.
    pub fn retain(&self, named: impl Fn(&str) -> bool) {
        self.known.lock().retain(|name, kept| {
            let stays = named(name);
            if !stays {
                kept.edition.retire();
            }
            stays
        });
    }
}
