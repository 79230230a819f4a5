//! What is measured, and the one function in which it is: the counter runs only there. It knows no case.

use std::hint::black_box;
use std::time::{Duration, Instant};

/// Rounds that are prepared at a time, so that what they need stays in the cache.
const BATCH: usize = 16;

/// Something that is done again and again.
pub trait Subject {
    /// Prepares as many rounds; not counted.
    fn prepare(&mut self, _rounds: usize) {}
    /// Does as many rounds; counted.
    fn run(&mut self, rounds: usize);
}

/// Does `rounds` rounds in batches, each inside `count`.
pub fn drive(subject: &mut dyn Subject, rounds: usize, count: fn(&mut dyn Subject, usize)) {
    let mut left = rounds;
    while left > 0 {
        let batch = left.min(BATCH);
        subject.prepare(batch);
        count(subject, batch);
        left -= batch;
    }
}

/// The function whose inside the counter sees (`--toggle-collect`).
#[inline(never)]
pub fn counted(subject: &mut dyn Subject, rounds: usize) {
    black_box(&mut *subject).run(rounds);
    black_box(subject);
}

/// The same unseen.
#[inline(never)]
pub fn unseen(subject: &mut dyn Subject, rounds: usize) {
    subject.run(rounds);
}

/// The shortest time of a batch per round in nanoseconds, over as many rounds.
pub fn time(subject: &mut dyn Subject, rounds: usize) -> f64 {
    let mut best = Duration::MAX;
    for _ in 0..rounds.div_ceil(BATCH) {
        subject.prepare(BATCH);
        let start = Instant::now();
        subject.run(BATCH);
        best = best.min(start.elapsed());
    }
    best.as_nanos() as f64 / BATCH as f64
}
