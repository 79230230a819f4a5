//! Stories of the keeper, over the store in memory and with a toy validator: routes need a `uri` and existing upstreams.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use futures_util::FutureExt;
use serde_json::{Value, json};

use super::*;
use crate::model::{Fault, Key, ResourceKind};
use crate::store::conformance::Hands;
use crate::store::{Compare, Memory, Revision, Store, StoreError, Version, Write};

struct Toy;

impl Validator for Toy {
    fn check(&self, candidate: &State, changed: &[Key]) -> Vec<(Key, Fault)> {
        let fault = |path: &str, message: String| Fault::new(path, message);
        let mut faults = Vec::new();
        for key in changed {
            let Some(stored) = candidate.get(key) else {
                for (route, user) in candidate.list(ResourceKind::Route) {
                    if user.value["upstream_id"] == json!(key.local_id()) && key.kind == ResourceKind::Upstream {
                        faults.push((key.clone(), fault("", format!("route [{route}] is still using it"))));
                    }
                }
                continue;
            };
            if key.kind != ResourceKind::Route {
                continue;
            }
            if !stored.value["uri"].is_string() {
                faults.push((key.clone(), fault("uri", "expected a string".into())));
            }
            if let Some(id) = stored.value["upstream_id"].as_str()
                && candidate.resolve(ResourceKind::Upstream, id, key).is_none()
            {
                faults.push((key.clone(), fault("upstream_id", format!("upstream [{id}] does not exist"))));
            }
        }
        faults
    }
}

/// A store whose disk can fill up, before or (worse) just after the write.
struct Fickle {
    inner: Memory,
    full: AtomicBool,
    late: AtomicBool,
}

#[async_trait]
impl Store for Fickle {
    async fn txn(&self, compare: Vec<Compare>, writes: Vec<Write>, author: Arc<str>) -> Result<Revision, StoreError> {
        if self.full.load(Ordering::SeqCst) {
            return Err(StoreError::Full("no space".into()));
        }
        let revision = self.inner.txn(compare, writes, author).await?;
        if self.late.load(Ordering::SeqCst) { Err(StoreError::Io("sync failed".into())) } else { Ok(revision) }
    }

    async fn load(&self) -> Result<(Revision, Vec<Version>), StoreError> {
        self.inner.load().await
    }

    async fn at(&self, revision: Revision) -> Result<Vec<Version>, StoreError> {
        self.inner.at(revision).await
    }

    async fn history(&self, key: Option<Key>, before: Option<Revision>, limit: usize) -> Result<Vec<Version>, StoreError> {
        self.inner.history(key, before, limit).await
    }

    async fn since(&self, after: Revision, most: usize) -> Result<Vec<Version>, StoreError> {
        self.inner.since(after, most).await
    }

    fn newest(&self) -> tokio::sync::watch::Receiver<Revision> {
        self.inner.newest()
    }

    async fn compact(&self, keep_revisions: u64, keep_ms: u64) -> Result<Revision, StoreError> {
        self.inner.compact(keep_revisions, keep_ms).await
    }
}

struct World {
    keeper: Keeper,
    store: Arc<Fickle>,
    hands: Hands,
}

impl World {
    async fn new() -> World {
        let hands = Hands::default();
        hands.set(1_000_000);
        let inner = Memory::new(hands.clock());
        let store = Arc::new(Fickle { inner, full: AtomicBool::new(false), late: AtomicBool::new(false) });
        let keeper = Keeper::start(store.clone(), Arc::new(Toy), hands.clock()).await.unwrap();
        World { keeper, store, hands }
    }

    /// A new keeper over the same store, as after a restart.
    async fn restart(self) -> World {
        let keeper = Keeper::start(self.store.clone(), Arc::new(Toy), self.hands.clock()).await.unwrap();
        World { keeper, ..self }
    }

    async fn apply(&self, intents: Vec<Intent>) -> Result<Applied, Refused> {
        self.keeper.apply(intents, Options::by("ops")).await
    }

    async fn put(&self, key: &Key, value: Value) -> Applied {
        self.apply(vec![Intent::put(key.clone(), value)]).await.unwrap()
    }

    fn value(&self, key: &Key) -> Option<Value> {
        self.keeper.state().get(key).map(|stored| stored.value.clone())
    }

    async fn offer(&self, source: &str, content: Content) -> SourceStatus {
        let update = Update { provider: "file".into(), source: source.into(), content, places: Places::default() };
        self.keeper.offer(vec![update]).await.unwrap();
        self.status(source)
    }

    async fn remove(&self, source: &str) {
        let update = Update { provider: "file".into(), source: source.into(), content: Content::Gone, places: Places::default() };
        self.keeper.offer(vec![update]).await.unwrap();
    }

    fn status(&self, source: &str) -> SourceStatus {
        self.keeper.sources().iter().find(|status| &*status.source == source).cloned().unwrap()
    }
}

fn run<F: Future<Output = ()>>(story: impl FnOnce(World) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async { story(World::new().await).await });
}

fn route(id: &str) -> Key {
    Key::new(ResourceKind::Route, id)
}

fn upstream(id: &str) -> Key {
    Key::new(ResourceKind::Upstream, id)
}

fn whole(resources: &[(Key, Value)]) -> Content {
    Content::Whole(resources.to_vec())
}

