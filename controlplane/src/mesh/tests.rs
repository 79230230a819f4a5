//! What becomes of instances: stories, and any sequence of what can happen.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};

use heddle_xds::model::{Instance, MeshProtocol};
use heddle_xds::protocol::NodeInfo;
use heddle_xds::snapshot::NodeScope;
use proptest::prelude::*;

use super::registry::{DOUBT, GRACE, MEMORY};
use super::vips::QUARANTINE;
use super::*;

fn node(id: &str, service: &str, draining: bool) -> NodeInfo {
    let scope = NodeScope { id: id.into(), namespace: "shop".into(), service: service.into(), ..NodeScope::default() };
    let instance = Instance {
        address: "10.0.0.1".into(),
        port: 15006,
        protocol: MeshProtocol::Http,
        ports: Vec::new(),
        version: "v1".into(),
        labels: vec![("a".into(), "b".into())],
        draining,
        process: 0,
        application: 0,
        is_seen: false,
    };
    NodeInfo { scope, version: "".into(), instance: Some(instance), ..NodeInfo::default() }
}

fn mesh() -> Mesh {
    Mesh::new("example.org", "240.240.0.0/16".parse().unwrap())
}

fn web() -> ServiceId {
    ServiceId::parse("web", "shop").unwrap()
}

impl Mesh {
    fn join(&mut self, stream: u64, node: NodeInfo, now: u64) -> BTreeSet<ServiceId> {
        self.event(&InstanceEvent::Joined { stream, node }, now);
        self.settle(now)
    }

    fn leave(&mut self, stream: u64, now: u64) -> BTreeSet<ServiceId> {
        self.event(&InstanceEvent::Left { stream, awaited: false }, now);
        self.settle(now)
    }

    fn endpoints(&self, service: &ServiceId) -> usize {
        self.directory.get(service).and_then(|known| known.found.as_ref()).map_or(0, |found| found.endpoints.len())
    }
}

#[test]
fn an_instance_comes_at_once_drains_at_once_and_is_lost_after_its_grace() {
    let mut mesh = mesh();
    assert_eq!(mesh.join(1, node("a", "web", false), 0), BTreeSet::from([web()]));
    assert_eq!(mesh.endpoints(&web()), 1);
    mesh.join(2, node("b", "web", false), 0);
    mesh.join(2, node("b", "web", true), 10);
    assert_eq!(mesh.endpoints(&web()), 1, "who drains is no endpoint");
    assert!(mesh.leave(2, 20).is_empty(), "and its going is no news");
    assert!(mesh.leave(1, 100).is_empty());
    assert_eq!((mesh.endpoints(&web()), mesh.next()), (1, Some(100 + GRACE)));
    assert!(mesh.settle(99 + GRACE).is_empty());
    assert_eq!(mesh.settle(100 + GRACE), BTreeSet::from([web()]));
    assert!(mesh.directory().get(&web()).is_none());
    let counts = mesh.registry().counts();
    assert_eq!((counts.joins, counts.leaves, counts.returns), (2, 2, 0));
}

#[test]
fn coming_back_within_the_grace_changes_nothing_and_the_newest_stream_counts() {
    let mut mesh = mesh();
    mesh.join(1, node("a", "web", false), 0);
    mesh.leave(1, 100);
    assert!(mesh.join(2, node("a", "web", false), 500).is_empty());
    assert_eq!(mesh.next(), None);
    mesh.join(3, node("a", "web", false), 600);
    assert!(mesh.leave(2, 700).is_empty() && mesh.next().is_none(), "an old stream that ends late takes nothing along");
    mesh.join(1, node("a", "api", false), 800);
    assert_eq!(mesh.endpoints(&web()), 1, "nor does one that is heard of late");
    assert_eq!(mesh.registry().counts().returns, 1);
}

/// What a process says that began at this time.
fn process(began: u64, draining: bool) -> NodeInfo {
    let mut node = node("a", "web", draining);
    node.instance.as_mut().unwrap().process = began;
    node
}

