//! Attempts without a packet: where they go, how the kernel's lists are read, and what is an answer of an agent.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;

use proptest::prelude::*;

use super::super::settings::{CaptureSettings, Ports};
use super::kernel::{Route, Transport, far_end_in, listens_in, owner_in, route_v4, route_v6};
use super::places::{Family, Place, Reach, instead_by, outward_by, port};
use super::question::{Answered, Question};
use super::report::{Finding, Kind, Outcome, What};
use super::*;

fn to(address: &str) -> Place {
    Place::At(address.parse().unwrap())
}

fn routes(all: &[(&str, &str)]) -> Vec<Route> {
    all.iter().map(|(net, interface)| Route { net: net.parse().unwrap(), interface: (*interface).to_owned() }).collect()
}

/// What is reached from a host with a default route.
fn anywhere(_: SocketAddr) -> Reach {
    Reach::Beyond
}

#[test]
fn addresses_of_nobody_are_called_and_the_port_at_which_an_agent_hangs_up() {
    let settings = CaptureSettings::default();
    assert_eq!(outward_by(&settings, Family::V4, &[], anywhere), to("192.0.2.72:15001"));
    assert_eq!(outward_by(&settings, Family::V6, &[], anywhere), to("[2001:db8::72]:15001"));
    // One of them is this host's own.
    let own = |at: SocketAddr| if at.ip().to_string() == "192.0.2.72" { Reach::Own } else { Reach::Beyond };
    assert_eq!(outward_by(&settings, Family::V4, &[], own), to("198.51.100.72:15001"));
}

#[test]
fn a_second_place_is_in_another_network_and_never_this_host_itself() {
    let settings = CaptureSettings::default();
    let second = |first: &str, is_name, reach: fn(SocketAddr) -> Reach| {
        instead_by(&settings, Family::V4, &[], first.parse().unwrap(), is_name, reach).map(|to| to.to_string())
    };
    assert_eq!(second("192.0.2.72:15001", false, anywhere).as_deref(), Some("198.51.100.72:15001"));
    assert_eq!(second("192.0.2.72:53", true, anywhere).as_deref(), Some("198.51.100.72:53"));
    assert_eq!(second("192.0.2.72:53", true, |_| Reach::Own), None);
}

#[test]
fn what_settings_leave_out_is_not_called() {
    let settings = CaptureSettings {
        include_outbound_cidrs: vec!["10.1.0.0/16".parse().unwrap(), "10.9.9.9/32".parse().unwrap()],
        exclude_outbound_cidrs: vec!["10.1.255.0/24".parse().unwrap()],
        include_outbound_ports: vec![80.into(), Ports { first: 8000, last: 8010 }],
        exclude_outbound_ports: vec![8010.into()],
        ..CaptureSettings::default()
    };
    assert_eq!(outward_by(&settings, Family::V4, &[], anywhere), to("10.9.9.9:8009"));
    assert!(matches!(outward_by(&settings, Family::V6, &[], anywhere), Place::Nowhere(why) if why.contains("captured")));
    let names = CaptureSettings { include_outbound_ports: vec![53.into()], ..CaptureSettings::default() };
    assert_eq!(port(&names), None, "that is captured as a question for a name");
    assert_eq!(port(&CaptureSettings { dns_port: None, ..names }), Some(53));
}

#[test]
fn a_host_without_a_way_out_calls_its_neighbours_and_one_without_any_nobody() {
    let settings = CaptureSettings::default();
    let isolated = |at: SocketAddr| if at.ip().to_string().starts_with("10.77.") { Reach::Beyond } else { Reach::None };
    let near = routes(&[("10.77.0.0/24", "eth0")]);
    assert_eq!(outward_by(&settings, Family::V4, &near, isolated), to("10.77.0.254:15001"));
    assert!(matches!(outward_by(&settings, Family::V4, &[], isolated), Place::Nowhere(why) if why.contains("no way")));
    assert!(matches!(outward_by(&settings, Family::V6, &near, isolated), Place::Nowhere(_)));
}

