//! Capture with real traffic, in network namespaces that are joined by a cable: who asked for what, and who answered. It knows rules only by what they do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod hands;
mod hosts;
mod taken_back;
mod verified;
mod world;

use hands::Hands;
use heddle_sidecar::capture::{CaptureError, CaptureSettings, Mode, Tools};
use world::{Family, World};

/// Not a story of its own: what listens, and asks with a mark, inside a namespace. Without a line of input it ends at once.
#[test]
#[ignore = "started by the other tests"]
fn child() {
    hands::obey();
}

const MODES: [Mode; 2] = [Mode::Redirect, Mode::Tproxy];

/// The agent runs as root, the application as somebody else.
fn settings(mode: Mode) -> CaptureSettings {
    CaptureSettings { mode, proxy_uid: Some(0), ..CaptureSettings::default() }
}

/// The three doors of an agent. Those for the application are on loopback.
async fn agent(world: &World, mode: Mode) -> Hands {
    let mut agent = world.pod_hands().await;
    let how = if mode == Mode::Tproxy { "transparent" } else { "plain" };
    for (name, address) in
        [("inbound", "0.0.0.0:15006"), ("inbound", "[::]:15006"), ("outbound", "127.0.0.1:15001"), ("outbound", "[::1]:15001")]
    {
        agent.listen(&format!("tcp {name} {address} {how}")).await;
    }
    for address in ["127.0.0.1:15053", "[::1]:15053"] {
        agent.listen(&format!("tcp names {address} plain")).await;
        agent.listen(&format!("udp names {address} plain")).await;
    }
    agent
}

/// A server on each of these ports of all addresses.
async fn server(mut hands: Hands, name: &str, ports: &[u16]) -> Hands {
    for port in ports {
        for address in [format!("0.0.0.0:{port}"), format!("[::]:{port}")] {
            hands.listen(&format!("tcp {name} {address} plain")).await;
        }
    }
    hands
}

#[tokio::test]
async fn what_comes_in_goes_to_the_agent_and_what_is_spared_does_not() {
    for mode in MODES {
        let world = World::new();
        let _agent = agent(&world, mode).await;
        let _app = server(world.pod_hands().await, "app", &[8080, 8081, 22]).await;
        let wanted = CaptureSettings { exclude_inbound_ports: vec![8081.into(), 22.into()], ..settings(mode) };
        world.tools().apply(&wanted).await.unwrap();
        for family in Family::BOTH {
            let pod = family.pod();
            let to = |port| family.socket(pod, port);
            assert_eq!(world.peer_asks("tcp", &to(8080)), format!("inbound {}", to(8080)), "{mode:?}");
            assert_eq!(world.peer_asks("tcp", &to(9999)), format!("inbound {}", to(9999)), "{mode:?}: nobody else listens there");
            assert_eq!(world.peer_asks("tcp", &to(8081)), format!("app {}", to(8081)), "{mode:?}");
            assert_eq!(world.peer_asks("tcp", &to(22)), format!("app {}", to(22)), "{mode:?}");
            assert_eq!(world.app_asks("tcp", &to(8080)), format!("app {}", to(8080)), "{mode:?}: the pod to itself");
            let loopback = family.socket(family.loopback(), 8080);
            assert_eq!(world.app_asks("tcp", &loopback), format!("app {loopback}"), "{mode:?}: over loopback");
        }
        let only =
            CaptureSettings { include_inbound_ports: vec![8081.into()], exclude_inbound_ports: Vec::new(), ..settings(mode) };
        world.tools().apply(&only).await.unwrap();
        for family in Family::BOTH {
            let to = |port| family.socket(family.pod(), port);
            assert_eq!(world.peer_asks("tcp", &to(8080)), format!("app {}", to(8080)), "{mode:?}");
            assert_eq!(world.peer_asks("tcp", &to(8081)), format!("inbound {}", to(8081)), "{mode:?}");
        }
    }
}