#[test]
fn a_process_that_goes_takes_nothing_away_from_the_one_that_was_started_in_its_place() {
    let mut mesh = mesh();
    mesh.join(1, process(100, false), 100);
    mesh.join(2, process(200, true), 200);
    assert_eq!(mesh.endpoints(&web()), 1, "one that is not ready yet is no reason to go");
    mesh.join(2, process(200, false), 210);
    mesh.join(1, process(100, true), 220);
    mesh.leave(1, 230);
    mesh.settle(230 + 2 * DOUBT);
    assert_eq!(mesh.endpoints(&web()), 1);
    // By streams of its own, and while the next one has lost its own for a moment.
    mesh.join(3, process(300, false), 300_000);
    mesh.leave(3, 300_010);
    mesh.join(4, process(200, true), 300_020);
    assert_eq!(mesh.endpoints(&web()), 1);
    mesh.join(5, process(300, false), 300_030);
    mesh.leave(4, 300_040);
    mesh.leave(2, 300_050);
    mesh.settle(300_050 + 2 * DOUBT);
    assert_eq!(mesh.endpoints(&web()), 1);
    mesh.join(5, process(300, true), 400_000);
    assert_eq!(mesh.endpoints(&web()), 0, "its own drain counts");
}

#[test]
fn an_agent_of_an_earlier_release_makes_place_for_the_one_that_is_started_under_its_name() {
    let mut mesh = mesh();
    mesh.join(1, process(0, false), 100);
    mesh.join(2, process(200, true), 200);
    mesh.join(2, process(200, false), 210);
    mesh.join(3, process(0, true), 220);
    mesh.leave(1, 230);
    mesh.leave(3, 240);
    mesh.settle(240 + 2 * DOUBT);
    assert_eq!(mesh.endpoints(&web()), 1);
}

#[test]
fn a_process_that_stood_back_is_there_when_its_successor_fails() {
    let mut mesh = mesh();
    mesh.join(1, process(100, false), 100);
    mesh.join(2, process(200, false), 200);
    mesh.leave(2, 300);
    mesh.settle(300 + 2 * DOUBT);
    assert_eq!(mesh.endpoints(&web()), 1);
    mesh.join(1, process(100, true), 100_000);
    assert_eq!(mesh.endpoints(&web()), 0);
}

#[test]
fn who_was_seen_at_an_address_is_told_there_until_it_has_gone_and_what_others_say_changes_nothing() {
    let at = |id: &str, service: &str, (address, is_seen): (&str, bool), draining: bool| {
        let mut node = node(id, service, draining);
        let instance = node.instance.as_mut().unwrap();
        (instance.address, instance.is_seen, instance.application) = (address.into(), is_seen, 8080);
        instance.ports = vec![(9090, MeshProtocol::Grpc), (8080, MeshProtocol::Tcp)];
        node
    };
    let (api, here) = (ServiceId::parse("api", "shop").unwrap(), ("10.0.0.7", true));
    let places = |mesh: &Mesh, service: &ServiceId, place: &str| -> Vec<(String, u8, MeshProtocol, Option<u16>)> {
        let found = mesh.directory.get(service).and_then(|known| known.found.clone()).unwrap_or_default();
        let claims = found.places.get(&place.parse().unwrap()).cloned().unwrap_or_default();
        claims.iter().map(|claim| (claim.service.to_string(), claim.rank, claim.protocol, claim.further)).collect()
    };
    let web_at = |rank| ("shop/web".to_owned(), rank, MeshProtocol::Http, None);
    let mut mesh = mesh();
    mesh.join(1, at("a", "web", here, true), 0);
    assert_eq!(places(&mesh, &web(), "10.0.0.7:8080"), [web_at(1)], "also before its door is open");
    mesh.join(1, at("a", "web", here, false), 10);
    assert_eq!(places(&mesh, &web(), "10.0.0.7:8080"), [web_at(0)]);
    assert_eq!(places(&mesh, &web(), "10.0.0.7:9090"), [("shop/web".to_owned(), 0, MeshProtocol::Grpc, Some(9090))]);
    mesh.join(2, at("b", "api", ("10.0.0.7", false), false), 20);
    assert_eq!(places(&mesh, &web(), "10.0.0.7:8080"), [web_at(0)], "it only says that it is there");
    assert_eq!(places(&mesh, &api, "10.0.0.7:8080"), []);
    mesh.leave(1, 30);
    let news = mesh.join(3, at("c", "api", here, false), 40);
    assert!(news.contains(&web()) && news.contains(&api), "{news:?}");
    let both = [web_at(2), ("shop/api".to_owned(), 0, MeshProtocol::Http, None)];
    assert_eq!((places(&mesh, &web(), "10.0.0.7:8080"), places(&mesh, &api, "10.0.0.7:8080")), (both.to_vec(), both.to_vec()));
    mesh.settle(40 + GRACE);
    assert_eq!(places(&mesh, &api, "10.0.0.7:8080").len(), 1, "who is lost is there no more");
    mesh.join(4, at("d", "web", ("127.0.0.1", true), false), 10_000);
    assert_eq!(places(&mesh, &web(), "127.0.0.1:8080"), [], "every host has this address");
}

