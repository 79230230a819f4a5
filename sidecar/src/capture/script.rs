//! From settings to the text of one nftables script. It is a function of values: nothing is run here.
//!
//! A script makes our table, empties and fills it in one transaction, so that it may be applied over itself or over an older one, and is never half there.
//! Every chain lets pass what is not ours to take (`accept` ends a chain of ours, not those of others) and takes the rest.

use std::fmt::Display;

use ipnet::IpNet;

use super::settings::{CaptureSettings, Mode, Ports, ROUTING_ID};

/// Priority of the chains that translate addresses: just before everybody's (`dstnat`, -100), so that a container's own rules for names come after ours.
const NAT: i32 = -105;
/// Priority of the chains that mark and hand over packets: `mangle`, when connections are tracked already.
const MANGLE: i32 = -150;
/// How what a table says of itself begins.
const COMMENT: &str = "heddle capture, generation";
/// What a chain that marks packets, which need their policy routing, says of itself.
pub(super) const MARKS: &str = "type route ";
/// Where names are asked for (RFC 1035 section 4.2).
const DNS: u16 = 53;
/// The first packet of a connection.
const FIRST: &str = "tcp flags & (fin | syn | rst | ack) == syn";
/// Any other. Connections that are older than the rules stay as they are: where the kernel begins to track connections only now, they look new to it.
const LATER: &str = "tcp flags & (fin | syn | rst | ack) != syn accept";
/// Only TCP can be turned and told its old destination.
const OTHER_PROTOCOLS: &str = "meta l4proto != tcp accept";
/// Link-local addresses mean something on one link only, which a proxy does not know of.
const LINK_LOCAL: &str = "ip6 daddr fe80::/10 accept";

/// The script for `settings`.
#[must_use]
pub fn script(settings: &CaptureSettings) -> String {
    let (table, chains) = (&settings.table, chains(settings).concat());
    format!("{}table inet {table} {{\n\tcomment \"{}\"\n{chains}}}\n", removal(table), comment(settings))
}

/// The script that removes our table, whether it is there or not.
#[must_use]
pub fn removal(table: &str) -> String {
    format!("table inet {table}\ndelete table inet {table}\n")
}

/// What the table says of itself: which rules it has.
#[must_use]
pub fn comment(settings: &CaptureSettings) -> String {
    format!("{COMMENT} {:016x}", fnv(chains(settings).concat().as_bytes()))
}

/// Whether a table, as nft lists it, is one that we have made: no other says so of itself.
pub(super) fn is_ours(table: &str) -> bool {
    tables_of_ours(table).next().is_some()
}

/// The tables that we have made, with their names, of all that nft lists.
pub(super) fn tables_of_ours(ruleset: &str) -> impl Iterator<Item = (&str, &str)> {
    let tables = ruleset.split("\n}").filter_map(|text| {
        let name = text.trim_start().strip_prefix("table inet ")?.split_once(" {")?.0;
        Some((name, text))
    });
    // Before the first of its chains and sets a table speaks of itself; a rule or a set may say what it likes.
    let of_itself = |text: &str| {
        text.lines()
            .skip_while(|line| !line.starts_with("table "))
            .skip(1)
            .take_while(|line| !line.ends_with('{'))
            .any(|line| line.trim_start().starts_with("comment \"") && line.contains(COMMENT))
    };
    tables.filter(move |(_, text)| of_itself(text))
}

/// FNV-1a (draft-eastlake-fnv): the same on every build, and nobody gains by a collision.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn chains(settings: &CaptureSettings) -> Vec<String> {
    match settings.mode {
        Mode::Redirect => {
            let arriving =
                settings.inbound_port.map(|port| chain("inbound", "nat", "prerouting", NAT, redirected_in(settings, port)));
            arriving.into_iter().chain([chain("outbound", "nat", "output", NAT, redirected_out(settings))]).collect()
        }
        Mode::Tproxy => {
            let mut chains = vec![chain("inbound", "filter", "prerouting", MANGLE, handed_over(settings))];
            if settings.outbound_port.is_some() {
                chains.push(chain("outbound", "route", "output", MANGLE, marked(settings)));
            }
            if settings.dns_port.is_some() {
                chains.push(chain("names", "nat", "output", NAT, [sender(settings), questions(settings)].concat()));
            }
            chains
        }
    }
}