#[test]
fn ways_by_interfaces_that_are_spared_are_not_taken() {
    let settings = CaptureSettings { exclude_interfaces: vec!["vpn*".to_owned()], ..CaptureSettings::default() };
    let both = routes(&[("0.0.0.0/0", "vpn0"), ("10.77.0.0/24", "eth0")]);
    assert_eq!(outward_by(&settings, Family::V4, &both, anywhere), to("10.77.0.254:15001"));
    assert!(matches!(outward_by(&settings, Family::V4, &both[..1], anywhere), Place::Nowhere(why) if why.contains("way out")));
}

#[test]
fn the_kernels_lists_are_read() {
    let line =
        "   3: 0100007F:3A99 01004D0A:C350 01 00000000:00000000 00:00000000 00000000  1337        0 5555 1 0000 20 4 30 10 -1";
    let six = "   0: B80D0120000000000000000072000000:3A99 0000000000000000FFFF000001004D0A:C350 08 0:0 0:0 0 0 0 1";
    if cfg!(target_endian = "little") {
        let caller = "10.77.0.1:50000".parse().unwrap();
        assert_eq!(far_end_in(line, caller), Some("127.0.0.1:15001".parse().unwrap()));
        assert_eq!(far_end_in(line, "10.77.0.1:50001".parse().unwrap()), None);
        let door = line.replace(" 01 ", " 0A ");
        assert_eq!(far_end_in(&door, caller), None, "it listens");
        assert_eq!(
            [(line, 15_001), (&door, 15_001), (&door, 15_002)].map(|(line, port)| listens_in(line, port)),
            [false, true, false]
        );
        assert_eq!(owner_in(&door, "127.0.0.1:15001".parse().unwrap(), Transport::Tcp), Some((true, 1337)));
        assert_eq!(
            owner_in(&door.replace("0100007F", "00000000"), "127.0.0.1:15001".parse().unwrap(), Transport::Tcp),
            Some((false, 1337))
        );
        for (line, at) in [(line, "127.0.0.1:15001"), (&door, "127.0.0.2:15001"), (&door, "127.0.0.1:15002")] {
            assert_eq!(owner_in(line, at.parse().unwrap(), Transport::Tcp), None, "{at}");
        }
        assert_eq!(far_end_in(six, caller), Some("[2001:db8::72]:15001".parse().unwrap()), "IPv4 by a socket of both");
        let udp = line.replace(" 01 ", " 07 ");
        assert_eq!(owner_in(&udp, "127.0.0.1:15001".parse().unwrap(), Transport::Udp), Some((true, 1337)));
        for (line, at) in [(&door, "127.0.0.1:15001"), (&udp.replace("0100007F", "00000000"), "[::1]:15001")] {
            assert_eq!(owner_in(line, at.parse().unwrap(), Transport::Udp), None, "{at}");
        }
        let route = route_v4("eth0\t004D4D0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0").unwrap();
        assert_eq!((route.net.to_string(), &*route.interface), ("10.77.77.0/24".to_owned(), "eth0"));
    }
    let net = "fd770000000000000000000000000000 40";
    let zero = "00000000000000000000000000000000";
    let line = |flags: &str, interface: &str| format!("{net} {zero} 00 {zero} 00000100 00000001 00000000 {flags} {interface}");
    assert_eq!(route_v6(&line("00000001", "eth0")).unwrap().net.to_string(), "fd77::/64");
    for (flags, interface) in [("00000201", "eth0"), ("00000000", "eth0"), ("00000001", "lo")] {
        assert_eq!(route_v6(&line(flags, interface)), None, "{flags} {interface}");
    }
}