#[test]
fn an_instance_is_not_pushed_aside_by_another_service_that_takes_its_id() {
    let mut mesh = mesh();
    mesh.join(1, node("a", "web", false), 0);
    mesh.join(2, node("a", "api", false), 10);
    assert_eq!(mesh.endpoints(&web()), 1);
    assert_eq!(mesh.endpoints(&ServiceId::parse("api", "shop").unwrap()), 0);
    mesh.leave(1, 20);
    mesh.join(3, node("a", "api", false), 30);
    assert_eq!(mesh.endpoints(&web()), 0, "once its stream is gone, the id is free");
}

#[test]
fn many_losses_at_once_are_taken_for_our_trouble() {
    let mut mesh = mesh();
    (0..5).for_each(|n| drop(mesh.join(n, node(&format!("n{n}"), "web", false), 0)));
    (0..3).for_each(|n| drop(mesh.leave(n, 1000 + n)));
    mesh.settle(1002 + GRACE);
    assert_eq!(mesh.endpoints(&web()), 5);
    assert!(mesh.registry().all().any(|held| held.standing == Standing::Doubted));
    mesh.join(10, node("n0", "web", false), 10_000);
    mesh.settle(999 + DOUBT);
    assert_eq!(mesh.endpoints(&web()), 5);
    mesh.settle(1002 + DOUBT);
    assert_eq!(mesh.endpoints(&web()), 3, "who does not come back is gone in the end");
}

#[test]
fn a_restart_forgets_nothing_for_a_while() {
    let mut mesh = mesh();
    mesh.join(1, node("a", "web", false), 0);
    mesh.join(2, node("b", "web", false), 0);
    let vip = mesh.directory().get(&web()).unwrap().vip.unwrap();
    let mut kept: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let keep = |kept: &mut BTreeMap<String, Vec<u8>>, writes| {
        for write in writes {
            match write {
                RecordWrite::Set(key, body) => drop(kept.insert(key, body)),
                RecordWrite::Remove(key) => assert!(kept.remove(&key).is_some()),
                RecordWrite::Withdraw(key, body) => assert_eq!(kept.remove(&key), Some(body)),
                RecordWrite::Raise(..) | RecordWrite::Require(..) => panic!("nothing is counted here"),
            }
        }
    };
    keep(&mut kept, mesh.writes());
    assert_eq!((kept.len(), mesh.writes().len()), (3, 0));
    let records: Vec<(String, Vec<u8>)> = kept.clone().into_iter().chain([("other".into(), vec![1])]).collect();
    let mut again = Mesh::new("example.org", "240.240.0.0/16".parse().unwrap());
    again.restore(&records, 1_000_000);
    again.settle(1_000_000);
    assert_eq!((again.endpoints(&web()), again.directory().get(&web()).unwrap().vip), (2, Some(vip)));
    assert!(again.join(1, node("b", "web", false), 1_001_000).is_empty());
    again.settle(1_000_000 + MEMORY);
    assert_eq!(again.endpoints(&web()), 1);
    keep(&mut kept, again.writes());
    assert_eq!(kept.keys().filter(|key| key.contains("instances")).collect::<Vec<_>>(), ["mesh/instances/shop/web/b"]);
}

#[test]
fn who_cannot_be_an_endpoint_is_refused() {
    let mut mesh = mesh();
    mesh.join(1, node("a", "", false), 0);
    mesh.join(2, node("b", "Web", false), 0);
    let mut lost = node("c", "web", false);
    lost.instance.as_mut().unwrap().address = "web.example".into();
    mesh.join(3, lost, 0);
    assert_eq!((mesh.registry().counts().refusals, mesh.registry().all().count()), (3, 0));
}

#[test]
fn instances_that_disagree_are_told_apart_by_their_bytes() {
    let mut mesh = mesh();
    let speaks = |id: &str, protocol| {
        let mut node = node(id, "web", false);
        node.instance.as_mut().unwrap().protocol = protocol;
        node
    };
    let protocol = |mesh: &Mesh| mesh.directory().get(&web()).unwrap().found.clone().unwrap().protocol;
    mesh.join(1, speaks("a", MeshProtocol::Auto), 0);
    mesh.join(2, speaks("b", MeshProtocol::Grpc), 0);
    assert_eq!((protocol(&mesh), mesh.registry().fault(&web())), (MeshProtocol::Grpc, None));
    mesh.join(3, speaks("c", MeshProtocol::Tcp), 0);
    assert_eq!(protocol(&mesh), MeshProtocol::Auto);
    assert!(mesh.shown(0)["services"][0]["fault"].as_str().unwrap().contains("grpc, tcp"));
}

