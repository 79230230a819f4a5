//! The listeners that an agent opens by its own settings, beside those that it is told of. It opens nothing itself.

use std::net::SocketAddr;
use std::sync::Arc;

use heddle_node::identity::Identity;
use heddle_xds::model::{
    EdgeLimits, ForwardedTrust, Listener, ListenerProtocol, MESH_PREFIX, PathPolicy, ProxyProtocol, ServerHeader,
};

use crate::listener::{Entry, Inbound, Leads, Wanted};
use crate::observe::MeshStats;
use crate::settings::{Capture, ExplicitSettings, InboundSettings, MeshSettings, OutboundSettings};

/// Connections of a sidecar's own listeners: its callers are no strangers, and few share a connection where they are strangers.
const MAX_CONNECTIONS: u32 = 100_000;
/// Requests at once of one connection: all that one node asks of another goes over few connections.
const MAX_STREAMS: u32 = 512;
/// Suspicious frames per ten seconds: callers that give up reset streams.
const GLITCHES: u32 = 2_000;

/// The listener of what comes in to the application.
pub(super) fn inbound(mesh: &MeshSettings, identity: &Identity, stats: &Arc<MeshStats>) -> Option<Wanted> {
    let (settings, service) = (mesh.inbound.clone()?, mesh.service.as_ref()?);
    let limits = patient(&settings);
    let listener = Listener {
        name: format!("{MESH_PREFIX}inbound").into(),
        address: settings.address,
        protocol: ListenerProtocol::Https,
        proxy_protocol: ProxyProtocol::Off,
        forwarded: ForwardedTrust::default(),
        limits,
        paths: PathPolicy::default(),
        server_header: ServerHeader { server: None, via: None },
        expose_reason: true,
        nodes: Vec::new(),
    };
    let door = Inbound::new(identity.clone(), settings, service.address?, service.protocol, stats.clone());
    Some(Wanted { listener: Arc::new(listener), entry: Entry::Inbound(Arc::new(door)) })
}

/// The listeners of what the application sends.
pub(super) fn outbound(mesh: &MeshSettings) -> Vec<Wanted> {
    let OutboundSettings { explicit, http_proxy, capture, captured, .. } = &mesh.outbound;
    let to = |explicit: &ExplicitSettings| {
        let name = format!("{MESH_PREFIX}outbound/{}@{}", explicit.service, explicit.listen);
        (name, explicit.listen, Leads::To(explicit.service.clone()))
    };
    let mut all: Vec<_> = explicit.iter().map(to).collect();
    all.extend(http_proxy.map(|address| (format!("{MESH_PREFIX}http_proxy"), address, Leads::ByHost)));
    let is_transparent = *capture == Capture::Tproxy;
    all.extend(captured.map(|address| (format!("{MESH_PREFIX}captured"), address, Leads::Captured { is_transparent })));
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
