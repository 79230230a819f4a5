//! Sharing out by weight: exact over one round, and evenly spread within it. It knows no upstreams.

use std::sync::atomic::{AtomicUsize, Ordering};

use fastrand::Rng;

/// Longest round that is laid out beforehand; weights whose sum is larger are met on average instead.
const MAX_ROUND: u64 = 1024;

/// Who comes next.
#[derive(Debug)]
pub(super) enum Schedule {
    /// Nobody has a weight.
    Nobody,
    /// One round of turns, shared by all workers.
    Round { turns: Box<[u8]>, next: AtomicUsize },
    /// Running sums of weights, for dice.
    Dice { sums: Box<[u64]> },
}

impl Schedule {
    /// A schedule for at most 20 weights.
    pub(super) fn new(weights: &[u32]) -> Schedule {
        let divisor = weights.iter().fold(0, |a, b| gcd(a, *b)).max(1);
        let weights: Vec<u64> = weights.iter().map(|weight| u64::from(weight / divisor)).collect();
        let total: u64 = weights.iter().sum();
        match total {
            0 => Schedule::Nobody,
            1..=MAX_ROUND => Schedule::Round { turns: smooth(&weights, total), next: AtomicUsize::new(0) },
            _ => {
                let mut sum = 0;
                let sums = weights.iter().map(|weight| {
                    sum += weight;
                    sum
                });
                Schedule::Dice { sums: sums.collect() }
            }
        }
    }

    /// Who comes next.
    pub(super) fn next(&self, dice: &mut Rng) -> Option<usize> {
        match self {
            Schedule::Nobody => None,
            Schedule::Round { turns, .. } if turns.len() == 1 => Some(turns[0].into()),
            Schedule::Round { turns, next } => Some(turns[next.fetch_add(1, Ordering::Relaxed) % turns.len()].into()),
            Schedule::Dice { sums } => {
                let thrown = dice.u64(..*sums.last()?);
                Some(sums.partition_point(|sum| *sum <= thrown))
            }
        }
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Smooth weighted round robin, as nginx has it: each turn everyone gains its weight, the richest goes and pays the total.
fn smooth(weights: &[u64], total: u64) -> Box<[u8]> {
    let mut wealth = vec![0i64; weights.len()];
    let mut turn = || {
        for (wealth, weight) in wealth.iter_mut().zip(weights) {
            *wealth += *weight as i64;
        }
        let mut richest = 0;
        for (index, owned) in wealth.iter().enumerate() {
            if *owned > wealth[richest] {
                richest = index;
            }
        }
        wealth[richest] -= total as i64;
        richest as u8
    };
    (0..total).map(|_| turn()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts(weights: &[u32], rounds: usize) -> Vec<usize> {
        let schedule = Schedule::new(weights);
        let mut dice = fastrand::Rng::with_seed(7);
        let mut counts = vec![0; weights.len()];
        for _ in 0..rounds {
            if let Some(index) = schedule.next(&mut dice) {
                counts[index] += 1;
            }
        }
        counts
    }

    #[test]
    fn shares_are_exact_over_a_round_and_close_with_dice() {
        assert_eq!(counts(&[80, 20, 0], 10), [8, 2, 0]);
        assert_eq!(counts(&[0, 0], 10), [0, 0]);
        let thrown = counts(&[9_999, 1, 10_000], 20_000);
        assert!(thrown[0].abs_diff(10_000) < 500 && thrown[2].abs_diff(10_000) < 500, "{thrown:?}");
    }

    proptest! {
        #[test]
        fn every_round_gives_each_its_weight(weights in prop::collection::vec(0u32..40, 1..=20)) {
            let total: u32 = weights.iter().sum();
            let expected: Vec<usize> = weights.iter().map(|weight| *weight as usize).collect();
            prop_assert_eq!(counts(&weights, total as usize), expected);
        }
    }
}