#[test]
fn two_services_at_one_address_are_told_of_each_other() {
    let mut mesh = mesh();
    let at = |id: &str, service: &str, port| {
        let mut node = node(id, service, false);
        let instance = node.instance.as_mut().unwrap();
        (instance.address, instance.port) = ("192.0.2.7".into(), port);
        node
    };
    let fault = |mesh: &Mesh, nth: usize| mesh.shown(0)["services"][nth]["fault"].as_str().map(str::to_owned);
    mesh.join(1, at("a", "web", 15006), 0);
    mesh.join(2, at("b", "api", 15006), 0);
    for (nth, other) in ["shop/web", "shop/api"].iter().enumerate() {
        let told = fault(&mesh, nth).unwrap();
        assert!(told.contains(&format!("that of {other} say to be at 192.0.2.7 port 15006")), "{told}");
    }
    mesh.join(3, at("b", "api", 15007), 0);
    assert_eq!((fault(&mesh, 0), fault(&mesh, 1)), (None, None));
    mesh.join(4, at("c", "web", 15006), 0);
    assert_eq!(fault(&mesh, 1), None, "a sidecar may be replaced by another one of its service at the same address");
}

#[test]
fn addresses_are_unique_stay_and_rest_before_others_get_them() {
    let mut vips = Vips::new("240.240.0.0/29".parse().unwrap());
    let names: Vec<Arc<str>> = (0..7).map(|n| format!("shop/s{n}").into()).collect();
    let given: BTreeSet<_> = names[..6].iter().map(|name| vips.hold(name, 0).unwrap()).collect();
    assert_eq!((given.len(), vips.hold(&names[6], 0)), (6, None));
    let first = vips.hold(&names[0], 0);
    vips.release(&names[0], 10);
    assert_eq!(vips.hold(&names[6], 9 + QUARANTINE), None);
    assert_eq!(vips.hold(&names[0], 9 + QUARANTINE), first, "who comes back gets its own");
    vips.release(&names[0], 10);
    assert_eq!(vips.hold(&names[6], 10 + QUARANTINE), first);
}

#[derive(Debug, Clone)]
enum Step {
    Join(u8, bool),
    Leave(u8),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..6u8, prop::bool::weighted(0.2)).prop_map(|(node, draining)| Step::Join(node, draining)),
        3 => (0..6u8).prop_map(Step::Leave),
        2 => (0..3_000u64).prop_map(Step::Wait),
    ]
}

proptest! {
    /// In the end exactly those are endpoints whose newest stream is open and who do not drain; before, none of them is missing.
    #[test]
    fn any_sequence_ends_in_the_right_endpoints(steps in prop::collection::vec(step(), 1..60)) {
        let mut mesh = mesh();
        let mut open: BTreeMap<u8, (u64, bool)> = BTreeMap::new();
        let (mut now, mut streams) = (1_000, 0);
        for step in steps {
            match step {
                Step::Join(id, draining) => {
                    streams += 1;
                    open.insert(id, (streams, draining));
                    mesh.join(streams, node(&format!("n{id}"), "web", draining), now);
                }
                Step::Leave(id) => {
                    if let Some((stream, _)) = open.remove(&id) {
                        mesh.leave(stream, now);
                    }
                }
                Step::Wait(time) => {
                    now += time;
                    mesh.settle(now);
                }
            }
            prop_assert!(mesh.endpoints(&web()) >= open.values().filter(|(_, draining)| !draining).count());
            prop_assert!(mesh.next().is_none_or(|next| next > now && next <= now + DOUBT));
        }
        mesh.settle(now + DOUBT);
        mesh.settle(now + 2 * DOUBT);
        prop_assert_eq!(mesh.endpoints(&web()), open.values().filter(|(_, draining)| !draining).count());
        prop_assert_eq!(mesh.next(), None);
    }
}

/// A process of a node says this, or loses its stream.
#[derive(Debug, Clone)]
enum Word {
    Takes(u8, u8),
    Drains(u8, u8),
    Opens(u8, u8, bool),
    Lost(u8, u8),
    Wait(u64),
}

