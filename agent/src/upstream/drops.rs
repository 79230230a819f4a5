//! Requests that are not sent at all, since a control plane wants endpoints to be relieved, counted by category. It knows no endpoint.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use heddle_xds::model::{DropOverload, Upstream};
use parking_lot::Mutex;

/// Categories that are remembered of one upstream, those of before among them: names come from a control plane.
const MAX_REMEMBERED: usize = 64;

/// All counts, by the name of the upstream and by category. Locked when configurations change and counts are read, never for a request.
#[derive(Debug, Default)]
pub struct Drops(Mutex<BTreeMap<Arc<str>, Categories>>);

type Categories = BTreeMap<Arc<str>, Count>;

/// One count, by the label of the upstream.
#[derive(Debug)]
struct Count {
    label: Arc<str>,
    dropped: Arc<AtomicU64>,
}

/// One share of the requests of an upstream.
#[derive(Debug)]
pub(super) struct Dropping {
    said: DropOverload,
    dropped: Arc<AtomicU64>,
}

impl Drops {
    /// What an upstream drops, counted on where it was counted before.
    pub(super) fn of(&self, config: &Upstream) -> Box<[Dropping]> {
        if config.drops.is_empty() {
            return Box::default();
        }
        let mut all = self.0.lock();
        let known = all.entry(config.name.clone()).or_default();
        if known.len() > MAX_REMEMBERED - DropOverload::MOST {
            known.retain(|category, _| config.drops.iter().any(|said| said.category == *category));
        }
        let one = |said: &DropOverload| {
            let count = || Count { label: config.label.clone(), dropped: Arc::default() };
            let dropped = known.entry(said.category.clone()).or_insert_with(count).dropped.clone();
            Dropping { said: said.clone(), dropped }
        };
        config.drops.iter().map(one).collect()
    }

    /// An upstream is gone.
    pub(super) fn forget(&self, name: &str) {
        self.0.lock().remove(name);
    }

    /// Label of the upstream, category and count; upstreams of one label together.
    pub fn totals(&self) -> BTreeMap<(Arc<str>, Arc<str>), u64> {
        let mut totals = BTreeMap::new();
        for (category, count) in self.0.lock().values().flatten() {
            let total: &mut u64 = totals.entry((count.label.clone(), category.clone())).or_default();
            *total = total.saturating_add(count.dropped.load(Ordering::Relaxed));
        }
        totals
    }
}

impl Dropping {
    /// Whether a request falls into this share. It is counted then.
    pub(super) fn takes(&self, dice: &mut fastrand::Rng) -> bool {
        let taken = dice.u32(0..DropOverload::ALL) < self.said.millionths;
        if taken {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(category = %self.said.category, "a request is dropped to relieve the upstream");
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn upstream(name: &str, drops: &[(&str, u32)]) -> Upstream {
        let drops =
            drops.iter().map(|(category, millionths)| DropOverload { category: (*category).into(), millionths: *millionths });
        Upstream { label: "u".into(), drops: drops.collect(), ..Upstream::new(name) }
    }

    fn taken(drops: &[Dropping], dice: &mut fastrand::Rng) -> usize {
        (0..10_000).filter(|_| drops.iter().any(|one| one.takes(dice))).count()
    }

    #[test]
    fn shares_are_drawn_each_by_itself_and_counted_by_category() {
        let (counts, mut dice) = (Drops::default(), fastrand::Rng::with_seed(7));
        let drops = counts.of(&upstream("u", &[("throttle", 500_000), ("lb", 500_000), ("never", 0)]));
        let all = taken(&drops, &mut dice);
        assert!((7_200..7_800).contains(&all), "{all}");
        let totals = counts.totals();
        let of = |category: &str| totals.get(&("u".into(), category.into())).copied().unwrap();
        assert!((4_700..5_300).contains(&of("throttle")) && (2_200..2_800).contains(&of("lb")) && of("never") == 0, "{totals:?}");
        assert_eq!(taken(&counts.of(&upstream("u", &[("all", DropOverload::ALL)])), &mut dice), 10_000);
        assert_eq!(taken(&counts.of(&upstream("u", &[])), &mut dice), 0);
    }

    #[test]
    fn counts_outlive_changes_and_are_bounded() {
        let (counts, mut dice) = (Drops::default(), fastrand::Rng::with_seed(7));
        for percent in [1_000_000, 0] {
            taken(&counts.of(&upstream("u", &[("lb", percent)])), &mut dice);
            taken(&counts.of(&upstream("u#host", &[("lb", percent)])), &mut dice);
            assert_eq!(counts.totals().into_values().collect::<Vec<_>>(), [20_000], "both are called u");
        }
        for n in 0..1_000 {
            counts.of(&upstream("u", &[("lb", 1), (&format!("category-{n}"), 1)]));
        }
        assert!(counts.totals().len() <= MAX_REMEMBERED);
        counts.forget("u");
        counts.forget("u#host");
        assert!(counts.totals().is_empty());
    }
}
