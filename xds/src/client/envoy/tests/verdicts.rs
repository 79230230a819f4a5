//! What becomes of what a consumer refuses: who answers for it, what stands meanwhile, and when it is tried again.

use super::*;

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
