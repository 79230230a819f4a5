//! Capture that is seen to work before anybody relies on it, and refused where it does not: somebody else's rules, rules that were emptied, users who may not.

use heddle_sidecar::capture::CaptureSettings;

use crate::hands::Hands;
use crate::world::{Family, World};
use crate::{MODES, Mode, agent};

/// The agent runs as root, and nothing else is said but how.
pub fn of_root(mode: Mode) -> &'static str {
    match mode {
        Mode::Redirect => "mode: redirect, proxy_uid: 0",
        Mode::Tproxy => "mode: tproxy, proxy_uid: 0",
    }
}

pub fn contains_all(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
}

/// All that is tried, with the places where it goes.
pub fn all_arrived(seen: &str, v4: &str, v6: &str) {
    all_arrived_at(seen, v4, v6, "", "");
}

/// The same, at an agent.
fn all_arrived_at_the_agent(seen: &str, v4: &str, v6: &str) {
    all_arrived_at(seen, v4, v6, ", where somebody listens already", ", where somebody answers as an agent does");
}

fn all_arrived_at(seen: &str, v4: &str, v6: &str, tcp: &str, udp: &str) {
    contains_all(
        seen,
        &[
            &format!("IPv4: a connection to {v4}:15001 arrived at 127.0.0.1:15001{tcp};"),
            &format!("IPv4: a question for a name (UDP) to {v4}:53 arrived at 127.0.0.1:15053{udp};"),
            &format!("IPv4: a question for a name (TCP) to {v4}:53 arrived at 127.0.0.1:15053{tcp};"),
            &format!("IPv6: a connection to [{v6}]:15001 arrived at [::1]:15001{tcp};"),
            &format!("IPv6: a question for a name (UDP) to [{v6}]:53 arrived at [::1]:15053{udp};"),
            &format!("IPv6: a question for a name (TCP) to [{v6}]:53 arrived at [::1]:15053{tcp};"),
            "inbound: its rules are in force",
        ],
    );
}

/// Gives somebody the doors of an agent, who answers for names as one.
pub async fn answering(hands: Hands, mode: Mode) -> Hands {
    let mut hands = answering_outbound(hands, mode).await;
    hands.listen(&format!("tcp inbound 0.0.0.0:15006 {}", if mode == Mode::Tproxy { "transparent" } else { "plain" })).await;
    hands
}

/// The same without that for what comes in.
async fn answering_outbound(mut hands: Hands, mode: Mode) -> Hands {
    let how = if mode == Mode::Tproxy { "transparent" } else { "plain" };
    for ip in ["127.0.0.1", "[::1]"] {
        hands.listen(&format!("tcp outbound {ip}:15001 {how}")).await;
        hands.listen(&format!("tcp names {ip}:15053 plain")).await;
        hands.listen(&format!("agent names {ip}:15053 plain")).await;
    }
    hands
}

#[tokio::test]
async fn rules_are_seen_to_capture_before_there_is_an_agent_and_nothing_of_it_stays() {
    for mode in MODES {
        let world = World::new();
        let (untouched, mut hands) = (world.traces(), world.pod_hands().await);
        // A host that knows its neighbours alone, then one with a way to everywhere.
        all_arrived(&hands.capture("establish", of_root(mode)).await, "10.77.0.254", "fd77::ffff:ffff:ffff:fffe");
        world.open_ways_out();
        let once = world.traces();
        for _ in 0..2 {
            all_arrived(&hands.capture("establish", of_root(mode)).await, "192.0.2.72", "2001:db8::72");
            assert_eq!((world.traces(), world.sockets()), (once.clone(), String::new()), "{mode:?}");
        }
        // Who only looks opens no doors.
        let looked = hands.capture("verify", of_root(mode)).await;
        contains_all(
            &looked,
            &["refused: ", "IPv4: a connection: no agent listens at 127.0.0.1:15001: start it", "nothing was changed"],
        );
        assert!(!looked.contains("arrived"), "{looked}");
        assert_eq!(world.traces(), once);
        let an_agent = answering(world.pod_hands().await, mode).await;
        all_arrived_at_the_agent(&hands.capture("verify", of_root(mode)).await, "192.0.2.72", "2001:db8::72");
        assert_eq!(world.traces(), once);
        an_agent.end().await;
        assert_eq!(hands.capture("remove", of_root(mode)).await, "");
        assert_ne!(world.traces(), once);
        // The doors of an agent are free for it.
        let _agent = agent(&world, mode).await;
        assert!(!untouched.contains("heddle"));
    }
}

