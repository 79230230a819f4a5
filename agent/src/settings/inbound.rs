//! What comes in to the application of a sidecar, and who is let in: `inbound:`. It opens nothing.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use heddle_node::config::Section;
use heddle_xds::model::PeerMode;
use serde_json::Value;

/// Where a sidecar takes what others send to its service.
pub const DEFAULT_INBOUND: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 15_006);
/// After this long a caller is asked to connect anew, and proves anew who it is.
const DEFAULT_AGE: Duration = Duration::from_secs(3_600);
/// How long what is in flight then may take: as long as an identity lasts by default, since a tunnel that works should not be cut for its age.
const DEFAULT_GRACE: Duration = Duration::from_secs(24 * 3_600);
/// Nothing moves for this long: long enough for the keep-alives of databases and of gRPC.
const DEFAULT_IDLE: Duration = Duration::from_secs(3_600);
/// The most ports with a mode of their own.
const MAX_PORTS: usize = 256;

/// Where a sidecar takes what others send to its service, and from whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboundSettings {
    /// Where it listens.
    pub address: SocketAddr,
    /// Where others reach it, when that is not where it listens: behind mapped ports.
    pub advertise: Option<SocketAddr>,
    /// Who is let in; `None` leaves that to the control plane.
    pub mode: Option<PeerMode>,
    /// The same for single ports of the application.
    pub ports: BTreeMap<u16, PeerMode>,
    /// Whether the application is told who calls (`X-Forwarded-Client-Cert`).
    pub forward_client_cert: bool,
    /// Members of the mesh are asked to connect anew after this long.
    pub max_connection_age: Duration,
    /// How long what is in flight then may take.
    pub max_connection_age_grace: Duration,
    /// A connection or tunnel on which nothing moves for this long is closed.
    pub idle_timeout: Duration,
}

impl Default for InboundSettings {
    fn default() -> Self {
        InboundSettings {
            address: DEFAULT_INBOUND,
            advertise: None,
            mode: None,
            ports: BTreeMap::new(),
            forward_client_cert: true,
            max_connection_age: DEFAULT_AGE,
            max_connection_age_grace: DEFAULT_GRACE,
            idle_timeout: DEFAULT_IDLE,
        }
    }
}

impl InboundSettings {
    /// Where others reach it; an unspecified address where only who hears of it can tell.
    #[must_use]
    pub fn reached_at(&self) -> SocketAddr {
        self.advertise.unwrap_or(self.address)
    }

    /// Who is let in at this port of the application, where the control plane says `told`. What stands in the settings is never made laxer from afar, nor
    /// what the control plane says by the settings: of two, the safer one counts.
    #[must_use]
    pub fn let_in(&self, port: u16, told: Option<PeerMode>) -> PeerMode {
        // Nothing is less than anything: whoever says something decides alone.
        self.own_mode(port).max(told).unwrap_or_default()
    }

    /// What the settings alone say of this port.
    #[must_use]
    pub fn own_mode(&self, port: u16) -> Option<PeerMode> {
        self.ports.get(&port).copied().or(self.mode)
    }

    /// Reads `inbound:`.
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let ports = read_ports(section);
        InboundSettings {
            address: section.socket_addr("address").unwrap_or(DEFAULT_INBOUND),
            advertise: read_advertise(section),
            mode: section.choice("mode", &PeerMode::ALL),
            ports,
            forward_client_cert: section.bool("forward_client_cert").unwrap_or(true),
            max_connection_age: section.duration("max_connection_age").unwrap_or(DEFAULT_AGE),
            max_connection_age_grace: section.duration("max_connection_age_grace").unwrap_or(DEFAULT_GRACE),
            idle_timeout: section.duration("idle_timeout").unwrap_or(DEFAULT_IDLE),
        }
    }
}

fn read_advertise(section: &mut Section<'_>) -> Option<SocketAddr> {
    let at = section.socket_addr("advertise")?;
    if at.ip().is_unspecified() || at.port() == 0 {
        section.mistake("advertise", "expected the address and port by which others reach this sidecar, such as 10.0.0.7:25006");
        return None;
    }
    Some(at)
}

fn read_ports(section: &mut Section<'_>) -> BTreeMap<u16, PeerMode> {
    let expected =
        "expected at most 256 ports of the application, each with strict, permissive or disable: { \"9090\": permissive }";
    let ports = match section.value("ports") {
        None => return BTreeMap::new(),
        Some(Value::Object(ports)) if ports.len() <= MAX_PORTS => ports,
        Some(_) => {
            section.mistake("ports", expected);
            return BTreeMap::new();
        }
    };
    let mode = |value: &Value| PeerMode::named(value.as_str()?);
    let read = ports.iter().map(|(port, value)| port.parse().ok().filter(|port| *port > 0).zip(mode(value)));
    read.collect::<Option<_>>().unwrap_or_else(|| {
        section.mistake("ports", expected);
        BTreeMap::new()
    })
}
