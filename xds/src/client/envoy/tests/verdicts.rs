//! What becomes of what a consumer refuses: who answers for it, what stands meanwhile, and when it is tried again.

use tokio::sync::{mpsc, watch};

use super::*;
use crate::client::{ClientConfig, ClientStatus, run};
use crate::link::Connector;
use crate::protocol::NodeInfo;

/// A route that keeps out before the one that lets everything in.
fn guarded(name: &str, cluster: &str) -> Value {
    let mut table = routes(name, cluster);
    let guard = json!({"match": {"prefix": "/admin"}, "direct_response": {"status": 403}});
    table["virtual_hosts"][0]["routes"].as_array_mut().unwrap().insert(0, guard);
    table
}

/// A client that knows that there are no clusters.
fn begun() -> Talk {
    let mut talk = Talk::new(Dialect::Delta);
    talk.hears(EnvoyKind::Cluster, &[]);
    talk
}

#[test]
fn nobody_is_woken_for_what_cannot_go_on_yet() {
    let now = heddle_node::clock::now();
    let mut door = listener("mine", None);
    door["filter_chains"][0]["filters"][0]["typed_config"]["rds"]["config_source"]["initial_fetch_timeout"] = json!("1s");
    let piece = decode(EnvoyKind::Listener, &door).unwrap();
    let whole = BTreeSet::from([EnvoyKind::Cluster, EnvoyKind::Listener]);
    let mut follower = Follower::new(Dialect::Delta, whole, &[piece], now).map_err(|_| ()).unwrap();
    for passed in [0, 2, 14] {
        follower.world().step(now + Duration::from_secs(passed));
        assert_eq!(follower.world().wake(), Some(now + Duration::from_secs(15)), "without clusters it does not open");
    }
    follower.world().step(now + Duration::from_secs(15));
    assert_eq!(follower.world().wake(), None);

    let mut talk = Talk::new(Dialect::Delta);
    let mut endless = eds_cluster("c");
    endless["eds_cluster_config"]["eds_config"]["initial_fetch_timeout"] = json!("0s");
    talk.hears(EnvoyKind::Cluster, &[endless]);
    talk.hears(EnvoyKind::Listener, &[listener("l", None)]);
    let late = talk.now + Duration::from_secs(16);
    talk.follower.world().step(late);
    assert!(talk.follower.world().wake().is_none_or(|wake| wake > late), "its endpoints are waited for without end");
}

#[test]
fn a_refused_listener_that_goes_while_nobody_listens_is_told_to_be_gone() {
    let mut talk = begun();
    let mut bad = door("l", 1);
    bad["transparent"] = json!(true);
    assert!(talk.hears(EnvoyKind::Listener, &[bad]).verdict.error.is_some());
    assert_eq!(talk.follower.unusable().len(), 1, "what is on disk of it stays");
    talk.follower.lost();
    let hello = talk.follower.hello();
    let listeners = hello.iter().find(|says| says.kind == Some(EnvoyKind::Listener)).unwrap();
    assert_eq!(listeners.initial.get("l").map(|version| &**version), Some(""), "a version that nobody has is not current");
    talk.judged(EnvoyKind::Listener, &[], &["l"], &[]);
    assert!(talk.follower.unusable().is_empty());
}

#[tokio::test]
async fn nothing_is_used_of_what_a_consumer_refuses_a_part_of_until_it_knows_what_instead() {
    let at = |name: &str, port: u16| {
        let mut door = listener(name, Some(guarded("t", "c")));
        door["address"]["socket_address"]["port_value"] = port.into();
        decode(EnvoyKind::Listener, &door).unwrap()
    };
    let statics = Arc::new([at("a", 1), at("b", 2)]);
    let source = EnvoySource { statics, whole: BTreeSet::new(), who: Who::default() };
    let config = ClientConfig::new(NodeInfo::default(), Connector::tcp("127.0.0.1:1").unwrap());
    let (updates, mut batches) = mpsc::channel(1);
    let (status, _watched) = watch::channel(ClientStatus::default());
    tokio::spawn(run(ClientConfig { envoy: Some(source), ..config }, updates, status, fastrand::Rng::with_seed(1)));
    let gone = |updates: &[TypedUpdate]| -> Vec<String> {
        updates
            .iter()
            .filter(|update| update.kind == Kind::Listener)
            .flat_map(|update| &update.removed)
            .map(ToString::to_string)
            .collect()
    };
    let first = batches.recv().await.unwrap();
    assert!(first.whole && gone(&first.views[0]).is_empty());
    first.reject(vec![refused_route("a/all:open0/0")]);
    let second = batches.recv().await.unwrap();
    assert_eq!((second.whole, gone(&second.views[0])), (true, vec!["a".to_owned()]));
    second.reject(vec![refused_route("b/all:open0/0")]);
    let third = batches.recv().await.unwrap();
    assert_eq!((third.whole, gone(&third.views[0])), (true, vec!["b".to_owned()]), "what is undone is judged as well");
    third.reject(vec![InvalidResource { kind: Kind::Certificate, ..refused_route("c") }]);
    let last = batches.recv().await.unwrap();
    assert!(!last.whole && last.views.is_empty(), "what keeps nobody out is left out alone");
    last.accept();
}