#[test]
fn a_write_is_stored_published_and_stamped() {
    run(|world| async move {
        let (_, mut changes) = world.keeper.subscribe();
        let applied = world.put(&route("r1"), json!({"uri": "/a"})).await;
        assert_eq!(applied.revision, 1);
        assert_eq!(applied.outcomes[0].effect, Effect::Created);
        let expected = json!({"uri": "/a", "id": "r1", "create_time": 1000, "update_time": 1000});
        assert_eq!(world.value(&route("r1")), Some(expected));
        let heard = changes.next().await;
        assert_eq!((heard.keys, heard.state.revision), (Some(vec![route("r1")]), 1));
        world.hands.set(2_000_000);
        let applied = world.put(&route("r1"), json!({"uri": "/b"})).await;
        assert_eq!((applied.outcomes[0].effect, applied.outcomes[0].stored.created), (Effect::Replaced, 1));
        assert_eq!(applied.outcomes[0].stored.modified, 2);
        let expected = json!({"uri": "/b", "id": "r1", "create_time": 1000, "update_time": 2000});
        assert_eq!(world.value(&route("r1")), Some(expected));
        let world = world.restart().await;
        assert_eq!(world.keeper.state().get(&route("r1")), Some(&applied.outcomes[0].stored));
    });
}

#[test]
fn times_that_a_patch_carries_stay_as_given() {
    run(|world| async move {
        world.put(&route("r1"), json!({"uri": "/a"})).await;
        world.hands.set(5_000_000);
        let mut read = world.value(&route("r1")).unwrap();
        world.put(&route("r1"), read.clone()).await;
        assert_eq!(world.value(&route("r1")).unwrap()["update_time"], json!(5000), "what was only read is not given");
        read["update_time"] = json!(77);
        read["create_time"] = json!(66);
        world.put(&route("r1"), read).await;
        let now = world.value(&route("r1")).unwrap();
        assert_eq!((&now["update_time"], &now["create_time"]), (&json!(77), &json!(66)));
    });
}

#[test]
fn ids_are_filled_in_as_each_kind_has_them() {
    run(|world| async move {
        let credential = Key::new(ResourceKind::Credential, "jack/credentials/c1");
        let secret = Key::new(ResourceKind::Secret, "vault/1");
        let consumer = Key::new(ResourceKind::Consumer, "jack");
        for key in [&credential, &secret, &consumer] {
            world.put(key, json!({})).await;
        }
        assert_eq!(world.value(&credential).unwrap()["id"], "c1");
        assert_eq!(world.value(&secret).unwrap()["id"], "vault/1");
        assert!(world.value(&consumer).unwrap().get("id").is_none());
    });
}

#[test]
fn all_of_a_transaction_or_nothing() {
    run(|world| async move {
        let (_, mut changes) = world.keeper.subscribe();
        let refused = world
            .apply(vec![
                Intent::put(route("good"), json!({"uri": "/"})),
                Intent::put(route("bad"), json!({"uri": 7, "upstream_id": "none"})),
            ])
            .await
            .unwrap_err();
        let text = refused.to_string();
        assert_eq!(text, "routes/bad: uri: expected a string\nroutes/bad: upstream_id: upstream [none] does not exist");
        assert_eq!(world.keeper.state().count(ResourceKind::Route), 0);
        assert_eq!(world.store.load().await.unwrap().0, 0);
        assert!(changes.next().now_or_never().is_none());
    });
}

#[test]
fn intents_of_a_transaction_may_come_in_any_order() {
    run(|world| async move {
        let intents =
            vec![Intent::put(route("r"), json!({"uri": "/", "upstream_id": "u"})), Intent::put(upstream("u"), json!({}))];
        assert_eq!(world.apply(intents).await.unwrap().revision, 1);
        let intents = vec![Intent::delete(upstream("u")), Intent::delete(route("r"))];
        assert_eq!(world.apply(intents).await.unwrap().revision, 2);
    });
}

#[test]
fn what_is_in_use_is_deleted_only_by_force() {
    run(|world| async move {
        world.put(&upstream("u"), json!({})).await;
        world.put(&route("r"), json!({"uri": "/", "upstream_id": "u"})).await;
        let refused = world.apply(vec![Intent::delete(upstream("u"))]).await.unwrap_err();
        assert!(refused.to_string().contains("route [r] is still using it"), "{refused}");
        let force = Options { force: true, ..Options::by("ops") };
        world.keeper.apply(vec![Intent::delete(upstream("u"))], force).await.unwrap();
        assert_eq!(world.value(&upstream("u")), None);
        let refused = world.apply(vec![Intent::delete(upstream("u"))]).await.unwrap_err();
        assert!(matches!(refused, Refused::NotFound(key) if key == upstream("u")));
    });
}

#[test]
fn who_read_an_older_revision_does_not_overwrite_a_newer_one() {
    run(|world| async move {
        world.put(&route("r"), json!({"uri": "/1"})).await;
        world.put(&route("r"), json!({"uri": "/2"})).await;
        let stale = |expect| Intent::Put { key: route("r"), value: json!({"uri": "/x"}), expires_at_ms: None, expect };
        let refused = world.apply(vec![stale(Expect::Modified(1))]).await.unwrap_err();
        assert_eq!(refused.to_string(), "routes/r is at revision 2, expected at revision 1");
        let refused = world.apply(vec![stale(Expect::Absent)]).await.unwrap_err();
        assert_eq!(refused.to_string(), "routes/r is at revision 2, expected absent");
        let gone = Intent::Delete { key: route("r"), expect: Expect::Modified(1) };
        assert!(matches!(world.apply(vec![gone]).await, Err(Refused::Conflict { found: Some(2), .. })));
        world.apply(vec![stale(Expect::Modified(2))]).await.unwrap();
    });
}

