//! What only attackers do often, counted. It knows no streams.
//!
//! Windows and limits bound memory; this bounds work: resets (CVE-2023-44487), resets provoked from us (CVE-2025-8671), control frames
//! (CVE-2019-9511 to 9518), CONTINUATION (CVE-2024-27316).

use std::time::Duration;

use heddle_node::clock::Instant;

/// Time over which glitches are counted.
const WINDOW: Duration = Duration::from_secs(10);
/// `WINDOW_UPDATE` frames that a peer may send for each DATA frame it got, and before the first.
const UPDATES_PER_DATA: u64 = 10;
const FREE_UPDATES: u64 = 200;

/// What a peer has been seen to do.
#[derive(Debug)]
pub(super) struct Glitches {
    budget: u32,
    count: u32,
    window: Option<Instant>,
    data_sent: u64,
    updates: u64,
    pings: u64,
}

impl Glitches {
    /// None so far; `budget` of them are borne in ten seconds.
    pub(super) fn new(budget: u32) -> Glitches {
        Glitches { budget, count: 0, window: None, data_sent: 0, updates: 0, pings: 0 }
    }

    /// Whether the budget is used up.
    pub(super) fn exhausted(&self) -> bool {
        self.count > self.budget
    }

    /// Something that is suspicious in numbers.
    pub(super) fn note(&mut self, now: Instant) {
        if self.window.is_none_or(|start| now - start > WINDOW) {
            self.window = Some(now);
            self.count = 0;
        }
        self.count = self.count.saturating_add(1);
    }

    /// A DATA frame goes out.
    pub(super) fn data_sent(&mut self) {
        self.data_sent += 1;
    }

    /// A ping has come. Bandwidth probes come with the data that they measure.
    pub(super) fn ping(&mut self, now: Instant) {
        self.pings += 1;
        if self.pings > self.data_sent {
            self.note(now);
        }
    }

    /// A window was opened.
    pub(super) fn update(&mut self, now: Instant) {
        self.updates += 1;
        if self.updates > FREE_UPDATES + UPDATES_PER_DATA * self.data_sent {
            self.note(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use heddle_node::clock;

    use super::*;

    #[test]
    fn the_budget_is_for_ten_seconds() {
        let (mut glitches, start) = (Glitches::new(5), clock::now());
        (0..5).for_each(|_| glitches.note(start));
        assert!(!glitches.exhausted());
        (0..5).for_each(|_| glitches.note(start + Duration::from_secs(11)));
        assert!(!glitches.exhausted());
        glitches.note(start + Duration::from_secs(12));
        assert!(glitches.exhausted());
    }

    #[test]
    fn pings_and_updates_are_borne_with_the_data_that_they_go_with() {
        let (mut glitches, now) = (Glitches::new(0), clock::now());
        for _ in 0..1000 {
            glitches.data_sent();
            glitches.ping(now);
            (0..10).for_each(|_| glitches.update(now));
        }
        assert!(!glitches.exhausted());
        glitches.ping(now);
        assert!(glitches.exhausted());
    }
}