#[tokio::test]
async fn an_agent_that_listens_already_is_left_in_peace_and_seen_to_be_called() {
    for mode in MODES {
        let world = World::new();
        let _agent = agent(&world, mode).await;
        let mut hands = world.pod_hands().await;
        for settings in [
            format!("{}, dns_port: off", of_root(mode)),
            format!("{}, dns_port: off, include_outbound_ports: [80]", of_root(mode)),
        ] {
            let port = if settings.contains("80") { 80 } else { 15001 };
            let seen = hands.capture("establish", &settings).await;
            let v4 =
                format!("IPv4: a connection to 10.77.0.254:{port} arrived at 127.0.0.1:15001, where somebody listens already");
            let v6 = format!(
                "IPv6: a connection to [fd77::ffff:ffff:ffff:fffe]:{port} arrived at [::1]:15001, where somebody listens already"
            );
            contains_all(&seen, &[&v4, &v6]);
        }
        // It must be the one whose own traffic passes.
        let said = hands
            .capture(
                "establish",
                &format!("mode: {}, proxy_uid: 1337, dns_port: off", if mode == Mode::Tproxy { "tproxy" } else { "redirect" }),
            )
            .await;
        contains_all(
            &said,
            &["refused: ", "127.0.0.1:15001, but who listens there is user 0, whose own traffic is captured too"],
        );
        // Whoever is called `names` here speaks no DNS: he is not taken for an agent.
        let seen = hands.capture("establish", of_root(mode)).await;
        contains_all(
            &seen,
            &["refused: ", "(UDP) to 10.77.0.254:53 should have arrived at 127.0.0.1:15053, but nobody answered"],
        );
        assert!(!seen.contains("(TCP)"), "{seen}");
    }
}

/// What somebody else may have in the firewall, in which modes it defeats capture, and how that is told.
const FOREIGN: [(&str, &[Mode], &str); 7] = [
    (
        "type nat hook output priority -150; tcp dport 15001 dnat ip to 127.0.0.1:9",
        &[Mode::Redirect],
        "it arrived at 127.0.0.1:9 of this host",
    ),
    ("type filter hook output priority 0; tcp dport 15001 drop", &[Mode::Redirect, Mode::Tproxy], "nobody answered within 2 s"),
    (
        "type filter hook output priority -200; tcp dport 15001 reject with tcp reset",
        &[Mode::Redirect, Mode::Tproxy],
        "it was refused",
    ),
    ("type filter hook output priority -300; tcp dport 15001 notrack", &[Mode::Redirect], "nobody answered within 2 s"),
    ("type route hook output priority -100; tcp dport 15001 meta mark set 1", &[Mode::Tproxy], "nobody answered within 2 s"),
    (
        "type filter hook output priority 0; udp dport 15053 drop",
        &[Mode::Redirect, Mode::Tproxy],
        "a rule of this host does not let it out",
    ),
    (
        "type nat hook output priority -150; udp dport 53 dnat ip to 127.0.0.1:15054",
        &[Mode::Redirect, Mode::Tproxy],
        "somebody else answered",
    ),
];

/// Who listens where others are sent.
async fn others(world: &World) -> Hands {
    let mut hands = world.pod_hands().await;
    hands.listen("tcp other 127.0.0.1:9 plain").await;
    hands.listen("dns other 127.0.0.1:15054 plain").await;
    hands
}

#[tokio::test]
async fn rules_that_somebody_else_defeats_are_refused_with_his_name_and_taken_away() {
    for mode in MODES {
        for (rule, _, told) in FOREIGN.iter().filter(|(_, modes, _)| modes.contains(&mode)) {
            let world = World::new();
            let (_others, mut hands) = (others(&world).await, world.pod_hands().await);
            let (hook, rest) = rule.split_once(';').unwrap();
            world.foreign(&format!("table inet mine {{\nchain theirs {{\n{hook};\n{rest}\n}}\n}}\n"));
            let before = world.traces();
            let said = hands.capture("establish", of_root(mode)).await;
            contains_all(
                &said,
                &[
                    "refused: capture is not as it should be:; IPv4: ",
                    told,
                    "`inet mine` chain theirs",
                    "--verify false",
                    "the rules were taken away again",
                ],
            );
            assert_eq!((world.traces(), world.sockets()), (before, String::new()), "{mode:?} {rule}");
        }
    }
}