#[test]
fn a_whole_configuration_can_be_bound_to_the_revision_that_was_read() {
    run(|world| async move {
        world.put(&route("r"), json!({"uri": "/1"})).await;
        let at = |revision| Options { at_revision: Some(revision), ..Options::by("ops") };
        let intents = || vec![Intent::put(route("s"), json!({"uri": "/"}))];
        let refused = world.keeper.apply(intents(), at(0)).await.unwrap_err();
        assert!(refused.to_string().starts_with("the store is at revision 1, expected 0"), "{refused}");
        world.keeper.apply(intents(), at(1)).await.unwrap();
    });
}

#[test]
fn a_generated_id_is_the_coming_revision_in_twenty_digits() {
    run(|world| async move {
        world.put(&route("00000000000000000002"), json!({"uri": "/taken"})).await;
        let create = || Intent::Create { kind: ResourceKind::Route, value: json!({"uri": "/"}), expires_at_ms: None };
        let applied = world.apply(vec![create(), create()]).await.unwrap();
        let ids: Vec<&str> = applied.outcomes.iter().map(|outcome| &*outcome.key.id).collect();
        assert_eq!(ids, ["00000000000000000003", "00000000000000000004"]);
        assert_eq!(applied.outcomes[0].stored.value["id"], ids[0]);
    });
}

#[test]
fn a_dry_run_says_everything_and_changes_nothing() {
    run(|world| async move {
        let dry = Options { dry_run: true, ..Options::by("ops") };
        let applied = world.keeper.apply(vec![Intent::put(route("r"), json!({"uri": "/"}))], dry.clone()).await.unwrap();
        assert_eq!((applied.revision, applied.outcomes[0].effect), (1, Effect::Created));
        assert!(applied.state.get(&route("r")).is_some());
        assert!(world.keeper.state().get(&route("r")).is_none());
        assert_eq!(world.store.load().await.unwrap().0, 0);
        let refused = world.keeper.apply(vec![Intent::put(route("r"), json!({}))], dry).await;
        assert!(matches!(refused, Err(Refused::Invalid(_))));
    });
}

#[test]
fn applying_the_same_document_again_makes_no_revision() {
    run(|world| async move {
        world.put(&route("r"), json!({"uri": "/", "plugins": {}})).await;
        let again = Options { skip_unchanged: true, ..Options::by("ops") };
        let intents = vec![Intent::put(route("r"), json!({"plugins": {}, "uri": "/"}))];
        let applied = world.keeper.apply(intents.clone(), again).await.unwrap();
        assert_eq!((applied.revision, applied.outcomes[0].effect), (1, Effect::Unchanged));
        assert_eq!(world.apply(intents).await.unwrap().revision, 2, "a plain PUT always writes");
    });
}

#[test]
fn a_consumer_takes_its_credentials_along() {
    run(|world| async move {
        let consumer = |id: &str| Key::new(ResourceKind::Consumer, id);
        let credential = |id: &str| Key::new(ResourceKind::Credential, id);
        let mine = credential("jack/credentials/c1");
        let other = credential("jackie/credentials/c1");
        for key in [&consumer("jack"), &consumer("jackie"), &mine, &other] {
            world.put(key, json!({})).await;
        }
        let applied = world.apply(vec![Intent::delete(consumer("jack")), Intent::delete(mine.clone())]).await.unwrap();
        assert_eq!(applied.outcomes.iter().map(|it| &it.key).collect::<Vec<_>>(), [&consumer("jack"), &mine]);
        assert_eq!((world.value(&mine), world.value(&other).is_some()), (None, true));
    });
}

#[test]
fn what_expires_is_deleted_as_a_revision_of_its_own() {
    run(|world| async move {
        world.put(&upstream("u"), json!({})).await;
        let put = |key, value, at| Intent::Put { key, value, expires_at_ms: Some(at), expect: Expect::Any };
        world.apply(vec![put(upstream("u"), json!({}), 2_000_000)]).await.unwrap();
        world.put(&route("r"), json!({"uri": "/", "upstream_id": "u"})).await;
        let world = world.restart().await;
        assert_eq!(world.keeper.sweep(true).await.unwrap(), 0);
        world.hands.set(2_000_000);
        assert_eq!(world.keeper.sweep(true).await.unwrap(), 1);
        assert_eq!(world.value(&upstream("u")), None, "a reference does not keep it alive");
        let last = &world.keeper.history(Some(upstream("u")), None, 1).await.unwrap()[0];
        assert_eq!((&*last.author, &last.value), ("ttl", &None));
        world.put(&upstream("v"), json!({})).await;
        assert_eq!(world.keeper.sweep(true).await.unwrap(), 0);
    });
}

