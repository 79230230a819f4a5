//! When which endpoint is probed: a pure timetable. It opens no connections.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// When which endpoint is probed.
#[derive(Debug, Default)]
pub struct Schedule {
    targets: HashMap<u64, Entry>,
    running: usize,
}

#[derive(Debug)]
struct Entry {
    due: Instant,
    running: bool,
}

impl Schedule {
    /// Takes over the endpoints that there are. New ones are first probed at a random moment within `interval`, so that agents which start together do not
    /// probe together; those that stay keep their time.
    pub fn reconcile(&mut self, ids: impl Iterator<Item = u64>, interval: Duration, dice: &mut fastrand::Rng, now: Instant) {
        let mut old = std::mem::take(&mut self.targets);
        for id in ids {
            let new = || Entry { due: now + interval.mul_f64(dice.f64()), running: false };
            let entry = old.remove(&id).unwrap_or_else(new);
            self.targets.insert(id, entry);
        }
    }

    /// The endpoints to probe now, so many that at most `concurrency` run at once; the longest due come first.
    pub fn start(&mut self, concurrency: u32, now: Instant) -> Vec<u64> {
        let due = self.targets.iter().filter(|(_, entry)| !entry.running && entry.due <= now);
        let mut due: Vec<(Instant, u64)> = due.map(|(id, entry)| (entry.due, *id)).collect();
        due.sort_unstable();
        due.truncate((concurrency.max(1) as usize).saturating_sub(self.running));
        for (_, id) in &due {
            if let Some(entry) = self.targets.get_mut(id) {
                entry.running = true;
            }
        }
        self.running += due.len();
        due.into_iter().map(|(_, id)| id).collect()
    }

    /// A probe has ended; the next one comes `after` that, give or take a tenth.
    pub fn done(&mut self, id: u64, after: Duration, dice: &mut fastrand::Rng, now: Instant) {
        self.running = self.running.saturating_sub(1);
        if let Some(entry) = self.targets.get_mut(&id) {
            *entry = Entry { due: now + after.mul_f64(0.9 + 0.2 * dice.f64()), running: false };
        }
    }

    /// How long the latest one has been due without being started; `None` without any.
    pub fn late(&self, now: Instant) -> Option<Duration> {
        let late = |entry: &Entry| if entry.running { Duration::ZERO } else { now.saturating_duration_since(entry.due) };
        self.targets.values().map(late).max()
    }

    /// When something is due next, `None` while nothing is or all that may run does.
    pub fn next(&self, concurrency: u32) -> Option<Instant> {
        if self.running >= concurrency.max(1) as usize {
            return None;
        }
        self.targets.values().filter(|entry| !entry.running).map(|entry| entry.due).min()
    }
}
