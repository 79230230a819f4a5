//! A group that begins, as after a restart of the control plane: what its nodes have may differ from what is there, and the first of them tries that.

use super::*;

/// What a node has of a certificate, and since when.
type Has<'a> = &'a [(&'a str, &'a str)];

/// A node with a configuration comes, and asks when it may.
fn comes(world: &World, id: &str) -> Place {
    let (feed, scope): (Arc<dyn SnapshotFeed>, _) = (world.store.clone(), scope_of(id, "gateway"));
    world.rollouts.place((Types::Heddle, (&scope, true), true), &feed, WAIT, &world.drain).unwrap()
}

async fn asks(mut place: Place, id: &str, has: Has<'_>) -> Node {
    place.begin().await;
    let view = place.seat().view();
    let mut machine = DeltaMachine::new(scope_of(id, "gateway"), view.position());
    let initial = has.iter().map(|(name, version)| (Arc::from(*name), Arc::from(*version))).collect();
    machine.request(DeltaRequest { initial, ..DeltaRequest::new(Kind::Certificate) }, &*view, at(0)).unwrap();
    let has = has.iter().map(|(name, version)| (Arc::from(*name), (*version).to_owned())).collect();
    let mut node = Node { place, machine, view, has, unanswered: Vec::new() };
    node.hears();
    node
}

fn version_of(node: &Node, name: &str) -> String {
    node.has.get(name).cloned().unwrap_or_default()
}

/// The control plane has begun anew, with a certificate `c` that the canary refuses and one that is good. Both nodes have `c` as it was before.
async fn begun_anew() -> (World, Node, Node) {
    let world = World::new();
    world.store.apply(vec![certificate("c", "bad"), certificate("d", "1")]);
    let (first, mut second) = (comes(&world, "a"), comes(&world, "b"));
    let mut canary = asks(first, "a", &[("c", "before")]).await;
    assert!(second.begin().now_or_never().is_none(), "who has something to go on with waits for the canary");
    canary.answers(Some("Certificate c: snis: not this one"));
    let start = clock::now();
    let other = asks(second, "b", &[("c", "before")]).await;
    assert!(clock::now() - start < Duration::from_millis(200), "{:?}", clock::now() - start);
    (world, canary, other)
}

#[tokio::test(start_paused = true)]
async fn what_the_first_node_refuses_after_a_restart_is_given_to_no_other_one() {
    let (world, mut canary, mut other) = begun_anew().await;
    assert_eq!(world.held(), ["c by a: not this one"]);
    assert!(other.has_newest(&world, "d"), "what is good is");
    assert_eq!(version_of(&other, "c"), "before", "it keeps what it had");
    let mut late = world.node("late");
    assert!(late.has_newest(&world, "d") && !late.has.contains_key("c"), "who has nothing is not given it either");
    world.apply(vec![certificate("c", "good")]).await;
    settle(&mut [&mut canary, &mut other, &mut late]).await;
    for node in [&mut canary, &mut other, &mut late] {
        assert!(node.has_newest(&world, "c"));
    }
    assert!(world.held().is_empty());
}

#[tokio::test(start_paused = true)]
async fn of_what_one_version_after_the_other_is_refused_after_a_restart_everybody_keeps_what_it_had() {
    let (world, mut canary, mut other) = begun_anew().await;
    for content in ["worse", "still worse"] {
        world.apply(vec![certificate("c", content), certificate("d", content)]).await;
        assert!(canary.has_newest(&world, "c"), "it is tried");
        canary.answers(Some("Certificate c: snis: not this one"));
        settle(&mut [&mut canary, &mut other]).await;
        assert!(canary.has.contains_key("c"), "nothing takes its own from it");
        assert_eq!((version_of(&other, "c"), other.has_newest(&world, "d")), ("before".into(), true));
        assert_eq!(world.held(), ["c by a: not this one"]);
        assert!(!world.node("late").has.contains_key("c"));
    }
    world.apply(vec![certificate("c", "good")]).await;
    settle(&mut [&mut canary, &mut other]).await;
    assert!(canary.has_newest(&world, "c") && other.has_newest(&world, "c") && world.held().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_held_after_a_restart_goes_when_it_is_removed_or_somebody_says_to_go_on() {
    let (world, mut canary, mut other) = begun_anew().await;
    settle(&mut [&mut canary, &mut other]).await;
    world.apply(vec![gone(Kind::Certificate, "c")]).await;
    settle(&mut [&mut canary, &mut other]).await;
    assert_eq!((names(&canary), names(&other)), (vec!["d"], vec!["d"]));
    assert!(world.held().is_empty());
    let (world, mut canary, mut other) = begun_anew().await;
    assert_eq!(world.rollouts.resume("gateway/heddle"), Some(1));
    settle(&mut [&mut canary, &mut other]).await;
    assert!(other.has_newest(&world, "c") && world.held().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_group_that_begins_waits_neither_for_a_canary_that_says_nothing_nor_with_who_has_nothing() {
    let world = World::new();
    world.store.apply(vec![certificate("c", "1")]);
    let (silent, second) = (comes(&world, "a"), comes(&world, "b"));
    let _silent = asks(silent, "a", &[("c", "before")]).await;
    assert!(world.node("new").has.contains_key("c"), "it is given what is there at once");
    let start = clock::now();
    let mut second = asks(second, "b", &[("c", "before")]).await;
    assert_eq!(clock::now() - start, WAIT);
    assert!(second.has_newest(&world, "c"));
}

#[tokio::test(start_paused = true)]
async fn the_next_one_judges_when_the_first_node_of_a_group_leaves() {
    let world = World::new();
    world.store.apply(vec![certificate("c", "bad")]);
    let (first, second, mut third) = (comes(&world, "a"), comes(&world, "b"), comes(&world, "c"));
    drop(first);
    let mut second = asks(second, "b", &[("c", "before")]).await;
    assert!(third.begin().now_or_never().is_none());
    second.answers(Some("Certificate c: snis: not this one"));
    let third = asks(third, "c", &[("c", "before")]).await;
    assert_eq!((version_of(&third, "c"), world.held()), ("before".into(), vec!["c by b: not this one".to_owned()]));
}
