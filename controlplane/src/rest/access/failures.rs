//! Failed keys by source address: who guesses too often waits. Its memory is bounded; it is a function of `now`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use heddle_node::clock::Instant;

/// Failed attempts before a source has to wait.
const BURST: u32 = 50;
/// One attempt comes back after this long.
const REFILL: Duration = Duration::from_secs(1);
/// Sources that are remembered.
const MOST_SOURCES: usize = 4096;

/// Failed attempts of each source, as buckets that leak.
#[derive(Debug, Default)]
pub(in super::super) struct Failures {
    sources: HashMap<IpAddr, (u32, Instant)>,
}

impl Failures {
    /// How long `source` must wait before its key is looked at again.
    pub(in super::super) fn wait(&self, source: IpAddr, now: Instant) -> Option<Duration> {
        let count = self.count(network(source), now);
        (count >= BURST).then_some(REFILL)
    }

    /// Remembers a failed attempt.
    pub(in super::super) fn failed(&mut self, source: IpAddr, now: Instant) {
        let source = network(source);
        let count = self.count(source, now);
        if self.sources.len() >= MOST_SOURCES && !self.sources.contains_key(&source) {
            self.make_room(now);
        }
        self.sources.insert(source, (count.saturating_add(1).min(BURST), now));
    }

    fn count(&self, source: IpAddr, now: Instant) -> u32 {
        let Some((count, since)) = self.sources.get(&source) else { return 0 };
        let passed = now.saturating_duration_since(*since).as_millis() / REFILL.as_millis();
        count.saturating_sub(u32::try_from(passed).unwrap_or(u32::MAX))
    }

    /// Forgets who has recovered, and of the rest the half that failed longest ago: rarely, so that it costs little.
    fn make_room(&mut self, now: Instant) {
        let mut left: Vec<(IpAddr, (u32, Instant))> = std::mem::take(&mut self.sources).into_iter().collect();
        left.retain(|(_, (count, since))| now.saturating_duration_since(*since) < REFILL * *count);
        left.sort_by_key(|(_, (_, since))| std::cmp::Reverse(*since));
        left.truncate(MOST_SOURCES / 2);
        self.sources.extend(left);
    }
}

/// An IPv6 host owns its /64; guesses from all of it count as one.
fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(v6) => {
            let mut octets = v6.octets();
            octets[8..].fill(0);
            IpAddr::from(octets)
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn who_guesses_too_often_waits_and_recovers() {
        let now = heddle_node::clock::now();
        let (guesser, other): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let mut failures = Failures::default();
        for _ in 0..BURST {
            assert_eq!(failures.wait(guesser, now), None);
            failures.failed(guesser, now);
        }
        assert_eq!(failures.wait(guesser, now), Some(REFILL));
        assert_eq!(failures.wait(other, now), None);
        assert_eq!(failures.wait(guesser, now + REFILL), None);
    }

    #[test]
    fn one_ipv6_network_is_one_source_and_memory_is_bounded() {
        let now = heddle_node::clock::now();
        let mut failures = Failures::default();
        for host in 0..BURST {
            failures.failed(format!("2001:db8::{host:x}").parse().unwrap(), now);
        }
        assert!(failures.wait("2001:db8::ffff".parse().unwrap(), now).is_some());
        for host in 0..10_000u32 {
            failures.failed(IpAddr::from(host.to_be_bytes()), now);
        }
        assert!(failures.sources.len() <= MOST_SOURCES);
    }
}