#[tokio::test]
async fn who_knows_better_applies_unseen_and_who_wants_it_closed_keeps_the_rules() {
    for mode in MODES {
        let world = World::new();
        let mut hands = world.pod_hands().await;
        world.foreign("table inet mine {\nchain theirs {\ntype filter hook output priority 0;\nudp dport 15053 drop\n}\n}\n");
        let known = format!("{}, verify: false", of_root(mode));
        assert_eq!(hands.capture("establish", &known).await, "");
        hands.capture("remove", &known).await;
        let closed = hands.capture("establish", &format!("{}, fail_closed: true", of_root(mode))).await;
        contains_all(&closed, &["refused: ", "the rules stay in force (capture.fail_closed)"]);
        assert!(world.traces().contains("table inet heddle"));
        let _peer = crate::server(world.peer_hands().await, "peer", &[80]).await;
        assert_eq!(world.app_asks("tcp", "10.77.0.2:80"), "", "nothing slips by");
    }
}

#[tokio::test]
async fn what_was_in_force_before_is_so_again() {
    for mode in MODES {
        for now in MODES {
            let world = World::new();
            let mut hands = world.pod_hands().await;
            hands.capture("establish", of_root(mode)).await;
            let before = world.traces();
            world.foreign("table inet mine {\nchain theirs {\ntype filter hook output priority 0;\nudp dport 15053 drop\n}\n}\n");
            let said = hands.capture("establish", &format!("{}, exclude_uids: [5]", of_root(now))).await;
            contains_all(&said, &["refused: ", "what was in force before is in force again"]);
            world.foreign("delete table inet mine\n");
            assert_eq!(world.traces(), before, "{mode:?} {now:?}");
            let _agent = answering(world.pod_hands().await, mode).await;
            all_arrived_at_the_agent(&hands.capture("verify", of_root(mode)).await, "10.77.0.254", "fd77::ffff:ffff:ffff:fffe");
        }
    }
}

#[tokio::test]
async fn rules_that_were_taken_away_emptied_or_replaced_are_missed() {
    for mode in MODES {
        let world = World::new();
        let (_agent, mut hands) = (answering(world.pod_hands().await, mode).await, world.pod_hands().await);
        let said = hands.capture("verify", of_root(mode)).await;
        contains_all(&said, &["refused: ", "the table `inet heddle` is not there", "nothing was changed"]);
        assert!(!said.contains("modprobe") && !said.contains("--verify"), "it is known what is wrong: {said}");
        hands.capture("establish", of_root(mode)).await;
        let other = hands.capture("verify", &format!("{}, exclude_uids: [5]", of_root(mode))).await;
        contains_all(&other, &["refused: ", "rules of other settings", "nothing was changed"]);
        world.foreign("flush chain inet heddle inbound\n");
        let emptied = hands.capture("verify", of_root(mode)).await;
        contains_all(&emptied, &["refused: ", "no rule any more that takes what comes in to port 15006"]);
        world.foreign("flush table inet heddle\n");
        let emptied = hands.capture("verify", of_root(mode)).await;
        contains_all(
            &emptied,
            &["IPv6: a connection to [fd77::ffff:ffff:ffff:fffe]:15001 should have arrived at [::1]:15001, but "],
        );
        all_arrived_at_the_agent(&hands.capture("establish", of_root(mode)).await, "10.77.0.254", "fd77::ffff:ffff:ffff:fffe");
    }
}

