//! What nodes are told that are alike: made when the first of them comes, shared by all, gone with the last of them where it is for one zone. It knows no
//! stream.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use heddle_node::drain::DrainWatch;
use tokio::sync::{OnceCell, watch};

use super::super::memo::Memo;
use super::super::pace::{self, Work};
use super::super::stage::{House, Stage};
use crate::dialect::envoy::encode::{self, Gap, Ledger, Reader};
use crate::model::Kind;
use crate::snapshot::{Changes, Kindred, NodeScope, SnapshotFeed, SnapshotSource, Versioned, View};

/// Zones that are told apart for nodes that have shown who they are. Each costs a whole configuration for every kind of reader that is there.
const MOST_PROVEN: usize = 16;
/// Zones beside those, of nodes that have shown nothing: who says any zone it likes takes no place of others.
const MOST_UNPROVEN: usize = 16;
/// Zones without a place that are told by name.
const MOST_TOLD: usize = 64;

/// What nodes are told that speak the same types, and where they look.
#[derive(Clone)]
pub(in super::super) struct Scene {
    pub(in super::super) feed: Arc<dyn SnapshotFeed>,
    pub(in super::super) house: House,
    pub(in super::super) work: Work,
    pub(in super::super) memo: Arc<Memo>,
    pub(in super::super) ledger: Ledger,
    /// Held by streams of nodes that have shown who they are: with it the zone is theirs.
    _proof: Option<Arc<()>>,
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
        Scene { feed, house, work, memo: Arc::default(), ledger, _proof: None }
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
    /// Where they are, empty when unknown; `None`: there was no place for their zone, and zones make no difference to them.
    pub(in super::super) zone: Option<Arc<str>>,
}

impl Alike {
    /// Its zone, where it says one.
    fn named(&self) -> Option<&Arc<str>> {
        self.zone.as_ref().filter(|zone| !zone.is_empty())
    }
}

/// A scene that is made once: who comes meanwhile waits for it, and for no other.
type Slot = OnceCell<Scene>;

/// The way to a scene.
#[derive(Default)]
struct Entry {
    /// There for as long as a stream, or a group of nodes that is remembered, holds what it feeds.
    slot: Weak<Slot>,
    /// There for as long as one of its streams is of a node that has shown who it is.
    proof: Weak<()>,
    /// Those that are for no zone are few, and stay.
    _stays: Option<Arc<Slot>>,
}

/// What nodes of others are told. Cheap to clone; all clones are the same.
#[derive(Clone, Default)]
pub(in super::super) struct Scenes(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    entries: BTreeMap<Alike, Entry>,
    /// Zones of which it was said that there is no place for them.
    told: BTreeSet<Arc<str>>,
}

impl Scenes {
    /// All that are there.
    pub(in super::super) fn feeds(&self) -> Vec<Arc<dyn SnapshotFeed>> {
        let slots: Vec<_> = self.lock().entries.values().filter_map(|entry| entry.slot.upgrade()).collect();
        slots.iter().filter_map(|slot| Some(slot.get()?.feed.clone())).collect()
    }