#[test]
fn one_resource_or_everything_goes_back() {
    run(|world| async move {
        world.put(&upstream("u"), json!({"n": 1})).await;
        world.put(&route("r"), json!({"uri": "/1", "upstream_id": "u"})).await;
        world.put(&route("r"), json!({"uri": "/2"})).await;
        world.apply(vec![Intent::delete(upstream("u"))]).await.unwrap();
        world.hands.set(9_000_000);
        world.put(&route("new"), json!({"uri": "/new"})).await;

        let ops = || Options::by("ops");
        let refused = world.keeper.rollback(Scope::Resource(route("r")), 2, ops()).await.unwrap_err();
        assert!(refused.to_string().contains("upstream [u] does not exist"), "a rollback is validated like any write: {refused}");
        let applied = world.keeper.rollback(Scope::Everything, 2, ops()).await.unwrap();
        assert_eq!(applied.revision, 6);
        assert_eq!(world.value(&route("new")), None);
        let back = world.value(&route("r")).unwrap();
        assert_eq!((&back["uri"], &back["create_time"], &back["update_time"]), (&json!("/1"), &json!(1000), &json!(9000)));
        let newest = world.keeper.history(None, None, 1).await.unwrap();
        assert!(newest.len() == 3 && newest.iter().all(|version| &*version.author == "rollback by ops to 2"));

        world.keeper.rollback(Scope::Resource(route("new")), 5, ops()).await.unwrap();
        assert_eq!(world.value(&route("new")).unwrap()["uri"], "/new");
        world.keeper.rollback(Scope::Resource(route("new")), 1, ops()).await.unwrap();
        assert_eq!(world.value(&route("new")), None);
        assert!(matches!(
            world.keeper.rollback(Scope::Everything, 99, ops()).await,
            Err(Refused::Store(StoreError::UnknownRevision(99, 0)))
        ));
        let same = world.keeper.rollback(Scope::Everything, 6, ops()).await.unwrap();
        assert_eq!(same.revision, 8, "nothing to do makes no revision");
    });
}

#[test]
fn a_rollback_does_not_raise_what_has_expired() {
    run(|world| async move {
        let put =
            Intent::Put { key: route("r"), value: json!({"uri": "/"}), expires_at_ms: Some(1_500_000), expect: Expect::Any };
        world.apply(vec![put, Intent::put(route("s"), json!({"uri": "/"}))]).await.unwrap();
        world.hands.set(2_000_000);
        world.keeper.sweep(true).await.unwrap();
        world.keeper.rollback(Scope::Everything, 1, Options::by("ops")).await.unwrap();
        assert_eq!((world.value(&route("r")), world.value(&route("s")).is_some()), (None, true));
    });
}

#[test]
fn a_full_disk_refuses_writes_and_nothing_else() {
    run(|world| async move {
        world.put(&route("r"), json!({"uri": "/"})).await;
        let (_, mut changes) = world.keeper.subscribe();
        world.store.full.store(true, Ordering::SeqCst);
        let refused = world.apply(vec![Intent::put(route("r"), json!({"uri": "/x"}))]).await.unwrap_err();
        assert!(matches!(refused, Refused::Store(StoreError::Full(_))), "{refused}");
        assert!(world.keeper.trouble().unwrap().contains("free space"));
        assert_eq!(world.value(&route("r")).unwrap()["uri"], "/");
        assert!(changes.next().now_or_never().is_none());
        let status = world.offer("a.yaml", whole(&[(route("p"), json!({"uri": "/p"}))])).await;
        assert_eq!(status.resources, 1, "providers do not need the disk");
        world.store.full.store(false, Ordering::SeqCst);
        assert_eq!(world.put(&route("r"), json!({"uri": "/x"})).await.revision, 2);
        assert_eq!(world.keeper.trouble(), None);
    });
}

#[test]
fn a_write_that_failed_and_was_stored_all_the_same_is_noticed() {
    run(|world| async move {
        world.offer("a.yaml", whole(&[(route("p"), json!({"uri": "/p"}))])).await;
        let (before, mut changes) = world.keeper.subscribe();
        world.store.late.store(true, Ordering::SeqCst);
        assert!(world.apply(vec![Intent::put(route("r"), json!({"uri": "/late"}))]).await.is_err());
        world.store.late.store(false, Ordering::SeqCst);
        assert_eq!(world.put(&route("s"), json!({"uri": "/"})).await.revision, 2);
        assert_eq!(world.value(&route("r")).unwrap()["uri"], "/late");
        assert!(world.value(&Key::new(ResourceKind::Route, "p@file")).is_some(), "providers are not forgotten");
        let heard = changes.next().await;
        let tells = |id: &str| heard.keys.as_ref().is_none_or(|keys| keys.contains(&route(id)));
        assert!(tells("r") && heard.state.generation > before.generation);
    });
}

#[test]
fn somebody_else_at_the_store_is_believed_and_what_rests_on_it_is_planned_anew() {
    run(|world| async move {
        world.put(&route("r"), json!({"uri": "/"})).await;
        let other = Write { key: route("r"), value: Some(json!({"uri": "/other"})), expires_at_ms: None };
        world.store.inner.txn(vec![], vec![other], "other".into()).await.unwrap();
        let (key, value, expect) = (route("r"), json!({"uri": "/mine"}), Expect::Modified(1));
        let refused = world.apply(vec![Intent::Put { key, value, expires_at_ms: None, expect }]).await;
        assert!(matches!(refused, Err(Refused::Conflict { found: Some(2), expected: Some(1), .. })));
        assert_eq!(world.value(&route("r")).unwrap()["uri"], "/other");
        let other = Write { key: route("s"), value: Some(json!({"uri": "/s"})), expires_at_ms: None };
        world.store.inner.txn(vec![], vec![other], "other".into()).await.unwrap();
        assert_eq!(world.put(&route("r"), json!({"uri": "/mine"})).await.revision, 4);
        let state = world.keeper.state();
        assert_eq!((state.revision, state.get(&route("r")).unwrap().modified, state.get(&route("s")).is_some()), (4, 4, true));
    });
}

