//! From configured nodes and DNS answers to endpoints: a pure function.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use heddle_xds::model;
use smallvec::{SmallVec, smallvec};

use crate::dns::Answer;

/// Addresses of one node beyond which its weight is no longer shared exactly.
const MAX_SHARES: u32 = 840;

/// Names and what is known of them; `None` while the first look-up is under way.
pub(super) type Answers = HashMap<Arc<str>, Option<Arc<Answer>>>;

/// An endpoint that should be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) host: Arc<str>,
    pub(super) address: SocketAddr,
    pub(super) fallbacks: Arc<[SocketAddr]>,
    pub(super) weight: u32,
    pub(super) priority: i32,
    pub(super) zone: Arc<str>,
    /// What discovery says of its health.
    pub(super) status: model::EndpointStatus,
    /// Place on a hash ring: the node as configured while it has one address.
    pub(super) identity: Arc<str>,
}

/// What the configuration and the answers amount to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Expanded {
    pub(super) wanted: Vec<Wanted>,
    pub(super) pending: usize,
    pub(super) unresolved: usize,
}

/// Addresses of one node; most have one.
type Ips = SmallVec<[IpAddr; 1]>;

/// A node whose addresses are known.
struct Found<'n> {
    node: &'n model::Endpoint,
    is_name: bool,
    ips: Ips,
    /// Those that connections fall back to.
    others: Ips,
}

/// All endpoints of an upstream.
///
/// A name stands for all its addresses, IPv4 before IPv6: where there are IPv4 addresses the IPv6 ones are only fallbacks of a connection. The addresses of a
/// node share its weight, so that a name with more addresses gets no more traffic than its weight says.
pub(super) fn expand(nodes: &[model::Endpoint], answers: &Answers) -> Expanded {
    let mut out = Expanded::default();
    let mut found: Vec<Found<'_>> = Vec::with_capacity(nodes.len());
    for node in nodes {
        if let Ok(ip) = node.host.parse::<IpAddr>() {
            found.push(Found { node, is_name: false, ips: smallvec![ip], others: SmallVec::new() });
            continue;
        }
        match answers.get(&node.host) {
            Some(Some(answer)) if !answer.addresses.is_empty() => {
                let (v4, v6): (Ips, Ips) = answer.addresses.iter().copied().partition(IpAddr::is_ipv4);
                let (ips, others) = if v4.is_empty() { (v6, v4) } else { (v4, v6) };
                found.push(Found { node, is_name: true, ips, others });
            }
            Some(Some(_)) => out.unresolved += 1,
            _ => out.pending += 1,
        }
    }
    let shares = found.iter().try_fold(1u32, |all, found| lcm(all, found.ips.len() as u32)).unwrap_or(1);
    out.wanted.reserve_exact(found.iter().map(|found| found.ips.len()).sum());
    for Found { node, is_name, ips, others } in found {
        // The usual list without entries is one for all.
        let fallbacks: Arc<[SocketAddr]> =
            if others.is_empty() { Arc::default() } else { others.iter().map(|ip| SocketAddr::new(*ip, node.port)).collect() };
        for ip in &ips {
            let address = SocketAddr::new(*ip, node.port);
            let identity = if is_name && ips.len() == 1 { format!("{}:{}", node.host, node.port) } else { address.to_string() };
            out.wanted.push(Wanted {
                host: node.host.clone(),
                address,
                fallbacks: fallbacks.clone(),
                weight: node.weight.saturating_mul((shares / ips.len() as u32).max(1)),
                priority: node.priority,
                zone: node.zone.clone(),
                status: node.status,
                identity: identity.into(),
            });
        }
    }
    out
}

/// All records of a discovered name, as nodes: SRV records bring port, weight and priority (lower is better there, higher here).
pub(super) fn discovered(name: &str, default_port: u16, answer: &Answer) -> Vec<model::Endpoint> {
    let (_, port) = split_port(name);
    let node =
        |host: Arc<str>, port, weight, priority| model::Endpoint { host, port, weight, priority, ..model::Endpoint::default() };
    if answer.services.is_empty() {
        let ips = answer.addresses.iter().filter(|ip| ip.is_ipv4() || !answer.addresses.iter().any(IpAddr::is_ipv4));
        return ips.map(|ip| node(ip.to_string().into(), port.unwrap_or(default_port), 1, 0)).collect();
    }
    // RFC 2782: weight 0 among others that have one means hardly any traffic; where all are 0 they are equal
    let services = answer.services.iter();
    services
        .map(|srv| node(srv.target.clone(), port.unwrap_or(srv.port), u32::from(srv.weight).max(1), -i32::from(srv.priority)))
        .collect()
}

/// Name and port of `host` or `host:port`.
pub(super) fn split_port(name: &str) -> (&str, Option<u16>) {
    match name.rsplit_once(':') {
        Some((host, port)) => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => (name, None),
        },
        None => (name, None),
    }
}

fn lcm(a: u32, b: u32) -> Option<u32> {
    fn gcd(a: u32, b: u32) -> u32 {
        if b == 0 { a } else { gcd(b, a % b) }
    }
    (a / gcd(a, b)).checked_mul(b).filter(|shares| *shares <= MAX_SHARES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::Service;

    fn node(host: &str, weight: u32) -> model::Endpoint {
        model::Endpoint { host: host.into(), port: 80, weight, ..model::Endpoint::default() }
    }

    fn answer(ips: &[&str]) -> Option<Arc<Answer>> {
        Some(Arc::new(Answer { addresses: ips.iter().filter_map(|ip| ip.parse().ok()).collect(), services: Vec::new() }))
    }

    #[test]
    fn addresses_of_a_name_share_its_weight() {
        let answers = Answers::from([("two".into(), answer(&["10.0.0.1", "10.0.0.2", "::1"])), ("late".into(), None)]);
        let out = expand(&[node("two", 3), node("10.9.9.9", 3), node("late", 1)], &answers);
        let weights: Vec<_> = out.wanted.iter().map(|w| (w.address.to_string(), w.weight, w.fallbacks.len())).collect();
        assert_eq!(
            weights,
            [("10.0.0.1:80".to_owned(), 3, 1), ("10.0.0.2:80".to_owned(), 3, 1), ("10.9.9.9:80".to_owned(), 6, 0)]
        );
        assert_eq!((out.pending, out.unresolved), (1, 0));
    }

    #[test]
    fn service_records_bring_port_weight_and_priority() {
        let service = Service { target: "a.example".into(), port: 8080, weight: 5, priority: 10 };
        let found = Answer { addresses: Vec::new(), services: vec![service] };
        let nodes = discovered("_http._tcp.example", 80, &found);
        assert_eq!((nodes[0].port, nodes[0].weight, nodes[0].priority), (8080, 5, -10));
        assert_eq!(discovered("x.example:9000", 80, &answer(&["10.0.0.1", "fe80::1"]).unwrap_or_default())[0].port, 9000);
    }
}
