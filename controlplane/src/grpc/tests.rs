//! Stories of the gRPC Admin API, as the command line meets it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use futures_util::{FutureExt, StreamExt};
use heddle_node::config::Secret;
use heddle_node::drain;
use heddle_proto::heddle::admin::v1 as api;
use heddle_proto::heddle::admin::v1::admin_server::Admin;
use heddle_xds::catalog::{Catalog, ConfigFault, Descriptor, Place, PluginKind};
use heddle_xds::server::NodeRegistry;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tonic::{Code, Request, Status};

use super::*;
use crate::access::Keys;
use crate::mesh::{Directory, Mesh};
use crate::model::{Fault, Key, ResourceKind};
use crate::settings::{AdminKey, Role};
use crate::state::{Content, Keeper, State, Update, Validator};
use crate::store::Memory;
use crate::store::conformance::Hands;

/// One plugin with one secret.
struct Plugins([Descriptor; 1]);

impl Catalog for Plugins {
    fn descriptors(&self) -> &[Descriptor] {
        &self.0
    }

    fn schema(&self, _: &str, _: Place) -> Option<Value> {
        None
    }

    fn check(&self, _: &str, _: Place, _: &Value) -> Result<(), Vec<ConfigFault>> {
        Ok(())
    }
}

/// Routes need a `uri`; upstreams in use stay.
struct Toy;

impl Validator for Toy {
    fn check(&self, candidate: &State, changed: &[Key]) -> Vec<(Key, Fault)> {
        let fault = |key: &Key| match candidate.get(key) {
            Some(stored) if key.kind == ResourceKind::Route && !stored.value["uri"].is_string() => {
                Some(Fault::new("uri", "expected a string"))
            }
            None if candidate.list(ResourceKind::Route).any(|(_, it)| it.value["upstream_id"] == json!(&*key.id)) => {
                Some(Fault::whole("", "a route is still using it"))
            }
            _ => None,
        };
        changed.iter().filter_map(|key| Some((key.clone(), fault(key)?))).collect()
    }
}

/// Sends everything to the only route.
struct Oracle;

impl Explainer for Oracle {
    fn explain(&self, state: &State, _directory: &Directory, question: &Question) -> Result<Explanation, String> {
        if question.url.is_empty() {
            return Err("url: expected a path".into());
        }
        let (id, _) = state.list(ResourceKind::Route).next().ok_or("no route")?;
        let config = json!({"key": "secret", "n": question.max_reasons});
        let plugin = ExplainedPlugin {
            name: "key-auth".into(),
            origin: "route".into(),
            priority: i64::MAX,
            config,
            condition: Some(json!([["arg_a", "==", "1"]])),
            ..ExplainedPlugin::default()
        };
        let weaker = ExplainedPlugin {
            origin: "service".into(),
            hidden_by: Some("route".into()),
            disabled: true,
            after_authentication: true,
            condition: None,
            ..plugin.clone()
        };
        let why = format!("{} {} from {}", question.method, question.url, question.remote);
        let notes = question.consumer.iter().cloned().collect();
        let (plugins, silent) = (vec![plugin], vec![weaker]);
        Ok(Explanation { route: Some(id.clone()), why, plugins, silent, notes, ..Explanation::default() })
    }
}

struct World {
    service: AdminService,
    keeper: Keeper,
    hands: Hands,
    completion: drain::DrainCompletion,
}

impl World {
    async fn new() -> World {
        let hands = Hands::default();
        hands.set(1_000_500);
        let keeper = Keeper::start(Arc::new(Memory::new(hands.clock())), Arc::new(Toy), hands.clock()).await.unwrap();
        let key = |name: &str, key: &str, role| AdminKey { name: name.into(), key: Secret::new(key), role };
        let keys = Keys::new(&[key("ops", "k-ops", Role::Admin), key("eyes", "k-eyes", Role::Viewer)]);
        let descriptor = Descriptor {
            name: "key-auth",
            priority: 1,
            version: "0.1",
            kind: PluginKind::Auth,
            unique_consumer_field: None,
            encrypt_fields: &["key"],
            prefer_route: false,
        };
        let nodes = Arc::new(NodeRegistry::new());
        let (completion, watch) = drain::pair();
        let service = AdminService::new(
            keeper.clone(),
            keys,
            nodes,
            (Arc::new(Oracle), Arc::new(Mutex::new(Mesh::new("a.test", "240.240.0.0/16".parse().unwrap())))),
            Arc::new(Plugins([descriptor])),
            watch,
        );
        World { service, keeper, hands, completion }
    }