#[test]
fn an_agents_answer_is_known_from_that_of_others() {
    let question = Question::of(40_000);
    let answer = question.answer();
    assert_eq!(question.judge(&answer), Answered::ByAgent);
    assert_eq!(question.judge(question.bytes()), Answered::Not, "it is a question itself");
    assert_eq!(question.judge(&Question::of(40_001).answer()), Answered::Not);
    let mut without_authority = answer.clone();
    without_authority[2] &= !0x04;
    let mut with_more = answer.clone();
    with_more[9] = 1;
    with_more.extend([0; 20]);
    for other in [without_authority, with_more, answer[..20].to_vec()] {
        assert_eq!(question.judge(&other), Answered::ByOther);
    }
}

#[test]
fn what_was_seen_is_told_with_what_should_have_been() {
    let what = What { family: Family::V6, kind: Kind::Question };
    let (to, door) = ("[2001:db8::72]:53".parse().unwrap(), "[::1]:15053".parse().unwrap());
    let failed = Finding { what, outcome: Outcome::Failed { to, door, why: "nobody answered within 2 s".to_owned() } };
    let text = "IPv6: a question for a name (UDP) to [2001:db8::72]:53 should have arrived at [::1]:15053, but nobody answered within 2 s";
    assert_eq!(failed.to_string(), text);
    let arrived = Finding { what, outcome: Outcome::Arrived { to, door, is_taken: true } };
    let mut report = Report { findings: vec![failed, arrived], closed: None, inbound: None };
    assert_eq!((report.failures(), report.is_defeated()), (vec![text.to_owned()], true));
    assert!(
        report.to_string().contains("arrived at [::1]:15053, where somebody answers as an agent does\n"),
        "who it is was not seen"
    );
    report.inbound(true);
    assert_eq!((report.to_string().lines().count(), report.warning()), (3, None));
    let door = "127.0.0.1:15001".parse().unwrap();
    report.findings = vec![Finding { what, outcome: Outcome::NoAgent { door } }];
    report.closed = Some(15_006);
    let failures = report.failures();
    assert!(failures[0].contains("no agent listens at 127.0.0.1:15001: start it") && failures[1].contains("at port 15006"));
    assert!(!report.is_defeated(), "nobody else has a hand in it");
    (report.findings, report.closed) = (vec![Finding { what, outcome: Outcome::NotTried("there is no way out") }], None);
    assert!(report.to_string().contains("warning: nothing outbound was tried"));
    assert_eq!(Report::default().warning(), None, "nobody wanted to try anything");
}

proptest! {
    #[test]
    fn lists_and_packets_may_be_anything(text in "[0-9A-Fa-f: \t./]{0,200}", packet in proptest::collection::vec(any::<u8>(), 0..80)) {
        far_end_in(&text, "10.0.0.1:1".parse().unwrap());
        listens_in(&text, 1);
        for transport in [Transport::Tcp, Transport::Udp] {
            owner_in(&text, "10.0.0.1:1".parse().unwrap(), transport);
        }
        route_v4(&text);
        route_v6(&text);
        Question::of(1).judge(&packet);
    }

    #[test]
    fn a_port_that_is_called_is_a_port_that_is_captured(
        include in proptest::collection::vec((1..1000u16, 0..1000u16), 0..4),
        exclude in proptest::collection::vec((1..1000u16, 0..65_000u16), 0..4),
    ) {
        let ports = |list: Vec<(u16, u16)>| list.into_iter().map(|(first, more)| Ports { first, last: first.saturating_add(more) }).collect();
        let settings = CaptureSettings { include_outbound_ports: ports(include), exclude_outbound_ports: ports(exclude), ..CaptureSettings::default() };
        let within = |list: &[Ports], port| list.iter().any(|ports| ports.first <= port && port <= ports.last);
        let captured = |port| port != 53
            && (settings.include_outbound_ports.is_empty() || within(&settings.include_outbound_ports, port))
            && !within(&settings.exclude_outbound_ports, port);
        match port(&settings) {
            Some(port) => prop_assert!(captured(port)),
            None => prop_assert!(!(1..=u16::MAX).any(captured)),
        }
    }
}