fn word() -> impl Strategy<Value = Word> {
    let who = || (0..3u8, 1..4u8);
    prop_oneof![
        3 => who().prop_map(|(node, process)| Word::Takes(node, process)),
        2 => who().prop_map(|(node, process)| Word::Drains(node, process)),
        4 => (who(), any::<bool>()).prop_map(|((node, process), draining)| Word::Opens(node, process, draining)),
        3 => who().prop_map(|(node, process)| Word::Lost(node, process)),
        2 => (0..3_000u64).prop_map(Word::Wait),
    ]
}

proptest! {
    /// However processes of one node come, drain and go: as long as one of them is connected and takes requests it is an endpoint, at no time none, and in the
    /// end of all that do the one that began last.
    #[test]
    fn of_several_processes_of_a_node_the_one_that_began_last_and_takes_requests_counts(words in prop::collection::vec(word(), 1..60)) {
        let mut mesh = mesh();
        let mut open: BTreeMap<(u8, u8), (u64, bool)> = BTreeMap::new();
        let (mut now, mut streams) = (1_000, 0);
        let said = |id: u8, began: u8, draining: bool| {
            let mut node = node(&format!("n{id}"), "web", draining);
            let instance = node.instance.as_mut().unwrap();
            (instance.process, instance.port) = (began.into(), 15_000 + u16::from(began));
            node
        };
        for word in words {
            match word {
                Word::Takes(id, began) | Word::Drains(id, began) => {
                    let draining = matches!(word, Word::Drains(..));
                    if let Some((stream, drains)) = open.get_mut(&(id, began)) {
                        *drains = draining;
                        mesh.join(*stream, said(id, began, draining), now);
                    }
                }
                Word::Opens(id, began, draining) => {
                    streams += 1;
                    let before = open.insert((id, began), (streams, draining));
                    mesh.join(streams, said(id, began, draining), now);
                    if let Some((stream, _)) = before {
                        mesh.leave(stream, now);
                    }
                }
                Word::Lost(id, began) => {
                    if let Some((stream, _)) = open.remove(&(id, began)) {
                        mesh.leave(stream, now);
                    }
                }
                Word::Wait(time) => {
                    now += time;
                    mesh.settle(now);
                }
            }
            let there: BTreeSet<u8> = open.iter().filter(|(_, (_, draining))| !draining).map(|((id, _), _)| *id).collect();
            let held: BTreeSet<String> = mesh.registry().all().filter(|held| held.standing != Standing::Draining).map(|held| held.node.to_string()).collect();
            prop_assert!(there.iter().all(|id| held.contains(&format!("n{id}"))), "{there:?} {held:?}");
        }
        mesh.settle(now + DOUBT);
        mesh.settle(now + 2 * DOUBT);
        let mut newest: BTreeMap<u8, u16> = BTreeMap::new();
        for ((id, began), _) in open.iter().filter(|(_, (_, draining))| !draining) {
            newest.insert(*id, 15_000 + u16::from(*began));
        }
        let takes = mesh.registry().all().filter(|held| held.standing != Standing::Draining);
        let found: BTreeMap<u8, u16> = takes.map(|held| (held.node[1..].parse().unwrap(), held.instance.port)).collect();
        prop_assert_eq!(found, newest);
    }
}

/// Control planes beside one store; what one writes the others hear of.
struct Others(Vec<Mesh>, BTreeMap<String, Vec<u8>>);

/// Carries out what a control plane writes; gives what everybody hears of.
fn carry_out(kept: &mut BTreeMap<String, Vec<u8>>, write: RecordWrite) -> Option<(String, Option<Vec<u8>>)> {
    match write {
        RecordWrite::Set(key, body) => {
            kept.insert(key.clone(), body.clone());
            Some((key, Some(body)))
        }
        RecordWrite::Remove(key) => kept.remove(&key).map(|_| (key, None)),
        RecordWrite::Withdraw(key, body) if kept.get(&key) == Some(&body) => kept.remove(&key).map(|_| (key, None)),
        RecordWrite::Withdraw(..) => None,
        other => panic!("{other:?}"),
    }
}

impl Others {
    fn new() -> Others {
        let mesh = |name: &str| Mesh::of("example.org", "240.240.0.0/16".parse().unwrap(), name.into());
        Others(vec![mesh("a"), mesh("b"), mesh("c")], BTreeMap::new())
    }