#[test]
fn a_caller_that_hangs_up_does_not_split_store_and_belief() {
    run(|world| async move {
        let put = world.keeper.apply(vec![Intent::put(route("r"), json!({"uri": "/"}))], Options::by("ops"));
        assert!(put.now_or_never().is_none(), "it was handed over and dropped");
        world.put(&route("s"), json!({"uri": "/"})).await;
        let (revision, stored) = world.store.load().await.unwrap();
        assert_eq!((revision, stored.len()), (2, 2));
        assert_eq!(world.keeper.state().count(ResourceKind::Route), 2);
    });
}

mod lives {
    use proptest::prelude::*;

    use super::*;

    /// A step of a random life of a configuration.
    #[derive(Debug, Clone)]
    enum Step {
        Apply(Vec<(u8, Option<Option<u8>>, bool)>),
        Offer(u8, Vec<(u8, Option<u8>)>),
        Rollback(u64),
        Later(u64),
        Fail(bool, bool),
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        let upstream = || proptest::option::of(0u8..3);
        let intent = (0u8..6, proptest::option::weighted(0.7, upstream()), any::<bool>());
        prop_oneof![
            6 => proptest::collection::vec(intent, 1..4).prop_map(Step::Apply),
            4 => (0u8..2, proptest::collection::vec((0u8..6, upstream()), 0..4)).prop_map(|(s, r)| Step::Offer(s, r)),
            1 => (0u64..20).prop_map(Step::Rollback),
            1 => (0u64..2_000).prop_map(Step::Later),
            1 => (any::<bool>(), any::<bool>()).prop_map(|(full, late)| Step::Fail(full, late)),
            1 => Just(Step::Restart),
        ]
    }

    /// Keys 0 to 2 are upstreams, 3 to 5 routes, which may refer to an upstream.
    fn resource(n: u8, refers: Option<u8>) -> (Key, Value) {
        if n < 3 {
            return (upstream(&format!("u{n}")), json!({}));
        }
        let refers = refers.map_or(json!({"uri": "/"}), |u| json!({"uri": "/", "upstream_id": format!("u{u}")}));
        (route(&format!("r{n}")), refers)
    }

    async fn take(world: World, step: Step) -> World {
        match step {
            Step::Apply(list) => {
                let intent = |(n, put, expires): (u8, Option<Option<u8>>, bool)| {
                    let (key, value) = resource(n, put.flatten());
                    let expires_at_ms = expires.then_some(1_001_000);
                    match put {
                        Some(_) => Intent::Put { key, value, expires_at_ms, expect: Expect::Any },
                        None => Intent::delete(key),
                    }
                };
                let _ = world.apply(list.into_iter().map(intent).collect()).await;
            }
            Step::Offer(source, list) => {
                let content = Content::Whole(list.into_iter().map(|(n, refers)| resource(n, refers)).collect());
                world.offer(&format!("{source}.yaml"), content).await;
            }
            Step::Rollback(to) => {
                let _ = world.keeper.rollback(Scope::Everything, to, Options::by("ops")).await;
            }
            Step::Later(ms) => {
                world.hands.set((world.hands.clock())() + ms);
                let _ = world.keeper.sweep(true).await;
            }
            Step::Fail(full, late) => {
                world.store.full.store(full, Ordering::SeqCst);
                world.store.late.store(late, Ordering::SeqCst);
            }
            Step::Restart => return world.restart().await,
        }
        world
    }

    async fn live(steps: Vec<Step>) {
        let mut world = World::new().await;
        let (mut mirror, mut changes) = world.keeper.subscribe();
        for step in steps {
            let restart = matches!(step, Step::Restart);
            world = take(world, step).await;
            if restart {
                (mirror, changes) = world.keeper.subscribe();
            }
            let state = world.keeper.state();
            while let Some(heard) = changes.next().now_or_never() {
                let mut next = (*mirror).clone();
                match heard.keys {
                    Some(keys) => keys.iter().for_each(|key| next.set(key, heard.state.get(key).cloned())),
                    None => next = (*heard.state).clone(),
                }
                assert!(heard.state.generation > mirror.generation);
                (next.revision, next.generation) = (heard.state.revision, heard.state.generation);
                mirror = Arc::new(next);
            }
            assert!(mirror.all().eq(state.all()), "who follows the changes believes the same");
        }
        // A last write settles what a failed one left open.
        world.store.full.store(false, Ordering::SeqCst);
        world.store.late.store(false, Ordering::SeqCst);
        world.put(&route("last"), json!({"uri": "/"})).await;
        let believed = world.keeper.state();
        let again = world.restart().await.keeper.state();
        assert_eq!(again.revision, believed.revision);
        let kept = believed.all().filter(|(key, _)| key.provider().is_none());
        assert!(kept.eq(again.all()), "what is believed is what is stored");
    }

    proptest! {
        #[test]
        fn belief_store_and_followers_never_part(steps in proptest::collection::vec(step(), 1..40)) {
            tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(live(steps));
        }
    }
}

