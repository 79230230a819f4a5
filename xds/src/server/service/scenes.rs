//! What nodes are told that are alike: made when the first of them comes, shared by all. It knows no stream.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use heddle_node::drain::DrainWatch;

use super::super::memo::Memo;
use super::super::pace::{self, Work};
use super::super::stage::{House, Stage};
use crate::dialect::envoy::encode::{self, Gap, Ledger, Reader};
use crate::snapshot::SnapshotFeed;

/// Views from zones that are kept, each of them a whole configuration; nodes of further zones are told what those are told that say none.
const MOST_ZONED: usize = 16;

/// What nodes are told that speak the same types, and where they look.
#[derive(Clone)]
pub(in super::super) struct Scene {
    pub(in super::super) feed: Arc<dyn SnapshotFeed>,
    pub(in super::super) house: House,
    pub(in super::super) work: Work,
    pub(in super::super) memo: Arc<Memo>,
    pub(in super::super) ledger: Ledger,
}

impl Scene {
    /// Follows a snapshot, in a task of the present runtime.
    pub(in super::super) fn new(feed: Arc<dyn SnapshotFeed>, drain: DrainWatch) -> Scene {
        Scene::of((feed, false), Ledger::default(), drain)
    }

    /// The same; `alone`: it was made for one node, or for such as it. In the ledger stands what is not told.
    pub(in super::super) fn of((feed, alone): (Arc<dyn SnapshotFeed>, bool), ledger: Ledger, drain: DrainWatch) -> Scene {
        let ((stage, house), work) = (Stage::new(feed.view(), alone), Work::new());
        tokio::spawn(pace::run(feed.clone(), stage, (work.clone(), pace::GATHER), drain));
        Scene { feed, house, work, memo: Arc::default(), ledger }
    }
}

/// In what nodes of others are alike.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct Alike {
    /// What they know of Envoy's types.
    pub(in super::super) reader: Reader,
    /// They have an identity of the mesh.
    pub(in super::super) members: bool,
    /// They are services of the mesh, and told of the others alone.
    pub(in super::super) services: bool,
    /// Where they are, empty when unknown.
    pub(in super::super) zone: Arc<str>,
}

/// What nodes of others are told. Cheap to clone; all clones are the same.
#[derive(Clone, Default)]
pub(in super::super) struct Scenes(Arc<Mutex<BTreeMap<Alike, Scene>>>);

impl Scenes {
    /// All that are there.
    pub(in super::super) fn feeds(&self) -> Vec<Arc<dyn SnapshotFeed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().map(|scene| scene.feed.clone()).collect()
    }

    /// The one for such nodes, which follows `ours`.
    pub(in super::super) fn get(&self, mut alike: Alike, ours: &Scene, (gap, drain): (Gap, &DrainWatch)) -> Scene {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let zoned = || all.keys().filter(|other| !other.zone.is_empty()).count();
        if !alike.zone.is_empty() && !all.contains_key(&alike) && zoned() >= MOST_ZONED {
            tracing::warn!(zone = %alike.zone, most = MOST_ZONED, "nodes of others are in too many zones: told as if it had said none");
            alike.zone = "".into();
        }
        if let Some(found) = all.get(&alike) {
            return found.clone();
        }
        let ledger = Ledger::default();
        let whom = (alike.reader, gap, alike.members, alike.zone.clone());
        let feed = match alike.services {
            true => encode::follow_services(whom, &ours.feed, ledger.clone(), drain.clone()),
            false => encode::follow(whom, ours.feed.clone(), ledger.clone(), drain.clone()),
        };
        let scene = Scene::of((feed, alike.services), ledger, drain.clone());
        all.insert(alike, scene.clone());
        scene
    }
}
