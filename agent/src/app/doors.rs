//! The listeners that an agent opens by its own settings, beside those that it is told of. It opens nothing itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use heddle_node::identity::Identity;
use heddle_xds::model::{
    EdgeLimits, ForwardedTrust, Listener, ListenerProtocol, MESH_PREFIX, PathPolicy, ProxyProtocol, ServerHeader,
};

use crate::listener::{Entry, Inbound, Leads, Wanted};
use crate::observe::MeshStats;
use crate::settings::{Capture, ExplicitSettings, InboundSettings, MeshSettings, OutboundSettings};
use crate::tables::{Ports, Tables};

/// Connections of a sidecar's own listeners: its callers are no strangers, and few share a connection where they are strangers.
const MAX_CONNECTIONS: u32 = 100_000;
/// Requests at once of one connection: all that one node asks of another goes over few connections.
const MAX_STREAMS: u32 = 512;
/// Suspicious frames per ten seconds: callers that give up reset streams.
const GLITCHES: u32 = 2_000;

/// What is known of what stands behind the listeners.
pub(super) struct Behind<'a> {
    pub(super) identity: &'a Identity,
    pub(super) application: Option<Arc<Ports>>,
    pub(super) stats: &'a Arc<MeshStats>,
}

/// All of them; for both families, where this host has both.
pub(super) fn all(mesh: &MeshSettings, behind: Behind<'_>, has_ipv6: bool) -> Vec<Wanted> {
    [inbound(mesh, behind, has_ipv6), outbound(mesh, has_ipv6)].concat()
}

/// Lets in whom the control plane says.
pub(super) fn obey(own: &[Wanted], tables: &Tables) {
    for wanted in own {
        if let Entry::Inbound(door) = &wanted.entry {
            door.obey(&tables.peers);
        }
    }
}

/// The same address of IPv6, where this one is all of IPv4 or this host alone: what is captured comes by either.
pub(super) fn twin(address: SocketAddr) -> Option<SocketAddr> {
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv6Addr::UNSPECIFIED,
        IpAddr::V4(Ipv4Addr::LOCALHOST) => Ipv6Addr::LOCALHOST,
        _ => return None,
    };
    (address.port() != 0).then(|| SocketAddr::new(ip.into(), address.port()))
}

/// The listeners of what comes in to the application: for IPv6 another one, where this host has that and all its addresses are meant.
fn inbound(mesh: &MeshSettings, behind: Behind<'_>, has_ipv6: bool) -> Vec<Wanted> {
    let (Some(settings), Some(application)) = (&mesh.inbound, behind.application) else { return Vec::new() };
    let (limits, address) = (patient(settings), settings.address);
    let mut door = Inbound::new(behind.identity.clone(), settings.clone(), application, behind.stats.clone());
    door.is_transparent = mesh.outbound.capture == Capture::Tproxy;
    let entry = Entry::Inbound(Arc::new(door));
    let other = twin(address).filter(|_| has_ipv6 && address.ip().is_unspecified());
    let listener = |(name, address): (&str, SocketAddr)| Listener {
        name: format!("{MESH_PREFIX}{name}").into(),
        address,
        protocol: ListenerProtocol::Https,
        proxy_protocol: ProxyProtocol::Off,
        forwarded: ForwardedTrust::default(),
        limits: limits.clone(),
        paths: PathPolicy::default(),
        server_header: ServerHeader { server: None, via: None },
        expose_reason: true,
        nodes: Vec::new(),
        tcp: Vec::new(),
    };
    let all = [("inbound", address)].into_iter().chain(other.map(|other| ("inbound6", other)));
    all.map(|door| Wanted { listener: Arc::new(listener(door)), entry: entry.clone() }).collect()
}

/// The listeners of what the application sends; captured connections have one for each family that this host has.
fn outbound(mesh: &MeshSettings, has_ipv6: bool) -> Vec<Wanted> {
    let OutboundSettings { explicit, http_proxy, capture, captured, .. } = &mesh.outbound;
    let to = |explicit: &ExplicitSettings| {
        let port = explicit.port.map(|port| format!(":{port}")).unwrap_or_default();
        let name = format!("{MESH_PREFIX}outbound/{}{port}@{}", explicit.service, explicit.listen);
        (name, explicit.listen, Leads::To(explicit.service.clone(), explicit.port))
    };
    let mut all: Vec<_> = explicit.iter().map(to).collect();
    all.extend(http_proxy.map(|address| (format!("{MESH_PREFIX}http_proxy"), address, Leads::ByHost)));
    let is_transparent = *capture == Capture::Tproxy;
    let leads = || Leads::Captured { is_transparent };
    all.extend(captured.map(|address| (format!("{MESH_PREFIX}captured"), address, leads())));
    let other = captured.and_then(twin).filter(|_| has_ipv6);
    all.extend(other.map(|address| (format!("{MESH_PREFIX}captured6"), address, leads())));
    let listener = |(name, address, leads): (String, SocketAddr, Leads)| {
        let listener = Listener {
            name: name.into(),
            address,
            protocol: ListenerProtocol::Http,
            proxy_protocol: ProxyProtocol::Off,
            forwarded: ForwardedTrust::default(),
            limits: patient(&InboundSettings::default()),
            paths: PathPolicy::default(),
            server_header: ServerHeader { server: None, via: None },
            expose_reason: true,
            nodes: Vec::new(),
            tcp: Vec::new(),
        };
        Wanted { listener: Arc::new(listener), entry: Entry::Outbound(leads) }
    };
    all.into_iter().map(listener).collect()
}

/// A sidecar sets no limits of time that its application does not set.
fn patient(settings: &InboundSettings) -> EdgeLimits {
    EdgeLimits {
        idle_timeout: settings.idle_timeout,
        body_timeout: settings.idle_timeout,
        send_timeout: settings.idle_timeout,
        max_connections: MAX_CONNECTIONS,
        max_streams: MAX_STREAMS,
        glitch_budget: GLITCHES,
        ..EdgeLimits::default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_address_that_stands_for_more_than_itself_has_a_twin_of_ipv6() {
        for (address, expected) in [
            ("127.0.0.1:15001", Some("[::1]:15001")),
            ("0.0.0.0:15006", Some("[::]:15006")),
            ("127.0.0.1:0", None),
            ("10.0.0.1:15001", None),
            ("[::1]:15001", None),
        ] {
            assert_eq!(twin(address.parse().unwrap()), expected.map(|text| text.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn what_is_captured_is_taken_by_both_families() {
        let captured = Some("127.0.0.1:15001".parse().unwrap());
        let outbound = OutboundSettings { capture: Capture::Redirect, captured, ..OutboundSettings::default() };
        let mesh = MeshSettings { outbound, ..MeshSettings::default() };
        let addresses = |has_ipv6| -> Vec<String> {
            super::outbound(&mesh, has_ipv6).iter().map(|wanted| wanted.listener.address.to_string()).collect()
        };
        assert_eq!(addresses(true), ["127.0.0.1:15001", "[::1]:15001"]);
        assert_eq!(addresses(false), ["127.0.0.1:15001"]);
    }
}