mod providers {
    use super::*;

    fn of_file(id: &str) -> Key {
        route(id).of_provider("file")
    }

    #[test]
    fn a_file_is_believed_under_its_providers_name() {
        run(|world| async move {
            let (_, mut changes) = world.keeper.subscribe();
            let status = world.offer("a.yaml", whole(&[(route("r1"), json!({"uri": "/"}))])).await;
            assert_eq!((status.resources, status.accepted_ms, status.errors.len()), (1, Some(1_000_000), 0));
            assert_eq!(world.value(&of_file("r1")), Some(json!({"uri": "/"})));
            assert_eq!(changes.next().await.keys, Some(vec![of_file("r1")]));
            assert_eq!(world.keeper.state().revision, 0, "the store has nothing of it");
            world.offer("a.yaml", whole(&[(route("r1"), json!({"uri": "/"}))])).await;
            assert!(changes.next().now_or_never().is_none(), "the same content is no change");
            let status = world.offer("a.yaml", Content::Whole(vec![])).await;
            assert_eq!(status.resources, 0);
            assert_eq!(world.value(&of_file("r1")), None);
        });
    }

    #[test]
    fn generations_grow_whoever_changes_something() {
        run(|world| async move {
            let mut seen = vec![world.keeper.state().generation];
            for n in 0..3 {
                world.offer("a.yaml", whole(&[(route("p"), json!({"uri": "/", "n": n}))])).await;
                seen.push(world.keeper.state().generation);
                world.put(&route("r"), json!({"uri": "/"})).await;
                seen.push(world.keeper.state().generation);
            }
            assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "{seen:?}");
            let state = world.keeper.state();
            assert!(state.get(&of_file("p")).unwrap().modified > state.get(&of_file("p")).unwrap().created);
        });
    }

    #[test]
    fn the_admin_api_cannot_write_what_a_provider_supplies() {
        run(|world| async move {
            world.offer("a.yaml", whole(&[(route("r1"), json!({"uri": "/"}))])).await;
            for intent in [Intent::put(of_file("r1"), json!({"uri": "/"})), Intent::delete(of_file("r1"))] {
                let refused = world.apply(vec![intent]).await.unwrap_err();
                assert!(refused.to_string().contains("routes/r1@file comes from the provider `file`"), "{refused}");
            }
        });
    }

    #[test]
    fn a_bad_file_keeps_its_last_good_content_and_says_why() {
        run(|world| async move {
            world.offer("a.yaml", whole(&[(route("a"), json!({"uri": "/1"}))])).await;
            world.hands.set(2_000_000);
            let bad = whole(&[(route("a"), json!({"uri": "/2"})), (route("b"), json!({"uri": 1}))]);
            let status = world.offer("a.yaml", bad.clone()).await;
            assert_eq!(status.errors, ["routes/b@file: uri: expected a string"]);
            assert_eq!((status.resources, status.accepted_ms, status.refused_ms), (1, Some(1_000_000), Some(2_000_000)));
            assert_eq!(world.value(&of_file("a")).unwrap()["uri"], "/1");
            world.hands.set(3_000_000);
            assert_eq!(world.offer("a.yaml", bad).await.refused_ms, Some(2_000_000), "the same fault is as old as it is");
            let status = world.offer("a.yaml", Content::Broken(vec!["a.yaml:3:1: no YAML".into()])).await;
            assert_eq!((status.errors.len(), status.resources), (1, 1));
            let status = world.offer("a.yaml", whole(&[(route("a"), json!({"uri": "/3"}))])).await;
            assert_eq!((status.errors.len(), status.refused_ms, status.accepted_ms), (0, None, Some(3_000_000)));
        });
    }

    #[test]
    fn one_bad_file_does_not_hold_up_the_others() {
        run(|world| async move {
            let update = |source: &str, resources: &[(Key, Value)]| Update {
                provider: "file".into(),
                source: source.into(),
                content: whole(resources),
                places: Places::default(),
            };
            let updates = vec![
                update("a.yaml", &[(route("a"), json!({"uri": "/", "upstream_id": "u"}))]),
                update("b.yaml", &[(upstream("u"), json!({})), (route("b"), json!({"uri": 1}))]),
                update("c.yaml", &[(route("c"), json!({"uri": "/"}))]),
            ];
            world.keeper.offer(updates).await.unwrap();
            assert!(world.value(&of_file("c")).is_some());
            assert_eq!(world.status("b.yaml").errors, ["routes/b@file: uri: expected a string"]);
            assert_eq!(world.status("a.yaml").errors, ["routes/a@file: upstream_id: upstream [u] does not exist"]);
            world.offer("b.yaml", whole(&[(upstream("u"), json!({}))])).await;
            assert!(world.value(&of_file("a")).is_some(), "what waited for another file comes with it");
            assert_eq!(world.status("a.yaml").errors, Vec::<String>::new());
        });
    }

    #[test]
    fn references_look_in_the_own_provider_first_then_in_the_store() {
        run(|world| async move {
            let refers = |id: &str| whole(&[(route("r"), json!({"uri": "/", "upstream_id": id}))]);
            assert_eq!(world.offer("a.yaml", refers("u")).await.errors.len(), 1);
            world.put(&upstream("u"), json!({"from": "store"})).await;
            assert_eq!(world.status("a.yaml").errors.len(), 0, "a file that waited for the store is believed now");
            let found = |state: &State| state.resolve(ResourceKind::Upstream, "u", &of_file("r")).unwrap().0;
            assert_eq!(found(&world.keeper.state()), upstream("u"));
            world.offer("b.yaml", whole(&[(upstream("u"), json!({"from": "file"}))])).await;
            assert_eq!(found(&world.keeper.state()), upstream("u").of_provider("file"));
            world.put(&route("mine"), json!({"uri": "/", "upstream_id": "u@file"})).await;
            let state = world.keeper.state();
            let plain = state.resolve(ResourceKind::Upstream, "u", &route("mine")).unwrap().0;
            assert_eq!(plain, upstream("u"), "a stored resource means the store");
        });
    }

    #[test]
    fn an_id_has_one_owner() {
        run(|world| async move {
            let same = || whole(&[(route("a"), json!({"uri": "/"}))]);
            world.offer("a.yaml", same()).await;
            let status = world.offer("b.yaml", same()).await;
            assert_eq!(status.errors, ["routes/a@file: a.yaml defines it already; each id can be used once"]);
            world.remove("a.yaml").await;
            assert_eq!(world.keeper.sources().len(), 1, "what is gone is forgotten");
            assert_eq!((world.status("b.yaml").errors.len(), world.status("b.yaml").resources), (0, 1), "it has moved");
            let status = world.offer("c.yaml", whole(&[(route("x"), json!({})), (route("x"), json!({}))])).await;
            assert_eq!(status.errors, ["routes/x: defined twice; each id can be used once"]);
            let status = world.offer("d.yaml", whole(&[(of_file("x"), json!({"uri": "/"}))])).await;
            assert!(status.errors[0].contains("cannot contain `@`"));
        });
    }

    #[test]
    fn a_resource_can_move_between_two_files_that_change_together() {
        run(|world| async move {
            let one = || vec![(route("a"), json!({"uri": "/"}))];
            world.offer("a.yaml", Content::Whole(one())).await;
            let update = |source: &str, list| Update {
                provider: "file".into(),
                source: source.into(),
                content: Content::Whole(list),
                places: Places::default(),
            };
            world.keeper.offer(vec![update("b.yaml", one()), update("a.yaml", vec![])]).await.unwrap();
            assert_eq!((world.status("a.yaml").resources, world.status("b.yaml").resources), (0, 1));
            assert!(world.keeper.sources().iter().all(|status| status.errors.is_empty()));
            assert!(world.value(&of_file("a")).is_some());
        });
    }

    #[test]
    fn a_file_is_not_refused_for_the_faults_of_another() {
        run(|world| async move {
            let update = |source: &str, list| Update {
                provider: "file".into(),
                source: source.into(),
                content: Content::Whole(list),
                places: Places::default(),
            };
            let bad = vec![(route("x"), json!({"uri": 1})), (route("same"), json!({"uri": "/a"}))];
            let good = vec![(route("same"), json!({"uri": "/b"}))];
            world.keeper.offer(vec![update("a.yaml", bad), update("b.yaml", good)]).await.unwrap();
            assert_eq!(world.status("a.yaml").errors.len(), 1);
            assert_eq!(world.status("b.yaml").errors, Vec::<String>::new());
            assert_eq!(world.value(&of_file("same")).unwrap()["uri"], "/b");
        });
    }

    #[test]
    fn a_file_cannot_take_away_what_is_in_use_elsewhere() {
        run(|world| async move {
            world.offer("a.yaml", whole(&[(upstream("u"), json!({}))])).await;
            world.offer("b.yaml", whole(&[(route("r"), json!({"uri": "/", "upstream_id": "u"}))])).await;
            world.remove("a.yaml").await;
            assert_eq!(world.status("a.yaml").errors, ["upstreams/u@file: route [r@file] is still using it"]);
            assert!(world.value(&upstream("u").of_provider("file")).is_some());
            world.remove("b.yaml").await;
            assert_eq!(world.keeper.sources().len(), 0);
            assert_eq!(world.keeper.state().all().count(), 0);
        });
    }
}