    /// Whoever has something to write writes it, everybody hears of it, until there is nothing to write. Gives how much that was.
    fn settle(&mut self, now: u64) -> usize {
        let mut count = 0;
        for round in 0.. {
            assert!(round < 20, "control planes write against each other");
            self.0.iter_mut().for_each(|mesh| drop(mesh.settle(now)));
            let writes: Vec<RecordWrite> = self.0.iter_mut().flat_map(Mesh::writes).collect();
            if writes.is_empty() {
                break;
            }
            count += writes.len();
            let news: Vec<_> = writes.into_iter().filter_map(|write| carry_out(&mut self.1, write)).collect();
            for mesh in &mut self.0 {
                news.iter().for_each(|(key, body)| mesh.heard(key, body.as_deref(), now));
            }
        }
        count
    }

    /// One of them wants to write and cannot; when it was `done` all the same, only the answer was lost, and everybody hears of it.
    fn fail(&mut self, at: usize, done: bool, now: u64) {
        self.0[at].settle(now);
        for write in self.0[at].writes() {
            let news = if done { carry_out(&mut self.1, write) } else { None };
            if let Some((key, body)) = news {
                self.0.iter_mut().for_each(|mesh| mesh.heard(&key, body.as_deref(), now));
            }
        }
        self.0[at].unwritten();
    }

    fn endpoints(&self) -> Vec<usize> {
        self.0.iter().map(|mesh| mesh.endpoints(&web())).collect()
    }

    fn vips(&self) -> BTreeSet<Option<std::net::IpAddr>> {
        self.0.iter().map(|mesh| mesh.directory().get(&web()).and_then(|known| known.vip)).collect()
    }
}

#[test]
fn what_is_connected_to_one_control_plane_is_known_to_all() {
    let mut all = Others::new();
    all.0[0].join(1, node("n1", "web", false), 0);
    all.0[1].join(1, node("n2", "web", false), 0);
    all.settle(0);
    assert_eq!(all.endpoints(), [2, 2, 2]);
    assert!(all.vips().len() == 1 && !all.vips().contains(&None), "its name means the same everywhere: {:?}", all.vips());
    // It moves: the new control plane speaks before the old one notices.
    all.0[1].join(2, node("n1", "web", false), 100);
    all.settle(100);
    all.0[0].leave(1, 150);
    all.settle(150 + GRACE);
    assert_eq!(all.endpoints(), [2, 2, 2]);
    // It moves, and the old one notices first.
    all.0[1].leave(2, 5_000);
    all.settle(5_000);
    all.settle(5_000 + GRACE);
    assert_eq!(all.endpoints(), [1, 1, 1]);
    all.0[2].join(1, node("n1", "web", false), 7_000);
    all.settle(7_000);
    assert_eq!(all.endpoints(), [2, 2, 2]);
    all.0[2].join(1, node("n1", "web", true), 8_000);
    all.settle(8_000);
    assert_eq!(all.endpoints(), [1, 1, 1], "who drains is no endpoint anywhere");
}

#[test]
fn instances_of_a_control_plane_that_is_gone_have_time_to_connect_elsewhere() {
    let mut all = Others::new();
    all.0[0].join(1, node("n1", "web", false), 0);
    all.0[0].join(2, node("n2", "web", false), 0);
    all.settle(0);
    let dead = all.0.remove(0);
    let there = BTreeSet::from(["b".to_owned(), "c".to_owned()]);
    all.0.iter_mut().for_each(|mesh| mesh.present(&there, 1_000));
    all.0[0].join(1, node("n1", "web", false), 3_000);
    all.settle(3_000);
    assert_eq!(all.endpoints(), [2, 2]);
    all.settle(1_000 + MEMORY);
    assert_eq!(all.endpoints(), [1, 1], "who did not come is given up");
    // It was only cut off: what it has is written again when it sees the store.
    all.0.push(dead);
    let records: Vec<(String, Vec<u8>)> = Vec::new();
    all.0[2].reconcile(&records, 70_000);
    all.settle(70_000);
    assert_eq!(all.endpoints()[0], 2);
}

#[test]
fn a_removal_that_could_not_be_written_is_not_forgotten() {
    for done in [false, true] {
        let mut all = Others::new();
        all.0[0].join(1, node("n1", "web", false), 0);
        all.0[0].join(2, node("n2", "web", false), 0);
        all.settle(0);
        all.0[0].leave(1, 1_000);
        for at in [0, 2_000, 4_000] {
            all.fail(0, done, 1_000 + GRACE + at);
        }
        all.settle(10_000);
        assert_eq!(all.endpoints(), [1, 1, 1], "the store fails, and then it does not (carried out: {done})");
        // It comes back elsewhere while its removal is owed.
        all.0[0].leave(2, 11_000);
        all.fail(0, done, 11_000 + GRACE);
        all.0[1].join(1, node("n2", "web", false), 13_000);
        all.settle(13_000);
        assert_eq!(all.endpoints(), [1, 1, 1]);
    }
}