#[tokio::test]
async fn it_is_tried_by_whoever_is_captured_and_said_who_may_not() {
    let world = World::new();
    let mut injected =
        world.pod_hands_as("setpriv --bounding-set -all,+net_admin --inh-caps -all,+net_admin --no-new-privs").await;
    // As in a pod: root with one capability, and an agent that is another user.
    let of_agent = "proxy_uid: 1337, exclude_inbound_ports: [15021]";
    all_arrived(&injected.capture("establish", of_agent).await, "10.77.0.254", "fd77::ffff:ffff:ffff:fffe");
    // Any user sees for himself.
    let mut anybody = world.pod_hands_as("setpriv --reuid 1000 --regid 1000 --clear-groups").await;
    let its_user = world.pod_hands_as("setpriv --reuid 1337 --regid 1337 --clear-groups").await;
    let _agent = answering(its_user, Mode::Redirect).await;
    let seen = anybody.capture("verify", of_agent).await;
    contains_all(
        &seen,
        &["IPv4: a connection to 10.77.0.254:15001 arrived at 127.0.0.1:15001", "inbound: not tried: its rules cannot be seen"],
    );
    // Root, whose traffic passes, may not be somebody else there.
    let before = world.traces();
    let said = injected.capture("establish", "proxy_uid: 0").await;
    contains_all(
        &said,
        &[
            "refused: ",
            "this process is user 0, whose traffic passes",
            "CAP_SETUID",
            "what was in force before is in force again",
        ],
    );
    assert_eq!(world.traces(), before);
    assert_eq!(injected.capture("establish", "proxy_uid: 0, verify: false").await, "");
    // What is known by its mark needs no other user.
    contains_all(&injected.capture("establish", "proxy_mark: 7").await, &["arrived at [::1]:15053"]);
}

#[tokio::test]
async fn a_host_without_a_way_out_asks_itself_for_names_and_one_that_spares_all_is_told_so() {
    let world = World::new();
    let mut hands = world.pod_hands().await;
    let spared = hands.capture("establish", "proxy_uid: 0, exclude_outbound_ports: [1-65535], ipv6: false").await;
    contains_all(&spared, &["IPv4: a connection: not tried: no port of others is captured", "to 10.77.0.254:53 arrived"]);
    assert!(!spared.contains("warning"), "{spared}");
    world.unplug();
    let untried = hands.capture("establish", "proxy_uid: 0, dns_port: off").await;
    contains_all(&untried, &["IPv6: a connection: not tried: ", "warning: nothing outbound was tried: "]);
    let alone = hands.capture("establish", "proxy_uid: 0").await;
    contains_all(
        &alone,
        &[
            "IPv4: a connection: not tried: this host has no way to an address of it that is captured",
            "IPv4: a question for a name (UDP) to 127.0.0.1:53 arrived at 127.0.0.1:15053",
            "IPv6: a question for a name (TCP) to [::1]:53 arrived at [::1]:15053",
        ],
    );
}

#[tokio::test]
async fn two_at_once_come_one_after_the_other() {
    let world = World::new();
    let (mut one, mut other) = (world.pod_hands().await, world.pod_hands().await);
    for mode in MODES {
        let (first, second) =
            tokio::join!(one.capture("establish", of_root(mode)), other.capture("establish", "proxy_uid: 0, exclude_uids: [5]"));
        for seen in [first, second] {
            all_arrived(&seen, "10.77.0.254", "fd77::ffff:ffff:ffff:fffe");
        }
    }
    let to = Family::V4.socket(Family::V4.peer(), 80);
    assert_eq!(world.app_asks("tcp", &to), "", "what is in force is whole");
}

#[tokio::test]
async fn one_that_fails_takes_nothing_away_from_one_that_succeeds_meanwhile() {
    let world = World::new();
    let (mut one, mut other) = (world.pod_hands().await, world.pod_hands().await);
    world.foreign("table inet mine {\nchain theirs {\ntype filter hook output priority 0;\ntcp dport 15001 drop\n}\n}\n");
    let elsewhere = "proxy_uid: 0, outbound_port: 15002";
    let (failed, done) = tokio::join!(one.capture("establish", "proxy_uid: 0"), other.capture("establish", elsewhere));
    contains_all(&failed, &["refused: ", "nobody answered within 2 s"]);
    contains_all(&done, &["arrived at 127.0.0.1:15002;", "arrived at [::1]:15002;"]);
    assert!(world.traces().contains("redirect to :15002"), "{}", world.traces());
}

