//! How many connections a node takes, over all its workers: per listener and per source. It knows no sockets.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;

/// Parts of the table of sources, so that workers seldom wait for each other.
const SHARDS: usize = 16;

/// What the workers of a node share about connections.
#[derive(Default)]
pub struct Admission {
    listeners: Mutex<HashMap<Arc<str>, Arc<AtomicU32>>>,
    sources: [Mutex<HashMap<IpAddr, u32>>; SHARDS],
    last_id: AtomicU64,
    /// Ports that the kernel chose for listeners with port 0, so that all workers listen on the same.
    chosen: Mutex<HashMap<Arc<str>, SocketAddr>>,
}

/// A place of a listener; given back when dropped.
#[derive(Debug)]
pub(super) struct Seat(Arc<AtomicU32>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A place of a source address; given back when dropped.
pub(super) struct SourceSeat {
    admission: Arc<Admission>,
    source: IpAddr,
}

impl Drop for SourceSeat {
    fn drop(&mut self) {
        let mut sources = self.admission.shard(self.source).lock();
        if let Some(count) = sources.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                sources.remove(&self.source);
            }
        }
    }
}

impl Admission {
    /// The count of a listener's connections.
    pub(super) fn listener(&self, name: &Arc<str>) -> Arc<AtomicU32> {
        self.listeners.lock().entry(name.clone()).or_default().clone()
    }

    /// Forgets a listener that nobody has open any more.
    pub(super) fn forget(&self, name: &Arc<str>) {
        let mut listeners = self.listeners.lock();
        // The table holds one, and the listener that is just closing another.
        if listeners.get(name).is_some_and(|count| Arc::strong_count(count) <= 2) {
            listeners.remove(name);
            self.chosen.lock().remove(name);
        }
    }

    /// A number for a connection that no other of this node has.
    pub(super) fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A place among `count` that has at most `max`.
    pub(super) fn seat(count: &Arc<AtomicU32>, max: u32) -> Option<Seat> {
        if count.fetch_add(1, Ordering::Relaxed) >= max {
            count.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Seat(count.clone()))
    }

    /// A place for a source that has at most `max`. An IPv6 source is its /64, since that is what one client has.
    pub(super) fn source_seat(self: &Arc<Admission>, source: IpAddr, max: u32) -> Option<SourceSeat> {
        let source = match source.to_canonical() {
            IpAddr::V6(six) => IpAddr::V6(Ipv6Addr::from(u128::from(six) >> 64 << 64)),
            four => four,
        };
        let mut sources = self.shard(source).lock();
        let count = sources.entry(source).or_insert(0);
        if *count >= max {
            return None;
        }
        *count += 1;
        drop(sources);
        Some(SourceSeat { admission: self.clone(), source })
    }

    fn shard(&self, source: IpAddr) -> &Mutex<HashMap<IpAddr, u32>> {
        let last = match source {
            IpAddr::V4(four) => four.octets()[3],
            IpAddr::V6(six) => six.octets()[7],
        };
        &self.sources[usize::from(last) % SHARDS]
    }

    /// The address to bind for a listener: with port 0, the one that another worker got.
    pub fn address(&self, name: &Arc<str>, wanted: SocketAddr) -> SocketAddr {
        if wanted.port() != 0 {
            return wanted;
        }
        self.chosen.lock().get(name).filter(|chosen| chosen.ip() == wanted.ip()).copied().unwrap_or(wanted)
    }

    /// Remembers the port that the kernel chose.
    pub(super) fn note_address(&self, name: &Arc<str>, bound: SocketAddr) {
        self.chosen.lock().insert(name.clone(), bound);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn places_are_bounded_and_given_back() {
        let admission = Arc::new(Admission::default());
        let count = admission.listener(&"a".into());
        let first = Admission::seat(&count, 1).unwrap();
        assert!(Admission::seat(&count, 1).is_none());
        drop(first);
        assert!(Admission::seat(&count, 1).is_some());
        let six = |text: &str| text.parse::<IpAddr>().unwrap();
        let first = admission.source_seat(six("2001:db8::1"), 1).unwrap();
        assert!(admission.source_seat(six("2001:db8::2"), 1).is_none());
        assert!(admission.source_seat(six("2001:db8:0:1::2"), 1).is_some());
        drop(first);
        assert!(admission.source_seat(six("2001:db8::2"), 1).is_some());
        assert!(admission.sources.iter().all(|shard| shard.lock().is_empty()));
    }
}