#[tokio::test]
async fn what_goes_out_goes_to_the_agent_and_what_is_spared_does_not() {
    for mode in MODES {
        let world = World::new();
        let mut agent = agent(&world, mode).await;
        let _peer = server(world.peer_hands().await, "peer", &[80, 81, 82]).await;
        world.tools().apply(&CaptureSettings { exclude_outbound_ports: vec![81.into()], ..settings(mode) }).await.unwrap();
        for family in Family::BOTH {
            let to = |port| family.socket(family.peer(), port);
            assert_eq!(world.app_asks("tcp", &to(80)), format!("outbound {}", to(80)), "{mode:?}");
            assert_eq!(world.app_asks("tcp", &to(9999)), format!("outbound {}", to(9999)), "{mode:?}");
            assert_eq!(world.app_asks("tcp", &to(81)), format!("peer {}", to(81)), "{mode:?}");
            assert_eq!(agent.ask(&to(80), 0).await, format!("peer {}", to(80)), "{mode:?}: the agent's own traffic passes");
        }
        let (v4, v6) = (Family::V4, Family::V6);
        let lists = CaptureSettings {
            exclude_outbound_cidrs: vec!["fd77::2/128".parse().unwrap()],
            include_outbound_cidrs: vec!["10.77.0.0/24".parse().unwrap(), "fd77::/64".parse().unwrap()],
            include_outbound_ports: vec![82.into()],
            ..settings(mode)
        };
        world.tools().apply(&lists).await.unwrap();
        for (family, port, who) in [(v4, 80, "peer"), (v4, 82, "outbound"), (v6, 80, "peer"), (v6, 82, "peer")] {
            let to = family.socket(family.peer(), port);
            assert_eq!(world.app_asks("tcp", &to), format!("{who} {to}"), "{mode:?}");
        }
        world.tools().apply(&CaptureSettings { exclude_interfaces: vec!["eth*".to_owned()], ..settings(mode) }).await.unwrap();
        let to = v4.socket(v4.peer(), 80);
        assert_eq!(world.app_asks("tcp", &to), format!("peer {to}"), "{mode:?}: by an interface that is spared");
        world.tools().apply(&CaptureSettings { ipv6: false, ..settings(mode) }).await.unwrap();
        for (family, who) in [(v4, "outbound"), (v6, "peer")] {
            let to = family.socket(family.peer(), 80);
            assert_eq!(world.app_asks("tcp", &to), format!("{who} {to}"), "{mode:?}: IPv4 only");
        }
    }
}

#[tokio::test]
async fn the_application_is_known_from_the_agent_by_the_mark_as_well() {
    for mode in MODES {
        let world = World::new();
        let mut agent = agent(&world, mode).await;
        let _peer = server(world.peer_hands().await, "peer", &[80]).await;
        let wanted = CaptureSettings { proxy_uid: None, proxy_mark: Some(7), ..settings(mode) };
        world.tools().apply(&wanted).await.unwrap();
        for family in Family::BOTH {
            let to = family.socket(family.peer(), 80);
            assert_eq!(agent.ask(&to, 7).await, format!("peer {to}"), "{mode:?}");
            assert_eq!(agent.ask(&to, 0).await, format!("outbound {to}"), "{mode:?}: the same user without the mark");
        }
    }
}

#[tokio::test]
async fn questions_for_names_go_to_the_agent_but_not_its_own() {
    for mode in MODES {
        let world = World::new();
        let mut agent = agent(&world, mode).await;
        let mut resolver = server(world.peer_hands().await, "resolver", &[53]).await;
        for address in ["10.77.0.2:53", "[fd77::2]:53"] {
            resolver.listen(&format!("udp resolver {address} plain")).await;
        }
        // A resolver on this host, where systems like to have one.
        let mut stub = world.pod_hands().await;
        stub.listen("udp stub 127.0.0.53:53 plain").await;
        world
            .tools()
            .apply(&CaptureSettings { exclude_outbound_cidrs: vec!["10.0.0.0/8".parse().unwrap()], ..settings(mode) })
            .await
            .unwrap();
        for family in Family::BOTH {
            let to = family.socket(family.peer(), 53);
            assert_eq!(world.app_asks("udp", &to), "names", "{mode:?}");
            assert!(world.app_asks("tcp", &to).starts_with("names "), "{mode:?}");
            assert_eq!(agent.ask_udp(&to).await, "resolver", "{mode:?}");
            assert_eq!(agent.ask(&to, 0).await, format!("resolver {to}"), "{mode:?}");
        }
        assert_eq!(world.app_asks("udp", "127.0.0.53:53"), "names", "{mode:?}");
        assert_eq!(agent.ask_udp("127.0.0.53:53").await, "stub", "{mode:?}");
        world.tools().apply(&CaptureSettings { dns_port: None, ..settings(mode) }).await.unwrap();
        assert_eq!(world.app_asks("udp", "10.77.0.2:53"), "resolver", "{mode:?}: left alone");
    }
}