#[test]
fn the_address_of_a_service_whose_last_instance_drains_is_not_fought_over() {
    let mut all = Others::new();
    all.0[0].join(1, node("n1", "web", false), 0);
    all.settle(0);
    let writes = all.settle(1_000);
    assert_eq!(writes, 0);
    all.0[0].join(1, node("n1", "web", true), 2_000);
    // It drains for a minute; others hear of its address and do not know the service.
    let writes: usize = (2..62).map(|second| all.settle(second * 1_000)).sum();
    assert!(writes < 8, "{writes} writes");
    let held = |all: &Others| all.0.iter().map(|mesh| mesh.vips.is_held("shop/web")).collect::<BTreeSet<bool>>();
    assert_eq!(held(&all), BTreeSet::from([true]), "it is there as long as somebody knows the service");
    all.0[0].leave(1, 62_000);
    all.settle(62_000);
    assert_eq!(held(&all), BTreeSet::from([false]));
    // Whoever held it may be gone.
    all.0[0].join(2, node("n1", "web", false), 63_000);
    all.settle(63_000);
    all.0[0].join(2, node("n1", "web", true), 64_000);
    let everybody = BTreeSet::from(["a", "b", "c"].map(str::to_owned));
    all.0.iter_mut().for_each(|mesh| mesh.present(&everybody, 64_000));
    all.settle(64_000);
    all.0.remove(0);
    let there = BTreeSet::from(["b".to_owned(), "c".to_owned()]);
    all.0.iter_mut().for_each(|mesh| mesh.present(&there, 65_000));
    all.settle(65_000);
    assert_eq!(held(&all), BTreeSet::from([false]));
}

#[test]
fn what_a_store_that_was_set_back_has_lost_is_written_again() {
    let mut all = Others::new();
    all.0[0].join(1, node("n1", "web", false), 0);
    all.settle(0);
    let (before, vips) = (all.1.clone(), all.vips());
    all.1.clear();
    for mesh in &mut all.0 {
        mesh.reconcile(&[], 1_000);
    }
    all.settle(1_000);
    assert_eq!((all.1.keys().collect::<Vec<_>>(), all.vips()), (before.keys().collect(), vips));
    assert_eq!(all.endpoints(), [1, 1, 1]);
}

#[test]
fn an_address_whose_removal_could_not_be_written_is_removed_later() {
    let mut all = Others::new();
    all.0[0].join(1, node("n1", "web", false), 0);
    all.settle(0);
    all.0[0].leave(1, 1_000);
    all.settle(1_000);
    all.settle(1_000 + GRACE);
    let later = 1_000 + GRACE + vips::QUARANTINE;
    // Addresses are forgotten when one is needed.
    all.0[0].join(2, node("n2", "api", false), later);
    all.fail(0, false, later);
    all.fail(0, false, later + 1_000);
    all.settle(later + 2_000);
    assert!(!all.1.keys().any(|key| key == "mesh/vips/shop/web"), "{:?}", all.1.keys());
    assert!(all.1.keys().any(|key| key == "mesh/vips/shop/api"));
}

/// What happens to three control planes and four instances.
#[derive(Debug, Clone)]
enum Move {
    /// An instance opens a stream to a control plane; one that it had to another may be noticed to be broken much later.
    Join { node: usize, at: usize },
    /// A control plane notices that the oldest stream of an instance is broken.
    Notice { node: usize },
    /// A control plane writes what it has to write.
    Write { at: usize },
    /// The same, and it cannot; or it is not told that it could.
    Fail { at: usize, done: bool },
    /// A control plane hears of so much of what was written.
    Hear { at: usize, count: usize },
    /// Time passes.
    Wait(u64),
}

fn a_move() -> impl Strategy<Value = Move> {
    prop_oneof![
        4 => (0..4usize, 0..3usize).prop_map(|(node, at)| Move::Join { node, at }),
        3 => (0..4usize).prop_map(|node| Move::Notice { node }),
        4 => (0..3usize).prop_map(|at| Move::Write { at }),
        1 => (0..3usize, any::<bool>()).prop_map(|(at, done)| Move::Fail { at, done }),
        4 => (0..3usize, 1..6usize).prop_map(|(at, count)| Move::Hear { at, count }),
        2 => (0..3_000u64).prop_map(Move::Wait),
    ]
}