    async fn apply(&self, request: api::ApplyRequest) -> Result<api::ApplyResponse, Status> {
        Ok(self.service.apply(by("k-ops", request)).await?.into_inner())
    }

    /// Applies one value, and returns the revision.
    async fn put(&self, name: &str, value: Value) -> u64 {
        let request = api::ApplyRequest { changes: vec![put(name, value)], ..Default::default() };
        let answer = self.apply(request).await.unwrap();
        assert!(answer.applied, "{answer:?}");
        answer.revision
    }

    async fn get(&self, key: &str, name: &str) -> Result<Value, Status> {
        let answer = self.service.get(by(key, api::GetRequest { key: Some(named(name)) })).await?.into_inner();
        Ok(serde_json::from_slice(&answer.resource.unwrap().json).unwrap())
    }

    async fn watch(&self, after_revision: u64, collections: &[&str]) -> Result<Watching, Status> {
        let collections = collections.iter().map(|name| (*name).to_owned()).collect();
        Ok(self
            .service
            .watch(by("k-ops", api::WatchRequest { after_revision, collections, refusals: false }))
            .await?
            .into_inner())
    }
}

type Watching = <AdminService as Admin>::WatchStream;

fn by<T>(key: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("x-api-key", key.parse().unwrap());
    request
}

fn named(name: &str) -> api::Key {
    let (collection, id) = name.split_once('/').unwrap();
    api::Key { collection: collection.into(), id: id.into() }
}

fn put(name: &str, value: Value) -> api::Change {
    api::Change { key: Some(named(name)), json: Some(value.to_string().into_bytes()) }
}

fn remove(name: &str) -> api::Change {
    api::Change { key: Some(named(name)), json: None }
}

fn run<F: Future<Output = ()>>(story: impl FnOnce(World) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { story(World::new().await).await });
}

/// `routes/r1 Created`, with the fields that differ.
fn brief(outcomes: &[api::Outcome]) -> Vec<String> {
    let side = |value: &Option<String>| value.clone().unwrap_or("-".into());
    let fields = |it: &api::Outcome| {
        it.fields.iter().map(|f| format!(" {}:{}>{}", f.path, side(&f.before), side(&f.after))).collect::<String>()
    };
    let faults = |it: &api::Outcome| it.faults.iter().map(|f| format!(" !{}: {}", f.path, f.message)).collect::<String>();
    let name = |it: &api::Outcome| it.key.as_ref().map(|key| format!("{}/{}", key.collection, key.id)).unwrap();
    outcomes.iter().map(|it| format!("{} {:?}{}{}", name(it), it.effect(), fields(it), faults(it))).collect()
}

#[test]
fn nobody_comes_in_without_a_key_and_a_viewer_only_reads() {
    run(|world| async move {
        let list = || api::ListRequest::default();
        let refused = world.service.list(Request::new(list())).await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::Unauthenticated, "missing admin key: send it as `x-api-key`"));
        for wrong in ["", "k-op", "k-ops2"] {
            assert_eq!(world.service.list(by(wrong, list())).await.unwrap_err().code(), Code::Unauthenticated);
        }
        world.service.list(by("k-eyes", list())).await.unwrap();
        world.service.nodes(by("k-eyes", api::NodesRequest {})).await.unwrap();
        world.service.history(by("k-eyes", api::HistoryRequest::default())).await.unwrap();
        let refusals = [
            world.service.apply(by("k-eyes", api::ApplyRequest::default())).await.map(drop),
            world.service.delete(by("k-eyes", api::DeleteRequest::default())).await.map(drop),
            world.service.rollback(by("k-eyes", api::RollbackRequest::default())).await.map(drop),
        ];
        for refused in refusals {
            let refused = refused.unwrap_err();
            assert_eq!(refused.code(), Code::PermissionDenied);
            assert!(refused.message().contains("`eyes` has the role viewer"), "{refused}");
        }
    });
}