#[tokio::test]
async fn applied_twice_is_applied_once_and_removed_twice_leaves_nothing() {
    let world = World::new();
    let (untouched, tools) = (world.traces(), world.tools());
    assert_eq!(tools.show(&settings(Mode::Redirect)).await.unwrap(), "no capture is in force\n");
    for mode in MODES {
        tools.apply(&settings(mode)).await.unwrap();
        let once = world.traces();
        assert_ne!(once, untouched);
        tools.apply(&settings(mode)).await.unwrap();
        assert_eq!(world.traces(), once, "{mode:?}");
        let shown = tools.show(&settings(mode)).await.unwrap();
        assert!(shown.starts_with("# in force, as these settings want it\n") && shown.contains("chain outbound"), "{shown}");
        assert_eq!(shown.contains("ip -6 rule: 18501:"), mode == Mode::Tproxy, "{shown}");
        assert!(!shown.contains("left over") && !shown.contains("--table"), "{shown}");
        let others = tools.show(&CaptureSettings { exclude_uids: vec![5], ..settings(mode) }).await.unwrap();
        assert!(others.starts_with("# in force, but of other settings"), "{others}");
    }
    // Of what others of us have left it is told how it goes.
    world.foreign("delete table inet heddle\n");
    let left = tools.show(&settings(Mode::Tproxy)).await.unwrap();
    assert!(
        left.starts_with("no capture is in force\n# left over from an earlier capture") && left.contains("ip -6 rule: 18501:"),
        "{left}"
    );
    tools.apply(&CaptureSettings { table: "mesh".to_owned(), ..settings(Mode::Tproxy) }).await.unwrap();
    let other = tools.show(&settings(Mode::Redirect)).await.unwrap();
    assert!(other.contains("`heddle capture remove --table mesh`"), "{other}");
    tools.remove(&CaptureSettings { table: "mesh".to_owned(), ..settings(Mode::Tproxy) }).await.unwrap();
    assert_eq!(
        (tools.show(&settings(Mode::Redirect)).await.unwrap().as_str(), world.traces()),
        ("no capture is in force\n", untouched.clone())
    );
    tools.apply(&settings(Mode::Tproxy)).await.unwrap();
    // From tproxy back to redirect, the routing goes as well.
    tools.apply(&settings(Mode::Redirect)).await.unwrap();
    assert!(!tools.show(&settings(Mode::Redirect)).await.unwrap().contains("rule:"));
    tools.apply(&settings(Mode::Tproxy)).await.unwrap();
    for _ in 0..2 {
        tools.remove(&settings(Mode::Tproxy)).await.unwrap();
        assert_eq!(world.traces(), untouched);
    }
}

#[tokio::test]
async fn connections_that_are_older_than_the_rules_live_on() {
    for mode in MODES {
        let world = World::new();
        let _agent = agent(&world, mode).await;
        let _peer = server(world.peer_hands().await, "peer", &[80]).await;
        let _app = server(world.pod_hands().await, "app", &[8080]).await;
        let wanted = CaptureSettings { proxy_uid: None, proxy_mark: Some(7), ..settings(mode) };
        let (mut going, mut coming) = (world.pod_hands().await, world.peer_hands().await);
        assert_eq!(going.hold("10.77.0.2:80").await, "peer 10.77.0.2:80");
        assert_eq!(coming.hold("10.77.0.1:8080").await, "app 10.77.0.1:8080");
        world.tools().apply(&wanted).await.unwrap();
        for round in ["one", "two"] {
            assert_eq!(going.say(round).await, round, "{mode:?}: outbound");
            assert_eq!(coming.say(round).await, round, "{mode:?}: inbound");
        }
        // Those that the rules have turned outlive another setting of them.
        let (mut going, mut coming) = (world.pod_hands().await, world.peer_hands().await);
        assert_eq!(going.hold("10.77.0.2:80").await, "outbound 10.77.0.2:80");
        assert_eq!(coming.hold("10.77.0.1:8080").await, "inbound 10.77.0.1:8080");
        world.tools().apply(&CaptureSettings { exclude_uids: vec![5], ..wanted }).await.unwrap();
        assert_eq!((going.say("three").await, coming.say("four").await), ("three".to_owned(), "four".to_owned()), "{mode:?}");
    }
}

#[tokio::test]
async fn without_an_agent_nothing_slips_by() {
    for mode in MODES {
        let world = World::new();
        let _app = server(world.pod_hands().await, "app", &[8080]).await;
        let _peer = server(world.peer_hands().await, "peer", &[80]).await;
        world.tools().apply(&settings(mode)).await.unwrap();
        for family in Family::BOTH {
            let (inward, outward) = (family.socket(family.pod(), 8080), family.socket(family.peer(), 80));
            assert_eq!(world.peer_asks("tcp", &inward), "", "{mode:?}: refused");
            assert_eq!(world.app_asks("tcp", &outward), "", "{mode:?}: refused");
        }
    }
}

#[tokio::test]
async fn who_may_not_is_told_what_it_takes() {
    let world = World::new();
    let tools = world.tools_as("setpriv --reuid 65534 --regid 65534 --clear-groups");
    let denied =
        |error: CaptureError| matches!(&error, CaptureError::NotPermitted { .. }) && error.to_string().contains("CAP_NET_ADMIN");
    for mode in MODES {
        assert!(denied(tools.apply(&settings(mode)).await.unwrap_err()));
        assert!(denied(tools.remove(&settings(mode)).await.unwrap_err()));
    }
    let before = world.traces();
    let broken = Tools { nft: "/bin/false".into(), ..world.tools() };
    assert!(matches!(broken.apply(&settings(Mode::Tproxy)).await, Err(CaptureError::Failed { .. })));
    assert_eq!(world.traces(), before, "routing is not left behind");
}