fn chain(name: &str, kind: &str, hook: &str, priority: i32, rules: Vec<String>) -> String {
    let rules: String = rules.iter().map(|rule| format!("\t\t{rule}\n")).collect();
    format!("\n\tchain {name} {{\n\t\ttype {kind} hook {hook} priority {priority}; policy accept;\n{rules}\t}}\n")
}

/// Redirect, from elsewhere to this host.
fn redirected_in(settings: &CaptureSettings, port: u16) -> Vec<String> {
    let mut rules = vec![OTHER_PROTOCOLS.to_owned(), LATER.to_owned()];
    rules.extend(not_inbound(settings));
    rules.push(format!("meta l4proto tcp redirect to :{port}"));
    rules
}

/// Redirect, from this host to elsewhere.
fn redirected_out(settings: &CaptureSettings) -> Vec<String> {
    let mut rules = [sender(settings), questions(settings)].concat();
    if let Some(port) = settings.outbound_port {
        rules.extend(not_outbound(settings));
        rules.push(format!("meta l4proto tcp redirect to :{port}"));
    }
    rules
}

/// TPROXY: what is on its way out comes by marked over loopback; what comes in is for this host. What the agent does not take is refused, not let through.
fn handed_over(settings: &CaptureSettings) -> Vec<String> {
    let take = |from: &str, port: u16| {
        [("ipv4", "ip", "127.0.0.1"), ("ipv6", "ip6", "[::1]")].map(|(family, kind, loopback)| {
            format!("{from}meta nfproto {family} meta l4proto tcp tproxy {kind} to {loopback}:{port} accept")
        })
    };
    let mut rules = vec![OTHER_PROTOCOLS.to_owned()];
    if let Some(port) = settings.outbound_port {
        let from = format!("iifname \"lo\" meta mark {ROUTING_ID:#x} ");
        rules.extend(take(&from, port));
        rules.push(format!("{from}meta l4proto tcp reject with tcp reset"));
    }
    if let Some(port) = settings.inbound_port {
        rules.push("ct direction reply accept".to_owned());
        rules.extend(not_inbound(settings));
        rules.extend(take("", port));
        rules.push(format!("{FIRST} reject with tcp reset"));
    }
    rules
}

/// TPROXY, from this host to elsewhere: a connection is judged by its first packet, and remembered by its mark in connection tracking.
fn marked(settings: &CaptureSettings) -> Vec<String> {
    let mark = format!("meta mark set {ROUTING_ID:#x}");
    let mut rules = vec![
        OTHER_PROTOCOLS.to_owned(),
        "ct direction reply accept".to_owned(),
        format!("ct mark {ROUTING_ID:#x} {mark} accept"),
    ];
    rules.extend(sender(settings));
    rules.extend(settings.dns_port.map(|_| format!("tcp dport {DNS} accept")));
    rules.extend(not_outbound(settings));
    rules.push(format!("ct mark set {ROUTING_ID:#x} {mark}"));
    rules
}

/// What of the TCP that arrives is not taken: all but what comes from elsewhere to an address of this host and a port that is captured.
fn not_inbound(settings: &CaptureSettings) -> Vec<String> {
    let mut rules = vec!["iifname \"lo\" accept".to_owned()];
    rules.extend(interfaces(settings, "iifname"));
    rules.extend(families(settings));
    rules.push("fib daddr type != local accept".to_owned());
    let own = [settings.inbound_port, settings.outbound_port, settings.dns_port].into_iter().flatten().map(Ports::from);
    rules.extend(pass_those("tcp dport", &merged(own.chain(settings.exclude_inbound_ports.iter().copied()))));
    rules.extend(pass_others("tcp dport", &merged(settings.include_inbound_ports.iter().copied())));
    rules
}

