//! Capture without a packet: what settings mean, that every script is one that nftables accepts, and what complaints are made of.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write;
use std::process::{Command, Stdio};

use heddle_node::config::{Document, Expansion, Format};
use ipnet::IpNet;
use proptest::collection::vec;
use proptest::prelude::*;

use super::script::{comment, removal};
use super::trouble::{of_ip, of_nft};
use super::*;

fn read(text: &str) -> Result<CaptureSettings, String> {
    let document =
        Document::parse("sidecar.yaml", text, Format::Yaml, Expansion::Off).map_err(|mistakes| mistakes.to_string())?;
    document.read(CaptureSettings::read).map_err(|mistakes| mistakes.to_string())
}

fn of_uid(uid: u32) -> CaptureSettings {
    CaptureSettings { proxy_uid: Some(uid), ..CaptureSettings::default() }
}

#[test]
fn everything_can_be_said() {
    let text = "capture: { mode: tproxy, inbound_port: 1, outbound_port: 2, dns_port: off, proxy_uid: 1337, proxy_mark: 0x10, exclude_uids: [7], include_inbound_ports: [80, 8000-8010], exclude_inbound_ports: [], include_outbound_ports: [443], exclude_outbound_ports: [25], include_outbound_cidrs: [10.0.0.0/8], exclude_outbound_cidrs: [10.1.0.0/16, 'fd00::/8'], exclude_interfaces: ['docker*'], ipv4: true, ipv6: false, table: mesh, verify: true, fail_closed: true }";
    let wanted = CaptureSettings {
        mode: Mode::Tproxy,
        inbound_port: Some(1),
        outbound_port: Some(2),
        dns_port: None,
        proxy_uid: Some(1337),
        proxy_mark: Some(16),
        exclude_uids: vec![7],
        include_inbound_ports: vec![80.into(), Ports { first: 8000, last: 8010 }],
        exclude_inbound_ports: Vec::new(),
        include_outbound_ports: vec![443.into()],
        exclude_outbound_ports: vec![25.into()],
        include_outbound_cidrs: vec!["10.0.0.0/8".parse().unwrap()],
        exclude_outbound_cidrs: vec!["10.1.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()],
        exclude_interfaces: vec!["docker*".to_owned()],
        ipv4: true,
        ipv6: false,
        table: "mesh".to_owned(),
        verify: true,
        fail_closed: true,
    };
    assert_eq!(read(text).unwrap(), wanted);
    assert_eq!(wanted.faults(), Vec::<String>::new());
    let unseen = text.replace("verify: true, fail_closed: true", "verify: false, fail_closed: false");
    assert_eq!(read(&unseen).unwrap(), CaptureSettings { verify: false, fail_closed: false, ..wanted });
    assert_eq!(read("{}").unwrap(), CaptureSettings::default());
}

#[test]
fn what_the_agent_is_told_need_not_be_said_again() {
    let settings = read("inbound: { address: '0.0.0.0:16006' }\noutbound: { capture: tproxy }").unwrap();
    assert_eq!((settings.mode, settings.inbound_port), (Mode::Tproxy, Some(16_006)));
    assert_eq!(read("service: { address: '127.0.0.1:1' }").unwrap().inbound_port, Some(INBOUND_PORT));
    let quiet = read("service: {}").unwrap();
    assert_eq!(
        (quiet.inbound_port, quiet.outbound_port, quiet.dns_port),
        (None, None, None),
        "nobody calls it, and capture is off"
    );
    let settings = read("outbound: { capture: off }\ncapture: { inbound_port: 7 }").unwrap();
    assert_eq!((settings.outbound_port, settings.dns_port, settings.inbound_port), (None, None, Some(7)));
    let settings = read("outbound: { capture: off }\ncapture: { outbound_port: 7, mode: tproxy }").unwrap();
    assert_eq!((settings.outbound_port, settings.mode), (Some(7), Mode::Tproxy));
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = read("capture: { mode: iptables, inbound_port: 0, dns_port: maybe, proxy_mark: 0, exclude_uids: [root], include_inbound_ports: [9-8], exclude_outbound_cidrs: [10], colour: red }").unwrap_err();
    for key in [
        "mode",
        "inbound_port",
        "dns_port",
        "proxy_mark",
        "exclude_uids",
        "include_inbound_ports",
        "exclude_outbound_cidrs[0]",
        "colour",
    ] {
        assert!(text.contains(&format!("capture.{key}: ")), "{key} is not in:\n{text}");
    }
}

#[test]
fn what_contradicts_itself_is_told_with_what_to_do() {
    let usual = CaptureSettings::default;
    let cases = [
        (usual(), "proxy_uid"),
        (CaptureSettings { inbound_port: None, outbound_port: None, dns_port: None, ..usual() }, "all off"),
        (CaptureSettings { ipv4: false, ipv6: false, ..of_uid(1) }, "both off"),
        (CaptureSettings { proxy_mark: Some(ROUTING_ID), ..usual() }, "take another one"),
        (CaptureSettings { outbound_port: Some(15_006), ..of_uid(1) }, "must differ"),
        (CaptureSettings { table: "a b".to_owned(), ..of_uid(1) }, "capture.table"),
        (CaptureSettings { fail_closed: true, verify: false, ..of_uid(1) }, "nobody looks"),
        (CaptureSettings { exclude_interfaces: vec!["a\" accept".to_owned()], ..of_uid(1) }, "name of an interface"),
        (CaptureSettings { exclude_uids: vec![1; MAX_ENTRIES + 1], ..of_uid(1) }, "at most 1024"),
    ];
    for (settings, part) in cases {
        let faults = settings.faults();
        assert!(faults.len() == 1 && faults[0].contains(part), "{part}: {faults:?}");
    }
    assert_eq!(CaptureSettings { outbound_port: None, dns_port: None, ..usual() }.faults(), Vec::<String>::new());
}

#[test]
fn lists_are_merged_and_families_kept_apart() {
    let settings = CaptureSettings {
        exclude_outbound_ports: vec![81.into(), Ports { first: 90, last: 99 }, 80.into(), Ports { first: 95, last: 120 }],
        include_outbound_cidrs: vec!["10.0.0.9/8".parse().unwrap()],
        exclude_outbound_cidrs: vec!["10.1.0.0/17".parse().unwrap(), "10.1.128.0/17".parse().unwrap()],
        ..of_uid(5)
    };
    let text = script(&settings);
    for rule in [
        "tcp dport { 80-81, 90-120 } accept",
        "ip daddr { 10.1.0.0/16 } accept",
        "ip daddr != { 10.0.0.0/8 } accept",
        "meta nfproto ipv6 accept",
        "tcp dport { 22, 15001, 15006, 15053 } accept",
        "meta skuid { 5 } accept",
    ] {
        assert!(text.lines().any(|line| line.trim() == rule), "{rule} is not in:\n{text}");
    }
}

#[test]
fn the_generation_is_that_of_the_rules() {
    assert_eq!(comment(&of_uid(1)), comment(&of_uid(1)));
    assert_ne!(comment(&of_uid(1)), comment(&of_uid(2)));
    assert_ne!(comment(&of_uid(1)), comment(&CaptureSettings { mode: Mode::Tproxy, ..of_uid(1) }));
}

#[test]
fn complaints_of_the_tools_become_what_to_do() {
    let of = |said: &str| of_nft(said).to_string();
    let tproxy = "/dev/stdin:9:3-90: Error: Could not process rule: No such file or directory\n\t\tmeta nfproto ipv4 meta l4proto tcp tproxy ip to 127.0.0.1:15006 accept\n\t\t^^^^^^\n";
    assert!(of(tproxy).contains("modprobe nft_tproxy") && of(tproxy).contains("mode: redirect"));
    assert!(
        of("Error: Could not process rule: No such file or directory\n meta l4proto tcp redirect to :1\n ^^^")
            .contains("nft_redir")
    );
    assert!(of("Error: Could not process rule: Operation not supported\ntable inet heddle {\n^^").contains("CONFIG_NF_TABLES"));
    assert!(of("netlink: Error: cache initialization failed: Operation not permitted\n").contains("CAP_NET_ADMIN"));
    assert_eq!(of_nft(" Error: x\n"), CaptureError::Failed { tool: "nft", said: "Error: x".to_owned() });
    assert!(of_ip("RTNETLINK answers: Operation not permitted").to_string().contains("CAP_NET_ADMIN"));
    assert!(of_ip("RTNETLINK answers: Address family not supported by protocol").to_string().contains("ipv6: false"));
}

fn tools(nft: &str) -> Tools {
    Tools { nft: nft.into(), ip: "ip".into(), ipv6: true }
}

#[tokio::test]
async fn a_tool_that_is_not_there_is_named_with_its_package() {
    let error = tools("/nowhere/nft").apply(&of_uid(1)).await.unwrap_err();
    assert!(error.to_string().contains("package `nftables`"), "{error}");
}

#[tokio::test]
async fn what_contradicts_itself_is_not_applied_nor_rehearsed() {
    let wrong = CaptureSettings::default();
    assert!(matches!(tools("/nowhere/nft").apply(&wrong).await, Err(CaptureError::Settings(_))));
    assert!(matches!(tools("/nowhere/nft").rehearse(&wrong), Err(CaptureError::Settings(_))));
}

#[test]
fn a_rehearsal_shows_the_routing_as_well() {
    let tproxy = CaptureSettings { mode: Mode::Tproxy, ..of_uid(1) };
    let text = tools("nft").rehearse(&tproxy).unwrap();
    for line in [
        "# ip -4 rule add fwmark 18501 lookup 18501 priority 18501",
        "# ip -6 route replace local default dev lo table 18501",
        "# nft -f -",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in:\n{text}");
    }
    assert!(!tools("nft").rehearse(&of_uid(1)).unwrap().contains("# ip"));
}

/// Asks nftables in a network namespace of its own.
fn accepted(scripts: &str) -> Result<(), String> {
    let mut child = Command::new("unshare")
        .args(["-n", "nft", "-c", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("these tests need unshare (util-linux) and nft (nftables), and root; ./check installs them");
    child.stdin.take().unwrap().write_all(scripts.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

fn some_ports() -> impl Strategy<Value = Vec<Ports>> {
    vec((1_u16.., 0_u16..300).prop_map(|(first, more)| Ports { first, last: first.saturating_add(more) }), 0..6)
}

fn some_networks() -> impl Strategy<Value = Vec<IpNet>> {
    let v4 = (any::<[u8; 4]>(), 0_u8..=32).prop_map(|(address, len)| IpNet::new(address.into(), len).unwrap());
    let v6 = (any::<[u8; 16]>(), 0_u8..=128).prop_map(|(address, len)| IpNet::new(address.into(), len).unwrap());
    vec(prop_oneof![v4, v6], 0..6)
}

prop_compose! {
    fn some_settings()(
        mode in prop_oneof![Just(Mode::Redirect), Just(Mode::Tproxy)],
        ports in any::<[Option<u16>; 3]>(),
        (proxy_uid, proxy_mark) in any::<(Option<u32>, Option<u32>)>(),
        exclude_uids in vec(any::<u32>(), 0..3),
        (include_inbound_ports, exclude_inbound_ports) in (some_ports(), some_ports()),
        (include_outbound_ports, exclude_outbound_ports) in (some_ports(), some_ports()),
        (include_outbound_cidrs, exclude_outbound_cidrs) in (some_networks(), some_networks()),
        exclude_interfaces in vec("[a-zA-Z0-9._:@-]{1,14}[*]?", 0..3),
        (ipv4, ipv6) in any::<(bool, bool)>(),
        table in "[a-z][a-zA-Z0-9_]{0,20}",
    ) -> CaptureSettings {
        let [inbound_port, outbound_port, dns_port] = ports;
        CaptureSettings {
            mode, inbound_port, outbound_port, dns_port, proxy_uid, proxy_mark, exclude_uids, include_inbound_ports, exclude_inbound_ports,
            include_outbound_ports, exclude_outbound_ports, include_outbound_cidrs, exclude_outbound_cidrs, exclude_interfaces, ipv4, ipv6,
            table: format!("t_{table}"), ..CaptureSettings::default()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn nftables_accepts_the_script_of_any_settings(settings in some_settings()) {
        prop_assume!(settings.faults().is_empty());
        let text = script(&settings);
        // Twice in a row, and removed twice: in one go each, as `nft -f` would.
        let whole = format!("{text}{text}{0}{0}", removal(&settings.table));
        if let Err(said) = accepted(&whole) {
            return Err(TestCaseError::fail(format!("{said}\n{text}")));
        }
    }
}