/// Clocks of control planes that are seconds apart.
const SKEW: [u64; 3] = [0, 4_000, 1_500];

proptest! {
    /// However late control planes hear of each other, however far their clocks are apart: in the end all know the same instances, at the control planes to
    /// which they are connected, and the store says so too.
    #[test]
    fn instances_that_move_while_words_overtake_each_other_end_where_they_are(moves in prop::collection::vec(a_move(), 1..80)) {
        let mut all = Others::new();
        let mut heard = [0_usize; 3];
        let mut told: Vec<(String, Option<Vec<u8>>)> = Vec::new();
        let mut open: Vec<Vec<(usize, u64)>> = vec![Vec::new(); 4];
        let (mut now, mut streams) = (1_000, 0);
        for step in moves {
            match step {
                Move::Join { node: id, at } => {
                    streams += 1;
                    open[id].push((at, streams));
                    all.0[at].join(streams, node(&format!("n{id}"), "web", false), now + SKEW[at]);
                }
                Move::Notice { node } if !open[node].is_empty() => {
                    let (at, stream) = open[node].remove(0);
                    all.0[at].leave(stream, now + SKEW[at]);
                }
                Move::Notice { .. } => {}
                Move::Write { at } => {
                    all.0[at].settle(now + SKEW[at]);
                    let writes = all.0[at].writes();
                    told.extend(writes.into_iter().filter_map(|write| carry_out(&mut all.1, write)));
                }
                Move::Fail { at, done } => {
                    all.0[at].settle(now + SKEW[at]);
                    let writes = all.0[at].writes();
                    let carried = writes.into_iter().filter(|_| done);
                    told.extend(carried.filter_map(|write| carry_out(&mut all.1, write)));
                    all.0[at].unwritten();
                }
                Move::Hear { at, count } => {
                    for (key, body) in told.iter().skip(heard[at]).take(count) {
                        all.0[at].heard(key, body.as_deref(), now + SKEW[at]);
                        heard[at] += 1;
                    }
                }
                Move::Wait(time) => now += time,
            }
        }
        for (at, mesh) in all.0.iter_mut().enumerate() {
            told.iter().skip(heard[at]).for_each(|(key, body)| mesh.heard(key, body.as_deref(), now + 5_000));
        }
        for streams in &mut open {
            // Broken streams are noticed in the end; the newest one is not broken.
            for (at, stream) in streams.drain(..streams.len().saturating_sub(1)) {
                all.0[at].leave(stream, now + 5_000);
            }
        }
        for later in [0, 1, 2, 3] {
            all.settle(now + 6_000 + later * DOUBT);
        }
        let connected = open.iter().filter(|streams| !streams.is_empty()).count();
        prop_assert_eq!(all.endpoints(), [connected; 3]);
        for (id, streams) in open.iter().enumerate() {
            let Some((at, _)) = streams.first() else { continue };
            let body = all.1.iter().find(|(key, _)| key.ends_with(&format!("/n{id}"))).map(|(_, body)| String::from_utf8_lossy(body));
            let named = format!("\"replica\":\"{}\"", ["a", "b", "c"][*at]);
            prop_assert!(body.as_ref().is_some_and(|body| body.contains(&named)), "{body:?} lacks {named}");
        }
        prop_assert_eq!(all.1.keys().filter(|key| key.contains("/instances/")).count(), connected);
    }
}

#[test]
fn who_is_connected_here_is_ours_when_the_one_that_claims_it_is_gone() {
    let mut all = Others::new();
    all.0[1].join(1, node("n1", "web", false), 5_000);
    all.0[0].join(1, node("n1", "web", false), 100);
    all.settle(5_000);
    let shown = |mesh: &Mesh| mesh.registry().all().map(|held| held.of.clone()).collect::<Vec<_>>();
    assert_eq!(shown(&all.0[0]), [Some("b".into())], "its clock is ahead");
    all.0.remove(1);
    let there = BTreeSet::from(["a".to_owned(), "c".to_owned()]);
    all.0.iter_mut().for_each(|mesh| mesh.present(&there, 6_000));
    all.settle(6_000);
    all.settle(6_000 + 2 * MEMORY);
    assert_eq!((all.endpoints(), shown(&all.0[0]), shown(&all.0[1])), (vec![1, 1], vec![None], vec![Some("a".into())]));
}