#[test]
fn apply_says_what_it_did_field_by_field() {
    run(|world| async move {
        let changes = || vec![put("routes/r1", json!({"uri": "/a", "hosts": ["x"]})), put("upstreams/u1", json!({"nodes": {}}))];
        let request = |changes| api::ApplyRequest { changes, author: "ann".into(), ..Default::default() };
        let answer = world.apply(request(changes())).await.unwrap();
        assert_eq!((answer.revision, answer.applied), (1, true));
        assert_eq!(brief(&answer.outcomes), ["routes/r1 Created", "upstreams/u1 Created"]);
        let again = world.apply(request(changes())).await.unwrap();
        assert_eq!((again.revision, again.applied), (1, true));
        assert_eq!(brief(&again.outcomes), ["routes/r1 Unchanged", "upstreams/u1 Unchanged"]);
        let other =
            vec![put("routes/r1", json!({"uri": "/b", "hosts": ["x", "y"], "plugins": {"a.b": {}}})), remove("upstreams/u1")];
        let answer = world.apply(request(other)).await.unwrap();
        assert_eq!(
            brief(&answer.outcomes),
            ["routes/r1 Changed uri:\"/a\">\"/b\" hosts[1]:->\"y\" plugins:->{\"a.b\":{}}", "upstreams/u1 Removed"]
        );
        let history = world.service.history(by("k-ops", api::HistoryRequest::default())).await.unwrap().into_inner();
        assert_eq!(history.revisions[0].author, "ops (ann)");
    });
}

#[test]
fn a_bad_document_is_refused_whole_and_each_fault_told() {
    run(|world| async move {
        let changes = vec![put("routes/good", json!({"uri": "/"})), put("routes/bad", json!({"uri": 7}))];
        let answer = world.apply(api::ApplyRequest { changes, ..Default::default() }).await.unwrap();
        assert_eq!((answer.revision, answer.applied), (0, false));
        assert_eq!(brief(&answer.outcomes), ["routes/good Created", "routes/bad Refused !uri: expected a string"]);
        assert_eq!(world.get("k-ops", "routes/good").await.unwrap_err().code(), Code::NotFound);
    });
}

#[test]
fn messages_that_make_no_sense_are_refused_with_what_was_expected() {
    run(|world| async move {
        let bad = |change: api::Change| api::ApplyRequest { changes: vec![change], ..Default::default() };
        let raw = |json: &[u8]| api::Change { key: Some(named("routes/r")), json: Some(json.to_vec()) };
        let cases = [
            (bad(put("rutes/r", json!({}))), "`rutes` is no collection; expected one of secrets, plugin_metadata"),
            (bad(put("routes/", json!({}))), "expected the id of one of the routes"),
            (bad(raw(b"{\"uri\":")), "routes/r: no valid JSON: EOF"),
            (bad(raw(&vec![b' '; 2_000_000])), "a resource has 1572864 at most"),
            (bad(api::Change::default()), "expected a collection and an id"),
            (
                api::ApplyRequest { changes: vec![remove("routes/r"), put("routes/r", json!({}))], ..Default::default() },
                "routes/r is named twice",
            ),
        ];
        for (request, expected) in cases {
            let refused = world.apply(request).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument);
            assert!(refused.message().contains(expected), "{refused}");
        }
        let token = api::ListRequest { page_token: "nonsense".into(), ..Default::default() };
        assert_eq!(world.service.list(by("k-ops", token)).await.unwrap_err().code(), Code::InvalidArgument);
    });
}

