//! What nodes of others report of their load, added up by cluster and locality. It knows no stream and no protocol.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Clusters in localities that are told apart; what comes beyond is counted and dropped.
const MAX_PLACES: usize = 10_000;
/// Those that one node may report, and those that are told apart because of it.
const MAX_OF_NODE: usize = 5_000;
/// Streams by which one node may report: the second takes over from one that broke without a word.
const MAX_STREAMS_OF_NODE: usize = 4;
/// Reasons of one cluster for which requests are dropped.
const MAX_CATEGORIES: usize = 16;
/// What one report may add to a count, and say to be under way: far more than a node sends in the seconds between two, and too little for any number of them
/// to use a counter up.
const MAX_COUNT: u64 = 1_000_000_000;
/// Endpoints of which one stream may say how many requests are under way.
const MAX_ENDPOINTS: usize = 1_000;

/// A cluster in a zone, as one node reports it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::server) struct Report {
    /// The cluster, which is called as its upstream.
    pub(in crate::server) cluster: Arc<str>,
    /// The zone of the endpoints, empty when unknown.
    pub(in crate::server) zone: Arc<str>,
    /// Requests since the report before, and what became of them.
    pub(in crate::server) sums: Sums,
    /// Requests under way now.
    pub(in crate::server) in_progress: u64,
    /// Requests under way now by endpoint, where the node says that.
    pub(in crate::server) endpoints: Vec<(SocketAddr, u64)>,
}

/// Requests that were refused without an endpoint, as one node reports them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dropped {
    /// The cluster.
    pub cluster: Arc<str>,
    /// Why, in the word of the configuration; empty when it was not said.
    pub category: Arc<str>,
    /// Since the report before.
    pub count: u64,
}

/// Requests, and what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sums {
    /// Begun.
    pub issued: u64,
    /// Ended well.
    pub succeeded: u64,
    /// Ended badly.
    pub failed: u64,
}

/// A cluster in a zone, over all nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadView {
    /// The cluster.
    pub cluster: Arc<str>,
    /// The zone.
    pub zone: Arc<str>,
    /// Requests so far.
    pub sums: Sums,
    /// Requests under way, as the nodes that are connected said last.
    pub in_progress: u64,
}

/// All that was reported. Cheap to clone; all clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Loads(Arc<Mutex<Inner>>);

type Place = (Arc<str>, Arc<str>);

/// Who reports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(in crate::server) struct Who {
    /// What its certificate says, empty where it has shown none: nobody takes the room of another one by saying the same id.
    pub(in crate::server) identity: Arc<str>,
    /// What it calls itself.
    pub(in crate::server) node: Arc<str>,
}

