//! Which nodes are told bundles at present, and which version each has confirmed. It knows no stream.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// Streams at the same time.
const MAX_STREAMS: usize = 20_000;

/// A node that is told bundles.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holder {
    /// Node id, as it says.
    pub node: String,
    /// Its identity; empty within the process and on cleartext connections.
    pub spiffe_id: String,
    /// Version that it confirmed; empty when none.
    pub version: String,
    /// By how many milliseconds its clock is ahead of ours, as it says.
    pub clock_skew_ms: Option<i64>,
    /// Until when its identity is valid, Unix milliseconds, as it says.
    pub not_after_ms: Option<u64>,
}

/// All of them. Cheap to clone; all clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Holders(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    streams: BTreeMap<u64, Holder>,
}

impl Holders {
    /// Notes a stream until what is returned is dropped; `None` when there are too many.
    pub fn enter(&self, holder: Holder) -> Option<Seat> {
        let mut inner = self.0.lock();
        if inner.streams.len() >= MAX_STREAMS {
            return None;
        }
        let number = inner.next;
        inner.next += 1;
        inner.streams.insert(number, holder);
        Some(Seat { holders: self.clone(), number })
    }

    /// All of them, by node id.
    pub fn list(&self) -> Vec<Holder> {
        let mut all: Vec<Holder> = self.0.lock().streams.values().cloned().collect();
        all.sort_by(|a, b| (&a.node, &a.version).cmp(&(&b.node, &b.version)));
        all
    }
}

/// A stream's place.
#[derive(Debug)]
pub struct Seat {
    holders: Holders,
    number: u64,
}

impl Seat {
    /// Notes what the node has confirmed.
    pub fn holds(&self, version: &str) {
        if let Some(holder) = self.holders.0.lock().streams.get_mut(&self.number) {
            version.clone_into(&mut holder.version);
        }
    }

    /// Notes how the node says that its clock and its identity stand.
    pub fn stands(&self, clock_skew_ms: Option<i64>, not_after_ms: Option<u64>) {
        if let Some(holder) = self.holders.0.lock().streams.get_mut(&self.number) {
            (holder.clock_skew_ms, holder.not_after_ms) = (clock_skew_ms, not_after_ms);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.holders.0.lock().streams.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_node_is_there_as_long_as_its_stream() {
        let holders = Holders::default();
        let holder = Holder { node: "a".into(), spiffe_id: String::new(), version: String::new(), ..Holder::default() };
        let seat = holders.enter(holder.clone()).unwrap();
        let again = holders.enter(Holder { version: "v1".into(), ..holder }).unwrap();
        seat.holds("v2");
        let versions: Vec<String> = holders.list().into_iter().map(|holder| holder.version).collect();
        assert_eq!(versions, ["v1", "v2"], "a node with two streams is there twice");
        drop((seat, again));
        assert!(holders.list().is_empty());
    }
}