#[test]
fn a_dry_run_and_a_diff_change_nothing() {
    run(|world| async move {
        world.put("routes/r1", json!({"uri": "/"})).await;
        world.put("upstreams/u1", json!({})).await;
        let changes = || vec![put("routes/r2", json!({"uri": "/2"}))];
        let dry = api::ApplyRequest { changes: changes(), dry_run: true, prune: true, ..Default::default() };
        let answer = world.apply(dry).await.unwrap();
        let expected = ["routes/r2 Created", "upstreams/u1 Removed", "routes/r1 Removed"];
        assert_eq!((answer.revision, answer.applied, brief(&answer.outcomes)), (2, false, expected.map(String::from).to_vec()));
        let diff = api::DiffRequest { changes: changes(), prune: true };
        let answer = world.service.diff(by("k-eyes", diff)).await.unwrap().into_inner();
        assert_eq!((answer.revision, brief(&answer.outcomes)), (2, expected.map(String::from).to_vec()));
        let diff = api::DiffRequest { changes: vec![put("routes/r1", json!({"uri": 1}))], prune: false };
        let answer = world.service.diff(by("k-eyes", diff)).await.unwrap().into_inner();
        assert_eq!(brief(&answer.outcomes), ["routes/r1 Refused uri:\"/\">1 !uri: expected a string"]);
        assert_eq!(world.keeper.state().revision, 2);
    });
}

#[test]
fn pruning_removes_what_is_stored_and_leaves_what_providers_supply() {
    run(|world| async move {
        world.put("routes/old", json!({"uri": "/"})).await;
        let content = Content::Whole(vec![(Key::new(ResourceKind::Route, "p"), json!({"uri": "/p"}))]);
        world
            .keeper
            .offer(vec![Update { provider: "file".into(), source: "a".into(), content, places: Default::default() }])
            .await
            .unwrap();
        let request =
            api::ApplyRequest { changes: vec![put("routes/new", json!({"uri": "/"}))], prune: true, ..Default::default() };
        let answer = world.apply(request).await.unwrap();
        assert_eq!(brief(&answer.outcomes), ["routes/new Created", "routes/old Removed"]);
        assert!(world.get("k-ops", "routes/p@file").await.is_ok());
        let refused = world.apply(api::ApplyRequest { changes: vec![remove("routes/p@file")], ..Default::default() }).await;
        let refused = refused.unwrap_err();
        assert!(refused.code() == Code::FailedPrecondition && refused.message().contains("provider `file`"), "{refused}");
    });
}

#[test]
fn what_was_exported_can_be_applied_again() {
    run(|world| async move {
        world.put("routes/r1", json!({"uri": "/"})).await;
        let exported = world.get("k-ops", "routes/r1").await.unwrap();
        assert_eq!(exported["create_time"], json!(1000));
        world.hands.set(9_000_000);
        let changes = vec![put("routes/r1", exported.clone())];
        let answer = world.apply(api::ApplyRequest { changes, ..Default::default() }).await.unwrap();
        assert_eq!(brief(&answer.outcomes), ["routes/r1 Unchanged"]);
        let mut edited = exported;
        edited["uri"] = json!("/b");
        world.put("routes/r1", edited).await;
        let now = world.get("k-ops", "routes/r1").await.unwrap();
        assert_eq!((&now["create_time"], &now["update_time"]), (&json!(1000), &json!(9000)));
    });
}

#[test]
fn who_decided_on_an_older_revision_is_told() {
    run(|world| async move {
        world.put("routes/r1", json!({"uri": "/"})).await;
        world.put("routes/r2", json!({"uri": "/"})).await;
        let request = |if_revision| api::ApplyRequest { changes: vec![remove("routes/r1")], if_revision, ..Default::default() };
        let refused = world.apply(request(1)).await.unwrap_err();
        assert_eq!(refused.code(), Code::Aborted);
        assert!(refused.message().contains("at revision 2, expected 1"), "{refused}");
        assert_eq!(world.apply(request(2)).await.unwrap().revision, 3);
    });
}

#[test]
fn what_is_in_use_is_deleted_only_by_force() {
    run(|world| async move {
        world.put("upstreams/u", json!({})).await;
        world.put("routes/r", json!({"uri": "/", "upstream_id": "u"})).await;
        let delete = |name: &str, force| by("k-ops", api::DeleteRequest { key: Some(named(name)), force, author: String::new() });
        let refused = world.service.delete(delete("upstreams/u", false)).await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, "upstreams/u: a route is still using it"));
        let answer = world.service.delete(delete("upstreams/u", true)).await.unwrap().into_inner();
        assert_eq!(answer.revision, 3);
        assert_eq!(world.service.delete(delete("upstreams/u", true)).await.unwrap_err().code(), Code::NotFound);
    });
}