impl Who {
    /// Whose room the clusters take that it is the first to report: all nodes that show one identity share it, as many ids as they may say.
    fn payer(&self) -> Who {
        match &*self.identity {
            "" => self.clone(),
            _ => Who { identity: self.identity.clone(), node: Arc::default() },
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    sums: BTreeMap<Place, Sums>,
    /// Of how many clusters in localities each node was the first to report.
    first: BTreeMap<Who, usize>,
    dropped: BTreeMap<Arc<str>, BTreeMap<Arc<str>, u64>>,
    /// What is under way, by stream.
    now: BTreeMap<u64, Now>,
    left_out: u64,
}

#[derive(Debug, Default)]
struct Now {
    who: Who,
    places: BTreeMap<Place, u64>,
    endpoints: BTreeMap<(Arc<str>, SocketAddr), u64>,
}

impl Loads {
    /// Every cluster in every zone, in the order of their names.
    pub fn view(&self) -> Vec<LoadView> {
        let inner = self.lock();
        let mut under_way: BTreeMap<&Place, u64> = BTreeMap::new();
        for (place, count) in inner.now.values().flat_map(|now| &now.places) {
            let sum = under_way.entry(place).or_default();
            *sum = sum.saturating_add(*count);
        }
        let view = |(place, sums): (&Place, &Sums)| LoadView {
            cluster: place.0.clone(),
            zone: place.1.clone(),
            sums: *sums,
            in_progress: under_way.get(place).copied().unwrap_or_default(),
        };
        inner.sums.iter().map(view).collect()
    }

    /// Requests under way at the busiest endpoints, as the nodes that are connected said last, the busiest first.
    pub fn busiest(&self, most: usize) -> Vec<(Arc<str>, SocketAddr, u64)> {
        let inner = self.lock();
        let mut sums: BTreeMap<&(Arc<str>, SocketAddr), u64> = BTreeMap::new();
        for (place, count) in inner.now.values().flat_map(|now| &now.endpoints) {
            let sum = sums.entry(place).or_default();
            *sum = sum.saturating_add(*count);
        }
        let mut all: Vec<_> = sums.into_iter().map(|((cluster, endpoint), count)| (cluster.clone(), *endpoint, count)).collect();
        all.sort_by(|a, b| (b.2, &a.0, a.1).cmp(&(a.2, &b.0, b.1)));
        all.truncate(most);
        all
    }

    /// What was dropped so far, by cluster and category.
    pub fn dropped(&self) -> Vec<Dropped> {
        let inner = self.lock();
        let of = |(cluster, categories): (&Arc<str>, &BTreeMap<Arc<str>, u64>)| {
            let one = |(category, count): (&Arc<str>, &u64)| Dropped {
                cluster: cluster.clone(),
                category: category.clone(),
                count: *count,
            };
            categories.iter().map(one).collect::<Vec<_>>()
        };
        inner.dropped.iter().flat_map(of).collect()
    }

    /// Nodes that report now.
    pub fn reporters(&self) -> usize {
        self.lock().now.len()
    }

    /// Reports that were left out, since there are too many different ones.
    pub fn left_out(&self) -> u64 {
        self.lock().left_out
    }

    /// A node begins to report; what it says is under way is so until what is returned is dropped. `None`: there are `most` already, or some of this node.
    pub(in crate::server) fn enter(&self, who: Who, most: usize) -> Option<Reporter> {
        let mut inner = self.lock();
        let of_node = inner.now.values().filter(|now| now.who == who).count();
        if inner.now.len() >= most || of_node >= MAX_STREAMS_OF_NODE {
            return None;
        }
        let number = inner.next;
        inner.next += 1;
        inner.now.insert(number, Now { who: who.clone(), ..Now::default() });
        Some(Reporter { loads: self.clone(), who, number })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A node that reports.
#[derive(Debug)]
pub(in crate::server) struct Reporter {
    loads: Loads,
    who: Who,
    number: u64,
}

impl Reporter {
    /// Leaves of a report what one node may report.
    pub(in crate::server) fn shorten(&self, reports: &mut Vec<Report>) {
        let mut inner = self.loads.lock();
        let beyond = reports.len().saturating_sub(MAX_OF_NODE);
        inner.left_out = inner.left_out.saturating_add(u64::try_from(beyond).unwrap_or(u64::MAX));
        reports.truncate(MAX_OF_NODE);
    }

    /// Takes a whole report, shortened. What is not in it is not under way any more.
    pub(in crate::server) fn report(&self, reports: &[Report], dropped: &[Dropped]) {
        let mut inner = self.loads.lock();
        let mut now = Now { who: self.who.clone(), ..Now::default() };
        let payer = self.who.payer();
        for report in reports {
            let place = (report.cluster.clone(), report.zone.clone());
            if !inner.has_room(&place, &payer) {
                inner.left_out = inner.left_out.saturating_add(1);
                continue;
            }
            let sums = inner.sums.entry(place.clone()).or_default();
            sums.add(report.sums);
            if report.in_progress > 0 {
                now.places.insert(place, report.in_progress.min(MAX_COUNT));
            }
            for (endpoint, count) in report.endpoints.iter().filter(|(_, count)| *count > 0) {
                if now.endpoints.len() < MAX_ENDPOINTS {
                    now.endpoints.insert((report.cluster.clone(), *endpoint), (*count).min(MAX_COUNT));
                }
            }
        }
        inner.now.insert(self.number, now);
        for Dropped { cluster, category, count } in dropped {
            inner.drop_one(cluster, category, *count);
        }
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.loads.lock().now.remove(&self.number);
    }
}

impl Inner {
    /// Whether a cluster in a zone is counted: it is already, or there is room for it, which is then taken.
    fn has_room(&mut self, place: &Place, payer: &Who) -> bool {
        if self.sums.contains_key(place) {
            return true;
        }
        let first = self.first.get(payer).copied().unwrap_or_default();
        let room = self.sums.len() < MAX_PLACES && first < MAX_OF_NODE;
        if room {
            self.first.insert(payer.clone(), first + 1);
        }
        room
    }

    fn drop_one(&mut self, cluster: &Arc<str>, category: &Arc<str>, count: u64) {
        let room = self.dropped.len() < MAX_PLACES || self.dropped.contains_key(cluster);
        let known = self.dropped.get(cluster).map_or(0, BTreeMap::len) < MAX_CATEGORIES;
        let named = self.dropped.get(cluster).is_some_and(|categories| categories.contains_key(category));
        if room && (known || named) {
            let sum = self.dropped.entry(cluster.clone()).or_default().entry(category.clone()).or_default();
            *sum = sum.saturating_add(count.min(MAX_COUNT));
        } else {
            self.left_out = self.left_out.saturating_add(1);
        }
    }
}

impl Sums {
    fn add(&mut self, more: Sums) {
        self.issued = self.issued.saturating_add(more.issued.min(MAX_COUNT));
        self.succeeded = self.succeeded.saturating_add(more.succeeded.min(MAX_COUNT));
        self.failed = self.failed.saturating_add(more.failed.min(MAX_COUNT));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn who(identity: &str, node: &str) -> Who {
        Who { identity: identity.into(), node: node.into() }
    }

    fn report(cluster: &str, issued: u64, in_progress: u64) -> Report {
        let sums = Sums { issued, succeeded: issued, failed: 0 };
        Report { cluster: cluster.into(), zone: "a".into(), sums, in_progress, ..Report::default() }
    }

    #[test]
    fn what_nodes_report_is_added_up_and_what_is_under_way_ends_with_them() {
        let loads = Loads::default();
        let (one, two) = (loads.enter(who("", "n"), 2).unwrap(), loads.enter(who("", "n"), 2).unwrap());
        assert!(loads.enter(who("", "other"), 2).is_none());
        one.report(&[report("u", 3, 2)], &[Dropped { cluster: "u".into(), category: "".into(), count: 4 }]);
        two.report(&[report("u", 5, 1)], &[]);
        let place: SocketAddr = "10.0.0.1:80".parse().unwrap();
        two.report(&[Report { endpoints: vec![(place, 3)], ..report("u", 0, 1) }], &[]);
        one.report(&[Report { endpoints: vec![(place, 4)], ..report("u", 0, 7) }], &[]);
        assert_eq!(loads.busiest(5), [("u".into(), place, 7)]);
        one.report(&[report("u", 1, 7)], &[Dropped { cluster: "u".into(), category: "".into(), count: 1 }]);
        let view = |loads: &Loads| loads.view().iter().map(|one| (one.sums.issued, one.in_progress)).collect::<Vec<_>>();
        assert_eq!((view(&loads), loads.dropped()[0].count, loads.reporters()), (vec![(9, 8)], 5, 2));
        drop(one);
        assert_eq!((view(&loads), loads.reporters()), (vec![(9, 1)], 1));
        two.report(&[], &[]);
        assert_eq!(view(&loads), [(9, 0)]);
    }

    #[test]
    fn it_is_bounded() {
        let loads = Loads::default();
        let [one, two, three] = ["a", "b", "c"].map(|node| loads.enter(who("", node), 9).unwrap());
        let many = |from: usize, count: usize| -> Vec<Report> {
            (from..from + count).map(|n| report(&n.to_string(), u64::MAX, u64::MAX)).collect()
        };
        let dropped = |n: usize| Dropped { cluster: "u".into(), category: n.to_string().into(), count: u64::MAX };
        let dropped: Vec<Dropped> = (0..MAX_CATEGORIES + 3).map(dropped).collect();
        let mut long = many(0, MAX_OF_NODE + 5);
        one.shorten(&mut long);
        one.report(&long, &dropped);
        assert_eq!((loads.view().len(), loads.dropped().len(), loads.left_out()), (MAX_OF_NODE, MAX_CATEGORIES, 8));
        one.report(&many(MAX_OF_NODE, 2), &[]);
        assert_eq!((loads.view().len(), loads.left_out()), (MAX_OF_NODE, 10), "one node takes no more, in however many reports");
        two.report(&many(MAX_OF_NODE, MAX_OF_NODE), &[]);
        one.report(&many(MAX_OF_NODE, 2), &[]);
        assert_eq!((loads.view().len(), loads.left_out()), (MAX_PLACES, 10), "what others have reported too is counted");
        three.report(&many(2 * MAX_OF_NODE, 7), &[]);
        assert_eq!((loads.view().len(), loads.left_out()), (MAX_PLACES, 17));
    }

    #[test]
    fn a_node_that_reports_nonsense_does_not_use_the_counters_up() {
        let loads = Loads::default();
        let node = loads.enter(who("", "n"), 2).unwrap();
        let dropped = [Dropped { cluster: "u".into(), category: "".into(), count: u64::MAX }];
        node.report(&[report("u", u64::MAX, u64::MAX)], &dropped);
        let before = (loads.view()[0].sums.succeeded, loads.dropped()[0].count);
        node.report(&[report("u", 3, 1)], &[Dropped { cluster: "u".into(), category: "".into(), count: 2 }]);
        assert_eq!((loads.view()[0].sums.succeeded, loads.dropped()[0].count), (before.0 + 3, before.1 + 2));
    }

    #[test]
    fn nobody_takes_the_room_of_another_one_by_its_name() {
        let loads = Loads::default();
        let strangers: Vec<_> = (0..9).filter_map(|_| loads.enter(who("", "a"), 100)).collect();
        let others: Vec<_> = (0..9).filter_map(|_| loads.enter(who("b", "a"), 100)).collect();
        assert_eq!((strangers.len(), others.len()), (MAX_STREAMS_OF_NODE, MAX_STREAMS_OF_NODE));
        assert!(loads.enter(who("a", "a"), 100).is_some());
        // One identity has one share of the clusters, as many ids as it may say.
        for (node, from) in [("x", 0), ("y", MAX_OF_NODE)] {
            let reports: Vec<_> = (from..from + MAX_OF_NODE).map(|n| report(&n.to_string(), 1, 0)).collect();
            loads.enter(who("b", node), 100).unwrap().report(&reports, &[]);
        }
        assert_eq!(loads.view().len(), MAX_OF_NODE);
    }
}