/// Whose traffic passes: the agent's, and that of those who are excluded by user, interface or family.
fn sender(settings: &CaptureSettings) -> Vec<String> {
    let mut rules = families(settings);
    rules.extend(settings.proxy_mark.map(|mark| format!("meta mark {mark:#x} accept")));
    let mut users: Vec<u32> = settings.proxy_uid.into_iter().chain(settings.exclude_uids.iter().copied()).collect();
    users.sort_unstable();
    users.dedup();
    rules.extend(pass_those("meta skuid", &users));
    rules.extend(interfaces(settings, "oifname"));
    rules
}

/// Questions for names are taken wherever they go, to a resolver on this host as well.
fn questions(settings: &CaptureSettings) -> Vec<String> {
    let taken = |port| ["udp", "tcp"].map(|protocol| format!("{protocol} dport {DNS} redirect to :{port}")).to_vec();
    settings.dns_port.map(taken).unwrap_or_default()
}

/// Where the application's TCP passes to: this host itself, and what the lists leave out.
fn not_outbound(settings: &CaptureSettings) -> Vec<String> {
    let fixed = [OTHER_PROTOCOLS, LATER, "fib daddr type local accept", LINK_LOCAL];
    let mut rules: Vec<String> = fixed.map(str::to_owned).to_vec();
    rules.extend(pass_those("tcp dport", &merged(settings.exclude_outbound_ports.iter().copied())));
    rules.extend(pass_others("tcp dport", &merged(settings.include_outbound_ports.iter().copied())));
    for (family, address, is_v4) in [("ipv4", "ip daddr", true), ("ipv6", "ip6 daddr", false)] {
        let of = |list: &[IpNet]| -> Vec<IpNet> {
            let list: Vec<IpNet> = list.iter().filter(|net| matches!(net, IpNet::V4(_)) == is_v4).map(IpNet::trunc).collect();
            IpNet::aggregate(&list)
        };
        let all = |list: &[IpNet]| list.iter().any(|net| net.prefix_len() == 0);
        let (include, exclude) = (of(&settings.include_outbound_cidrs), of(&settings.exclude_outbound_cidrs));
        if all(&exclude) || (include.is_empty() && !settings.include_outbound_cidrs.is_empty()) {
            rules.push(format!("meta nfproto {family} accept"));
        } else {
            rules.extend(pass_those(address, &exclude));
            rules.extend(if all(&include) { None } else { pass_others(address, &include) });
        }
    }
    rules
}

fn families(settings: &CaptureSettings) -> Vec<String> {
    let off = [("ipv4", settings.ipv4), ("ipv6", settings.ipv6)].into_iter().filter(|(_, on)| !on);
    off.map(|(family, _)| format!("meta nfproto {family} accept")).collect()
}

fn interfaces(settings: &CaptureSettings, key: &str) -> Vec<String> {
    settings.exclude_interfaces.iter().map(|name| format!("{key} \"{name}\" accept")).collect()
}

/// A rule that lets pass what is in the list, unless that is empty.
fn pass_those(key: &str, list: &[impl Display]) -> Option<String> {
    (!list.is_empty()).then(|| format!("{key} {{ {} }} accept", joined(list)))
}

/// A rule that lets pass what is not in the list, unless that is empty.
fn pass_others(key: &str, list: &[impl Display]) -> Option<String> {
    (!list.is_empty()).then(|| format!("{key} != {{ {} }} accept", joined(list)))
}

fn joined(list: &[impl Display]) -> String {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Ranges that do not touch: sets of nftables refuse those that overlap.
fn merged(ports: impl Iterator<Item = Ports>) -> Vec<Ports> {
    let mut sorted: Vec<Ports> = ports.collect();
    sorted.sort_unstable();
    let mut out: Vec<Ports> = Vec::new();
    for ports in sorted {
        match out.last_mut() {
            Some(last) if u32::from(ports.first) <= u32::from(last.last) + 1 => last.last = last.last.max(ports.last),
            _ => out.push(ports),
        }
    }
    out
}