#[test]
fn faults_of_sources_are_told_with_their_place() {
    struct Lines;
    impl Locate for Lines {
        fn place(&self, key: &Key, path: &str) -> Option<String> {
            (*key == route("bad")).then(|| format!("a.yaml:7:3({path})"))
        }
    }
    run(|world| async move {
        let content = whole(&[(route("bad"), json!({"uri": 1}))]);
        let places = Places::new(Arc::new(Lines));
        let update = Update { provider: "file".into(), source: "a.yaml".into(), content, places };
        world.keeper.offer(vec![update]).await.unwrap();
        let errors = world.status("a.yaml").errors;
        assert!(errors.len() == 1 && errors[0].starts_with("a.yaml:7:3(uri): routes/bad@file: "), "{errors:?}");
    });
}

#[test]
fn who_refers_and_what_expires_follow_the_resources() {
    let mut state = State::default();
    let key = Key::new(ResourceKind::Route, "r");
    let stored = |value: Value, expires_at_ms| Some(Arc::new(Stored { value, created: 1, modified: 1, expires_at_ms }));
    let found = |state: &State| {
        let users = |id: &str| state.users(ResourceKind::Upstream, id).cloned().collect::<Vec<_>>();
        (users("u"), users("v"), state.expired(9).cloned().collect::<Vec<_>>())
    };
    state.set(&key, stored(json!({"upstream_id": "u"}), Some(9)));
    assert_eq!(found(&state), (vec![key.clone()], vec![], vec![key.clone()]));
    let before = state.clone();
    state.set(&key, stored(json!({"upstream_id": "v"}), Some(10)));
    assert_eq!(found(&state), (vec![], vec![key.clone()], vec![]));
    state.set(&key, None);
    assert_eq!(found(&state), (vec![], vec![], vec![]));
    assert_eq!(found(&before), (vec![key.clone()], vec![], vec![key]), "a copy keeps what it held");
}