#[test]
fn lists_come_in_pages_without_gap_or_repeat() {
    run(|world| async move {
        for id in 0..7 {
            world.put(&format!("routes/r{id}"), json!({"uri": "/"})).await;
        }
        world.put("upstreams/u", json!({})).await;
        let mut seen = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = api::ListRequest { page_size: 3, page_token, ..Default::default() };
            let page = world.service.list(by("k-eyes", request)).await.unwrap().into_inner();
            assert_eq!((page.total, page.revision), (8, 8));
            seen.extend(page.resources.iter().map(|it| it.key.clone().unwrap().id));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        assert_eq!(seen, ["u", "r0", "r1", "r2", "r3", "r4", "r5", "r6"]);
        let request = api::ListRequest { collection: "routes".into(), page_size: 7, ..Default::default() };
        let page = world.service.list(by("k-ops", request)).await.unwrap().into_inner();
        assert_eq!((page.resources.len(), page.total, page.next_page_token.as_str()), (7, 7, ""));
    });
}

#[test]
fn a_page_is_no_larger_than_a_message_may_be_for_any_client() {
    run(|world| async move {
        for id in 0..5 {
            world.put(&format!("routes/r{id}"), json!({"uri": "/", "desc": "x".repeat(1_400_000)})).await;
        }
        let page = world.service.list(by("k-ops", api::ListRequest::default())).await.unwrap().into_inner();
        assert_eq!((page.resources.len(), page.next_page_token.as_str()), (2, "routes/r1"));
    });
}

#[test]
fn secrets_are_shown_to_admins_and_in_diffs_to_nobody() {
    run(|world| async move {
        let consumer = |key: &str| json!({"username": "jack", "plugins": {"key-auth": {"key": key}}});
        world.put("consumers/jack", consumer("old-secret")).await;
        let key = |value: Value| value["plugins"]["key-auth"]["key"].clone();
        assert_eq!(key(world.get("k-ops", "consumers/jack").await.unwrap()), "old-secret");
        assert_eq!(key(world.get("k-eyes", "consumers/jack").await.unwrap()), "******");
        let diff = || api::DiffRequest { changes: vec![put("consumers/jack", consumer("new-secret"))], prune: false };
        for who in ["k-ops", "k-eyes"] {
            let answer = world.service.diff(by(who, diff())).await.unwrap().into_inner();
            let expected = "consumers/jack Changed plugins.key-auth.key:\"******\">\"******\"";
            assert_eq!(brief(&answer.outcomes), [expected]);
        }
        let request = api::HistoryRequest { key: Some(named("consumers/jack")), ..Default::default() };
        let history = world.service.history(by("k-eyes", request)).await.unwrap().into_inner();
        let json: Value = serde_json::from_slice(history.revisions[0].changes[0].json.as_ref().unwrap()).unwrap();
        assert_eq!(key(json), "******");
    });
}

#[test]
fn the_private_key_of_a_certificate_does_not_come_back() {
    run(|world| async move {
        world.put("ssls/s", json!({"sni": "a.example", "cert": "c", "key": "private", "keys": ["private"]})).await;
        for who in ["k-ops", "k-eyes"] {
            let shown = world.get(who, "ssls/s").await.unwrap();
            assert_eq!((&shown["cert"], shown.get("key"), shown.get("keys")), (&json!("c"), None, None));
        }
        let mut past = world.watch(1, &[]).await.unwrap();
        world.put("ssls/s", json!({"sni": "b.example", "cert": "c", "key": "private"})).await;
        let heard = past.next().await.unwrap().unwrap();
        assert!(!String::from_utf8_lossy(&heard.changed[0].json).contains("private"));
    });
}