#[tokio::test]
async fn rules_of_somebody_who_could_not_wait_for_his_turn_are_left_to_him() {
    for before in [false, true] {
        let world = World::new();
        if before {
            world.tools().apply(&CaptureSettings { proxy_uid: Some(0), ..CaptureSettings::default() }).await.unwrap();
        }
        // Who is not root has no turn.
        let mut without = world
            .pod_hands_as("setpriv --reuid 1000 --regid 1000 --clear-groups --inh-caps +net_admin --ambient-caps +net_admin")
            .await;
        world.foreign("table inet mine {\nchain theirs {\ntype filter hook output priority 0;\ntcp dport 15002 drop\n}\n}\n");
        let theirs = CaptureSettings { proxy_uid: Some(0), exclude_uids: vec![5], ..CaptureSettings::default() };
        let meanwhile = async {
            world.sees("redirect to :15002").await;
            world.tools().apply(&theirs).await.unwrap();
            world.traces()
        };
        let (said, traces) = tokio::join!(without.capture("establish", "proxy_uid: 0, outbound_port: 15002"), meanwhile);
        contains_all(&said, &["refused: ", "somebody else has put other rules into force meanwhile"]);
        assert_eq!(world.traces(), traces);
    }
}

#[tokio::test]
async fn who_is_stopped_before_he_has_seen_it_work_puts_back_what_was_there() {
    for mode in MODES {
        let world = World::new();
        let mut hands = world.pod_hands().await;
        world.foreign("table inet mine {\nchain theirs {\ntype filter hook output priority 0;\ntcp dport 15001 drop\n}\n}\n");
        let (before, pid) = (world.traces(), hands.pid().to_string());
        let stop = async {
            world.sees("table inet heddle").await;
            assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        };
        let (said, ()) = tokio::join!(hands.capture("establish", of_root(mode)), stop);
        contains_all(&said, &["refused: ", "stopped by a signal before it was seen to work", "the rules were taken away again"]);
        assert_eq!(world.traces(), before);
    }
}

#[tokio::test]
async fn where_an_agent_is_expected_no_other_door_is_good_enough() {
    for mode in MODES {
        let world = World::new();
        let (before, mut hands) = (world.traces(), world.pod_hands().await);
        let said = hands.capture("expect", of_root(mode)).await;
        contains_all(
            &said,
            &[
                "refused: ",
                "IPv4: a connection: no agent listens at 127.0.0.1:15001: start it, with `outbound.capture` on",
                "IPv6: a question for a name (UDP): no agent listens at [::1]:15053",
                "the rules were taken away again",
            ],
        );
        assert_eq!(world.traces(), before);
        assert!(!said.contains("modprobe") && !said.contains("other rules"), "nobody else has a hand in it: {said}");
        let mut agent = answering_outbound(world.pod_hands().await, mode).await;
        let closed = hands.capture("expect", of_root(mode)).await;
        contains_all(
            &closed,
            &["refused: ", "inbound: no agent listens at port 15006: start it", "the rules were taken away again"],
        );
        assert!(!closed.contains("modprobe") && !closed.contains("other rules"), "{closed}");
        // It may be open at one of its addresses alone.
        agent.listen("tcp inbound 10.77.0.1:15006 plain").await;
        let other_port = hands.capture("expect", &format!("{}, outbound_port: 15002", of_root(mode))).await;
        contains_all(&other_port, &["refused: ", "no agent listens at 127.0.0.1:15002"]);
        all_arrived_at_the_agent(&hands.capture("expect", of_root(mode)).await, "10.77.0.254", "fd77::ffff:ffff:ffff:fffe");
    }
}

#[tokio::test]
async fn who_answers_for_names_must_be_the_agents_user() {
    let world = World::new();
    let mut stranger = world.pod_hands_as("setpriv --reuid 1000 --regid 1000 --clear-groups").await;
    stranger.listen("agent names 127.0.0.1:15053 plain").await;
    let said = world.pod_hands().await.capture("establish", "proxy_uid: 0, ipv6: false").await;
    contains_all(
        &said,
        &["refused: ", "(UDP) to 10.77.0.254:53 should have arrived at 127.0.0.1:15053, but who listens there is user 1000"],
    );
    assert!(!said.contains("(TCP)"), "{said}");
}

#[tokio::test]
async fn a_host_that_filters_one_network_is_tried_by_another() {
    for mode in MODES {
        let world = World::new();
        let mut hands = world.pod_hands().await;
        world.open_ways_out();
        world.foreign(
            "table inet mine {\nchain theirs {\ntype filter hook output priority -300;\nip daddr 192.0.2.0/24 drop\nip6 daddr 2001:db8::/32 drop\n}\n}\n",
        );
        all_arrived(&hands.capture("establish", of_root(mode)).await, "198.51.100.72", "3fff::72");
    }
}