#[tokio::test]
async fn writes_that_wait_together_are_judged_one_upon_the_other() {
    let world = World::new().await;
    let upstream = Key::new(ResourceKind::Upstream, "u");
    let put = |key: &Key, value: Value, expect| Intent::Put { key: key.clone(), value, expires_at_ms: None, expect };
    let wishes = [
        put(&upstream, json!({}), Expect::Absent),
        put(&route("r"), json!({"uri": "/", "upstream_id": "u"}), Expect::Any),
        put(&route("r"), json!({"uri": "/2"}), Expect::Modified(2)),
        put(&route("r"), json!({"uri": "/3"}), Expect::Modified(2)),
        put(&route("x"), json!({"uri": 7}), Expect::Any),
        Intent::delete(upstream.clone()),
    ];
    let all = wishes.map(|wish| world.keeper.apply(vec![wish], Options::by("ops")));
    let done = futures_util::future::join_all(all).await;
    let told: Vec<String> = done
        .iter()
        .map(|done| match done {
            Ok(applied) => applied.revision.to_string(),
            Err(Refused::Conflict { found, .. }) => format!("found {found:?}"),
            Err(Refused::Invalid(_)) => "invalid".into(),
            Err(other) => other.to_string(),
        })
        .collect();
    assert_eq!(told, ["1", "2", "3", "found Some(3)", "invalid", "4"]);
    let state = world.keeper.state();
    assert_eq!((state.revision, state.get(&route("r")).unwrap().value["uri"].as_str()), (4, Some("/2")));
    assert!(state.get(&upstream).is_none());
}

#[tokio::test]
async fn what_waits_behind_a_failed_write_is_judged_anew() {
    let world = World::new().await;
    // Somebody else writes the same store.
    let theirs = Write { key: route("b"), value: Some(json!({"uri": "/theirs"})), expires_at_ms: None };
    world.store.txn(vec![], vec![theirs], "them".into()).await.unwrap();
    let all =
        ["a", "b", "c"].map(|id| world.keeper.apply(vec![Intent::put(route(id), json!({"uri": "/ours"}))], Options::by("ops")));
    let done = futures_util::future::join_all(all).await;
    assert_eq!(done[0].as_ref().unwrap().revision, 2);
    assert_eq!(done[1].as_ref().unwrap().revision, 3, "it is planned anew upon what they wrote");
    assert_eq!(done[2].as_ref().unwrap().revision, 4);
    let state = world.keeper.state();
    let uri = |id: &str| state.get(&route(id)).unwrap().value["uri"].as_str().unwrap().to_owned();
    assert_eq!(["a", "b", "c"].map(uri), ["/ours", "/ours", "/ours"]);
}

#[tokio::test]
async fn two_keepers_of_one_store_see_each_others_writes_and_plan_anew() {
    let cluster = crate::store::Cluster::of(1);
    let clock: crate::store::Clock = Arc::new(|| 1_000);
    let mut keepers = Vec::new();
    for _ in 0..2 {
        let store = cluster.store("/state/", clock.clone()).await;
        keepers.push(Keeper::start(store, Arc::new(Toy), clock.clone()).await.unwrap());
    }
    let (_, mut heard) = keepers[1].subscribe();
    let put = |id: String, n: u64| Intent::put(Key::new(ResourceKind::Upstream, id), json!({ "n": n }));
    let first = keepers[0].apply(vec![put("a".into(), 1)], Options::by("one")).await.unwrap();
    let changes = heard.next().await;
    assert_eq!((changes.state.revision, changes.keys.map(|keys| keys.len())), (first.revision, Some(1)));
    // Both write the same resources at the same time; nobody is refused, and no revision is told twice.
    let write = async |keeper: &Keeper, author: &'static str| {
        let mut revisions = Vec::new();
        for n in 0..25 {
            let applied = keeper.apply(vec![put(format!("u{}", n % 5), n)], Options::by(author)).await.unwrap();
            assert_eq!(applied.outcomes[0].stored.modified, applied.revision);
            revisions.push(applied.revision);
        }
        revisions
    };
    let (mut one, two) = tokio::join!(write(&keepers[0], "one"), write(&keepers[1], "two"));
    one.extend(two);
    one.sort_unstable();
    assert_eq!(one, (2..=51).collect::<Vec<u64>>());
    for keeper in &keepers {
        let (mut state, mut changes) = keeper.subscribe();
        while state.revision < 51 {
            state = changes.next().await.state;
        }
        assert_eq!(state.count(ResourceKind::Upstream), 6);
    }
    let all = |keeper: &Keeper| keeper.state().all().map(|(key, stored)| (key, stored.clone())).collect::<Vec<_>>();
    assert_eq!(all(&keepers[0]), all(&keepers[1]));
}