#[test]
fn history_tells_who_when_and_what() {
    run(|world| async move {
        world.put("routes/a", json!({"uri": "/1"})).await;
        world.hands.set(2_000_000);
        let changes = vec![put("routes/a", json!({"uri": "/2"})), put("routes/b", json!({"uri": "/"}))];
        world.apply(api::ApplyRequest { changes, ..Default::default() }).await.unwrap();
        world.apply(api::ApplyRequest { changes: vec![remove("routes/a")], ..Default::default() }).await.unwrap();
        let history = |request| async { world.service.history(by("k-ops", request)).await.unwrap().into_inner().revisions };
        let all = history(api::HistoryRequest::default()).await;
        let effects: Vec<Vec<api::Effect>> = all.iter().map(|it| it.changes.iter().map(|c| c.effect()).collect()).collect();
        use api::Effect::{Changed, Created, Removed};
        assert_eq!(effects, [vec![Removed], vec![Changed, Created], vec![Created]]);
        let first = &all[2];
        assert_eq!((first.revision, first.author.as_str()), (1, "ops"));
        assert_eq!(first.time.as_ref().map(|time| (time.seconds, time.nanos)), Some((1000, 500_000_000)));
        assert!(first.changes[0].json.is_none(), "values only when asked for by key");
        let page = history(api::HistoryRequest { limit: 1, before_revision: 3, key: None }).await;
        assert_eq!((page.len(), page[0].revision, page[0].changes.len()), (1, 2, 2));
        let of_b = history(api::HistoryRequest { key: Some(named("routes/b")), ..Default::default() }).await;
        assert_eq!((of_b.len(), of_b[0].changes.len(), of_b[0].changes[0].json.is_some()), (1, 1, true));
    });
}

#[test]
fn rollback_tells_what_it_changed() {
    run(|world| async move {
        world.put("routes/a", json!({"uri": "/1"})).await;
        world.put("routes/a", json!({"uri": "/2"})).await;
        world.put("routes/b", json!({"uri": "/"})).await;
        let back = |to_revision, key: Option<&str>, dry_run| {
            by("k-ops", api::RollbackRequest { to_revision, key: key.map(named), author: String::new(), dry_run })
        };
        let dry = world.service.rollback(back(1, None, true)).await.unwrap().into_inner();
        let expected = ["routes/b Removed", "routes/a Changed uri:\"/2\">\"/1\""];
        assert_eq!((dry.revision, brief(&dry.outcomes)), (3, expected.map(String::from).to_vec()));
        let one = world.service.rollback(back(1, Some("routes/a"), false)).await.unwrap().into_inner();
        assert_eq!((one.revision, brief(&one.outcomes)), (4, vec![expected[1].to_owned()]));
        let refused = world.service.rollback(back(99, None, false)).await.unwrap_err();
        assert_eq!(refused.code(), Code::OutOfRange);
    });
}

#[test]
fn watchers_hear_the_past_and_the_present_without_gap() {
    run(|world| async move {
        world.put("routes/a", json!({"uri": "/1"})).await;
        world.put("routes/a", json!({"uri": "/2"})).await;
        let mut late = world.watch(1, &[]).await.unwrap();
        let mut now = world.watch(0, &["upstreams"]).await.unwrap();
        let heard = late.next().await.unwrap().unwrap();
        assert_eq!((heard.revision, heard.author.as_str(), heard.changed.len()), (2, "ops", 1));
        assert!(late.next().now_or_never().is_none());
        world.put("upstreams/u", json!({})).await;
        world.apply(api::ApplyRequest { changes: vec![remove("routes/a")], ..Default::default() }).await.unwrap();
        let content = Content::Whole(vec![(Key::new(ResourceKind::Route, "p"), json!({"uri": "/p"}))]);
        world
            .keeper
            .offer(vec![Update { provider: "file".into(), source: "a".into(), content, places: Default::default() }])
            .await
            .unwrap();
        let mut told = Vec::new();
        for _ in 0..3 {
            let heard = late.next().await.unwrap().unwrap();
            let changed = heard.changed.iter().map(|it| it.key.clone().unwrap().id);
            let removed = heard.removed.iter().map(|key| format!("-{}", key.id));
            told.push(format!("{} {} {}", heard.revision, heard.author, changed.chain(removed).collect::<String>()));
        }
        assert_eq!(told, ["3 ops u", "4 ops -a", "4 provider:file p@file"]);
        let heard = now.next().await.unwrap().unwrap();
        assert_eq!((heard.revision, heard.changed.len()), (3, 1));
        assert!(now.next().now_or_never().is_none(), "other collections are not its concern");
    });
}

