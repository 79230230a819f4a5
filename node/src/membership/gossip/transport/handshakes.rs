//! Handshakes of streams that come in, so that strangers who only connect keep nobody out. It knows nothing of what is spoken.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::AbortHandle;

/// The most handshakes at the same time. Whoever really comes is done within milliseconds; when there are more, the address that has most of them gives up its oldest.
const MAX_HANDSHAKES: usize = 256;

/// Handshakes that are under way, the oldest first: whose they are, and whether they are over.
#[derive(Default)]
pub(super) struct Handshakes(VecDeque<(IpAddr, Arc<AtomicBool>, AbortHandle)>);

impl Handshakes {
    /// One more; when there are too many, the oldest one of the address that has most is given up.
    pub(super) fn begin(&mut self, from: IpAddr, done: Arc<AtomicBool>, handshake: AbortHandle) {
        self.0.retain(|(_, done, other)| !done.load(Ordering::Relaxed) && !other.is_finished());
        self.0.push_back((from, done, handshake));
        if self.0.len() <= MAX_HANDSHAKES {
            return;
        }
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        self.0.iter().for_each(|(from, ..)| *counts.entry(*from).or_default() += 1);
        let most = counts.values().copied().max();
        let greedy = self.0.iter().position(|(from, ..)| counts.get(from).copied() == most);
        if let Some((.., given_up)) = greedy.and_then(|at| self.0.remove(at)) {
            given_up.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[tokio::test]
    async fn whoever_opens_most_gives_up_its_own() {
        let mut handshakes = Handshakes::default();
        let mut begin = |last: u8| {
            let waiting = tokio::spawn(std::future::pending::<()>());
            handshakes.begin(IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)), Arc::default(), waiting.abort_handle());
            waiting
        };
        let patient: Vec<_> = (1..=3).map(&mut begin).collect();
        let greedy: Vec<_> = (0..MAX_HANDSHAKES + 5).map(|_| begin(9)).collect();
        tokio::task::yield_now().await;
        assert!(patient.iter().all(|waiting| !waiting.is_finished()), "who came first and alone is not given up");
        assert_eq!(greedy.iter().filter(|waiting| waiting.is_finished()).count(), 8);
        assert!(greedy[..8].iter().all(|waiting| waiting.is_finished()), "the oldest go first");
    }
}
