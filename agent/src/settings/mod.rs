//! What an agent is told in `heddle.yaml`. Each setting has a default with its reason; mistakes are collected, none is fatal by itself.

mod consul;
mod control;
mod inbound;
mod probes;
mod sidecar;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use heddle_node::config::Section;
use heddle_node::consul::ConsulSettings;

pub use consul::{ApplicationCheck, RegistrationSettings, is_meta_name};
pub use control::{
    ControlPlaneAccess, ControlPlaneAddress, DEFAULT_CONTROL_PLANE, IdentitySettings, ProofSettings, Served, WorkloadApiSettings,
};
pub use inbound::{DEFAULT_INBOUND, InboundSettings};
pub use probes::{CheckProtocol, CheckSettings, ProbeSettings};
pub use sidecar::{
    Capture, ClusterDomain, DEFAULT_NAMESPACE, ExplicitSettings, MeshSettings, Other, OutboundSettings, Requests, Role,
    ServiceSettings,
};

/// Where the agent's own endpoint listens when nothing is said; loopback, because it can drain the node.
pub const DEFAULT_ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 15_000);
/// More workers than any machine has cores; a larger number is a slip of the finger.
const MAX_WORKERS: u32 = 1024;
/// How long requests in flight may take once a drain has begun.
const DEFAULT_DRAIN: Duration = Duration::from_secs(30);

/// What an agent is told.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentSettings {
    /// Data-plane threads, each on a core of its own.
    pub workers: usize,
    /// Where `/ready`, `/metrics`, `/config_dump` and `/drain` are.
    pub admin: SocketAddr,
    /// Where those are answered who may only ask; none by default.
    pub probes: Option<ProbeSettings>,
    /// How long requests in flight may take once a drain has begun.
    pub drain_timeout: Duration,
    /// How long `/ready` says "draining" before new connections are refused, so that load balancers in front can react.
    pub drain_delay: Duration,
    /// Where the control plane is; used by `heddle agent`.
    pub control_plane: ControlPlaneAccess,
    /// Where the identity comes from, and whom it is handed to.
    pub identity: IdentitySettings,
    /// What this process is in the mesh.
    pub mesh: MeshSettings,
    /// How the Consul of this host is reached; asked only where the service is to be registered.
    pub consul: ConsulSettings,
    /// The access log; `None` is off.
    pub access_log: Option<AccessLogSettings>,
    /// Servers to ask for names instead of the system's.
    pub resolvers: Vec<SocketAddr>,
}

/// The access log; by default JSON lines on standard output.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessLogSettings {
    /// File; standard output when `None`.
    pub path: Option<PathBuf>,
    /// Template with variables; JSON lines when `None`.
    pub format: Option<String>,
}

impl AgentSettings {
    /// Reads `agent:`, `controlplane:`, `identity:`, what belongs to the mesh, `consul:` and `access_log:`. `cores` is the default number of workers.
    pub fn read(root: &mut Section<'_>, cores: usize) -> AgentSettings {
        let (workers, admin, drain_timeout, drain_delay, resolvers) = root.nested("agent", |agent| {
            (
                agent.count("workers", 1..=MAX_WORKERS).unwrap_or(cores),
                agent.socket_addr("admin").unwrap_or(DEFAULT_ADMIN),
                agent.duration("drain_timeout").unwrap_or(DEFAULT_DRAIN),
                agent.duration("drain_delay").unwrap_or(Duration::ZERO),
                agent.parsed_list("resolvers", "an address such as 10.0.0.2:53", |text| text.parse().ok()).unwrap_or_default(),
            )
        });
        let identity = root.nested("identity", IdentitySettings::read);
        let control_plane = root.nested("controlplane", |section| {
            let access = ControlPlaneAccess::read(section);
            if access.address.tls && identity.sds.is_none() {
                // Without roots, whoever answers there would be believed.
                section.require("bundle");
            }
            access
        });
        let mesh = MeshSettings::read(root);
        let consul = root.nested("consul", ConsulSettings::read);
        if consul.addresses.len() > 1 && mesh.registration().is_some() {
            root.nested("consul", |consul| {
                consul.mistake("addresses", "a service is registered at one agent, the one of its host: name it with `address`");
            });
        }
        let probes = root.nested("agent", |agent| agent.optional("probes", ProbeSettings::read).flatten());
        let access_log = root.nested("access_log", |log| {
            let enabled = log.bool("enabled");
            let path = log.path("path");
            let format = log.string("format").filter(|format| format != "json");
            (enabled.unwrap_or(true)).then_some(AccessLogSettings { path, format })
        });
        AgentSettings {
            workers,
            admin,
            probes,
            drain_timeout,
            drain_delay,
            control_plane,
            identity,
            mesh,
            consul,
            access_log,
            resolvers,
        }
    }
}

#[cfg(test)]
mod tests;