    /// The one for such nodes, which follows `ours`; `proven`: this one has shown who it is. Whether there was no place for its zone.
    pub(in super::super) async fn get(
        &self,
        (alike, proven): (Alike, bool),
        ours: &Scene,
        (gap, drain): (Gap, &DrainWatch),
    ) -> (Scene, bool) {
        let (alike, slot, proof) = self.lock().enter(alike, proven);
        // A whole configuration is encoded here: nobody else is to wait for that.
        let scene = slot.get_or_init(async || begin(&alike, ours, (gap, drain))).await.clone();
        let feed = Arc::new(Held { feed: scene.feed.clone(), _slot: slot });
        (Scene { feed, _proof: proof, ..scene }, alike.zone.is_none())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Finds the place of a scene, or makes one. Where there is none for its zone, that is the one of nodes without a place.
    fn enter(&mut self, mut alike: Alike, proven: bool) -> (Alike, Arc<Slot>, Option<Arc<()>>) {
        self.entries.retain(|_, entry| entry.slot.strong_count() > 0);
        if let Some(zone) = alike.named().filter(|zone| !self.has_place(zone, proven)).cloned() {
            if self.is_news(&zone) {
                let told = "nodes of others are in too many zones: those of this one are served as if zones were off";
                tracing::warn!(%zone, with_certificate = MOST_PROVEN, without = MOST_UNPROVEN, "{told}");
            }
            alike.zone = None;
        }
        let entry = self.entries.entry(alike.clone()).or_default();
        let slot = entry.slot.upgrade().unwrap_or_else(|| {
            let slot = Arc::default();
            entry.slot = Arc::downgrade(&slot);
            entry._stays = alike.zone.as_ref().is_some_and(|zone| zone.is_empty()).then(|| slot.clone());
            slot
        });
        let proof = proven.then(|| {
            entry.proof.upgrade().unwrap_or_else(|| {
                let proof = Arc::default();
                entry.proof = Arc::downgrade(&proof);
                proof
            })
        });
        (alike, slot, proof)
    }

    /// Whether a zone is told apart, or can be.
    fn has_place(&self, zone: &Arc<str>, proven: bool) -> bool {
        let mut zones: BTreeMap<&Arc<str>, bool> = BTreeMap::new();
        for (alike, entry) in &self.entries {
            if let Some(zone) = alike.named() {
                *zones.entry(zone).or_default() |= entry.proof.strong_count() > 0;
            }
        }
        let taken = zones.values().filter(|taken| **taken == proven).count();
        zones.contains_key(zone) || taken < if proven { MOST_PROVEN } else { MOST_UNPROVEN }
    }

    /// Whether this was not said of a zone before. Names that anybody may make up are not remembered without end.
    fn is_news(&mut self, zone: &Arc<str>) -> bool {
        self.told.len() < MOST_TOLD && self.told.insert(zone.clone())
    }
}

/// Begins to follow `ours` for such nodes.
fn begin(alike: &Alike, ours: &Scene, (gap, drain): (Gap, &DrainWatch)) -> Scene {
    let ledger = Ledger::default();
    let whom = (alike.reader, gap, alike.members, alike.zone.clone());
    let feed = match alike.services {
        true => encode::follow_services(whom, &ours.feed, ledger.clone(), drain.clone()),
        false => encode::follow(whom, ours.feed.clone(), ledger.clone(), drain.clone()),
    };
    Scene::of((feed, alike.services), ledger, drain.clone())
}

/// What a scene is fed by, and the scene with it: both are there for as long as somebody holds this.
struct Held {
    feed: Arc<dyn SnapshotFeed>,
    _slot: Arc<Slot>,
}

impl SnapshotSource for Held {
    fn get(&self, kind: Kind, name: &str, scope: &NodeScope) -> Option<Arc<Versioned>> {
        self.feed.get(kind, name, scope)
    }

    fn all(&self, kind: Kind) -> (u64, Kindred) {
        self.feed.all(kind)
    }

    fn position(&self) -> u64 {
        self.feed.position()
    }
}

impl SnapshotFeed for Held {
    fn view(&self) -> Arc<View> {
        self.feed.view()
    }