#[test]
fn a_watcher_of_a_forgotten_past_is_told_to_list_again() {
    run(|world| async move {
        for n in 0..5 {
            world.put("routes/a", json!({"uri": "/", "n": n})).await;
        }
        world.keeper.compact(1, 0).await.unwrap();
        let refused = world.watch(2, &[]).await.err().unwrap();
        assert_eq!(refused.code(), Code::OutOfRange);
        assert_eq!(world.watch(99, &[]).await.err().unwrap().code(), Code::OutOfRange);
    });
}

#[test]
fn questions_are_handed_on_and_answers_masked() {
    run(|world| async move {
        world.put("routes/a", json!({"uri": "/1"})).await;
        let ask = |url: &str, remote: &str, max_reasons| {
            let (url, remote_addr) = (url.to_owned(), remote.to_owned());
            let request = api::ExplainRequest { method: "GET".into(), url, remote_addr, max_reasons, ..Default::default() };
            by("k-eyes", request)
        };
        let answer = world.service.explain(ask("/x", "", 0)).await.unwrap().into_inner();
        assert_eq!((answer.route.as_deref(), answer.why.as_str(), answer.revision), (Some("a"), "GET /x from 127.0.0.1", 1));
        let plugin = &answer.plugins[0];
        assert_eq!((plugin.priority, plugin.config.as_slice()), (i32::MAX, br#"{"key":"******","n":20}"#.as_slice()));
        assert_eq!(plugin.condition.as_deref(), Some(br#"[["arg_a","==","1"]]"#.as_slice()));
        assert!(!plugin.disabled && !plugin.after_authentication && plugin.hidden_by.is_none() && answer.notes.is_empty());
        let silent = &answer.silent_plugins[0];
        assert_eq!((silent.origin.as_str(), silent.hidden_by.as_deref()), ("service", Some("route")));
        assert!(silent.disabled && silent.after_authentication && silent.condition.is_none());
        assert_eq!(silent.config, plugin.config);
        let mut named = ask("/x", "", 0);
        named.get_mut().consumer = "jack".into();
        assert_eq!(world.service.explain(named).await.unwrap().into_inner().notes, ["jack"]);
        let answer = world.service.explain(ask("/x", "::1", 1_000_000)).await.unwrap().into_inner();
        assert!(answer.plugins[0].config.ends_with(br#""n":1000}"#));
        for refused in [ask("/x", "nowhere", 0), ask("", "", 0)] {
            assert_eq!(world.service.explain(refused).await.unwrap_err().code(), Code::InvalidArgument);
        }
    });
}

/// The service on a real socket, beside a client of its own.
#[test]
fn over_the_wire_it_is_the_same() {
    use heddle_proto::heddle::admin::v1::admin_client::AdminClient;
    run(|World { service, keeper, completion, .. }| async move {
        // Its end would end the watch.
        let _completion = completion;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let server = heddle_xds::server::tuned().add_service(service.into_server()).serve_with_incoming(incoming);
        let story = async {
            let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
            let mut client = AdminClient::new(endpoint.connect().await.unwrap());
            let changes = (0..3_000).map(|n| put(&format!("routes/r{n}"), json!({"uri": "/", "desc": "x".repeat(2_000)})));
            let request = || api::ApplyRequest { changes: changes.clone().collect(), ..Default::default() };
            assert_eq!(client.apply(Request::new(request())).await.unwrap_err().code(), Code::Unauthenticated);
            let mut watching = client.watch(by("k-eyes", api::WatchRequest::default())).await.unwrap().into_inner();
            let answer = client.apply(by("k-ops", request())).await.unwrap().into_inner();
            assert_eq!((answer.revision, answer.outcomes.len()), (1, 3_000));
            let mut heard = 0;
            while heard < 3_000 {
                let part = watching.next().await.unwrap().unwrap();
                assert_eq!(part.revision, 1);
                heard += part.changed.len();
            }
            assert_eq!(keeper.state().count(ResourceKind::Route), 3_000);
        };
        tokio::select! {
            ended = server => panic!("the server ended: {ended:?}"),
            () = story => {}
        }
    });
}

#[tokio::test]
async fn a_watch_ends_when_the_control_plane_drains() {
    let world = World::new().await;
    let mut watching = world.watch(0, &[]).await.unwrap();
    world.completion.trigger().begin();
    assert!(watching.next().await.is_none());
}