    fn changed_between(&self, after: u64, to: u64) -> Changes {
        self.feed.changed_between(after, to)
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.feed.watch()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use heddle_node::drain;

    use super::*;
    use crate::model::{Endpoint, Endpoints, Resource, Upstream, ZoneMode, ZonePolicy};
    use crate::snapshot::{Change, SnapshotStore};

    struct World {
        ours: Scene,
        scenes: Scenes,
        drain: DrainWatch,
        _completion: drain::DrainCompletion,
    }

    impl World {
        /// An upstream whose endpoints are used by nodes of their zone alone.
        fn new() -> World {
            let (completion, drain) = drain::pair();
            let store = Arc::new(SnapshotStore::new());
            let strict = ZonePolicy { mode: ZoneMode::Strict, ..ZonePolicy::default() };
            let endpoint =
                |zone: &str| Endpoint { host: "127.0.0.1".into(), port: 1, weight: 1, zone: zone.into(), ..Endpoint::default() };
            store.apply(vec![
                Change::Set(Resource::Upstream(Arc::new(Upstream { locality: strict, ..Upstream::new("u") }))),
                Change::Set(Resource::Endpoints(Endpoints {
                    upstream: "u".into(),
                    endpoints: [endpoint("eu-1"), endpoint("eu-2")].into(),
                })),
            ]);
            let ours = Scene::new(store, drain.clone());
            World { ours, scenes: Scenes::default(), drain, _completion: completion }
        }

        /// A stream of an Envoy in a zone, and whether there was no place for that.
        async fn come(&self, zone: &str, proven: bool) -> (Scene, bool) {
            let alike = Alike { reader: Reader::Envoy, members: false, services: false, zone: Some(zone.into()) };
            self.scenes.get((alike, proven), &self.ours, (Gap::default(), &self.drain)).await
        }

        /// Those that come one after the other from zones of their own, and stay.
        async fn crowd(&self, zone: &str, count: usize, proven: bool) -> Vec<(Scene, bool)> {
            let mut all = Vec::new();
            for number in 0..count {
                all.push(self.come(&format!("{zone}-{number}"), proven).await);
            }
            all
        }
    }

    fn placed(streams: &[(Scene, bool)]) -> usize {
        streams.iter().filter(|(_, zoneless)| !zoneless).count()
    }

    /// What a stream is told of endpoints, encoded.
    fn endpoints(scene: &Scene) -> Vec<u8> {
        let view = scene.feed.view();
        let found = view.find(Kind::Endpoints, "u").expect("the endpoints are told");
        found.body.to_vec()
    }

    fn has(encoded: &[u8], text: &str) -> bool {
        encoded.windows(text.len()).any(|window| window == text.as_bytes())
    }

    #[tokio::test]
    async fn invented_zones_take_no_places_from_who_has_shown_a_certificate_and_none_for_longer_than_they_are_there() {
        let world = World::new();
        let strangers = world.crowd("made-up", 40, false).await;
        assert_eq!(placed(&strangers), MOST_UNPROVEN);
        let known = world.crowd("real", 40, true).await;
        assert_eq!(placed(&known), MOST_PROVEN, "their places were kept for them");
        assert!(!world.come("real-0", false).await.1, "a zone that is told apart is so for all of its nodes");
        assert!(world.come("late", false).await.1 && world.come("late", true).await.1, "all places are taken");
        drop((strangers, known));
        assert!(!world.come("late", false).await.1, "who has gone makes room");
        assert_eq!(world.scenes.feeds().len(), 0, "nobody is there, so nothing is encoded");
    }

    #[tokio::test]
    async fn a_zone_is_one_however_many_kinds_of_nodes_are_in_it() {
        let world = World::new();
        let mut all = Vec::new();
        for number in 0..MOST_UNPROVEN {
            for reader in [Reader::Envoy, Reader::Grpc] {
                let alike = Alike { reader, members: false, services: false, zone: Some(format!("zone-{number}").into()) };
                all.push(world.scenes.get((alike, false), &world.ours, (Gap::default(), &world.drain)).await);
            }
        }
        assert_eq!(placed(&all), 2 * MOST_UNPROVEN);
        assert!(world.come("one-more", false).await.1);
    }

    #[tokio::test]
    async fn nodes_of_a_zone_without_a_place_are_told_all_endpoints_and_named_once() {
        let world = World::new();
        let (own, _) = world.come("eu-1", false).await;
        let own = endpoints(&own);
        assert_eq!((has(&own, "eu-1"), has(&own, "eu-2")), (true, false), "its zone alone");
        let strangers = world.crowd("made-up", MOST_UNPROVEN, false).await;
        let (late, zoneless) = world.come("eu-2", false).await;
        let told = endpoints(&late);
        assert!(zoneless && has(&told, "eu-1") && has(&told, "eu-2"), "{told:?}");
        let (silent, zoneless) = world.come("", false).await;
        assert!(!zoneless && endpoints(&silent).len() < told.len(), "who says no zone has no endpoint without one to use");
        let mut inner = world.scenes.lock();
        assert!(!inner.is_news(&"eu-2".into()) && inner.is_news(&"eu-3".into()) && !inner.is_news(&"eu-3".into()));
        let further = (0..1_000).filter(|number| inner.is_news(&format!("{number}").into())).count();
        assert!(further < MOST_TOLD && inner.told.len() == MOST_TOLD, "{further}");
        drop((inner, strangers));
    }

    #[tokio::test]
    async fn what_a_group_remembers_is_there_when_its_nodes_come_back_and_goes_with_it() {
        let world = World::new();
        let (first, _) = world.come("a", true).await;
        let (second, _) = world.come("a", true).await;
        assert!(Arc::ptr_eq(&first.memo, &second.memo), "they share it");
        let group = first.feed.clone();
        let before = Arc::downgrade(&first.memo);
        drop((first, second));
        let (back, _) = world.come("a", true).await;
        assert!(Weak::ptr_eq(&before, &Arc::downgrade(&back.memo)));
        drop((group, back));
        assert!(before.upgrade().is_none(), "nobody holds it any more");
    }

    #[tokio::test]
    async fn what_follows_for_a_zone_ends_with_its_last_stream_and_waits_for_no_change() {
        let world = World::new();
        let (scene, _) = world.come("a", true).await;
        let before = Arc::strong_count(&world.ours.feed);
        drop(scene);
        // Tasks see it in their own time.
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        assert!(Arc::strong_count(&world.ours.feed) < before, "the encoder has let go of what it follows");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_comes_to_another_scene_does_not_wait_for_one_that_is_being_made() {
        let world = World::new();
        let alike = Alike { reader: Reader::Envoy, members: false, services: false, zone: Some("slow".into()) };
        let (_, slow, _) = world.scenes.lock().enter(alike, false);
        let (begun, wait) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
        let ours = world.ours.clone();
        let making = tokio::spawn({
            let (begun, wait) = (begun.clone(), wait.clone());
            async move {
                let made = slow.get_or_init(async || {
                    begun.notify_one();
                    wait.notified().await;
                    ours
                });
                drop(made.await.clone());
            }
        });
        begun.notified().await;
        let (other, _) = world.come("quick", false).await;
        assert_eq!(world.scenes.feeds().len(), 1, "what is not made yet is not there, and nobody waits for it");
        let second = world.come("slow", false);
        tokio::pin!(second);
        assert!(futures_util::poll!(second.as_mut()).is_pending(), "who is alike waits");
        wait.notify_one();
        let (second, _) = second.await;
        assert!(Arc::ptr_eq(&second.memo, &world.ours.memo), "and is given what was made");
        making.await.unwrap();
        drop(other);
    }
}
