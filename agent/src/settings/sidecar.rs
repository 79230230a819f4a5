//! What a process is in the mesh: its role, the service that it stands before, and what a sidecar opens: `role:`, `service:`, `inbound:`, `outbound:`.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use heddle_node::config::Section;
use heddle_xds::model::{Instance, MeshProtocol};
use serde_json::Value;

use super::consul::RegistrationSettings;
use super::inbound::InboundSettings;
use crate::tables::{Place, Ports};

/// The namespace of services that name none.
pub const DEFAULT_NAMESPACE: &str = "default";
/// Where captured connections arrive: the kernel turns them to this host itself.
const DEFAULT_CAPTURED: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 15_001);
/// Where names of services are answered when connections are captured.
const DEFAULT_DNS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 15_053);
/// The service of a gateway that names none.
const GATEWAY: &str = "gateway";
/// The longest label of DNS (RFC 1035 section 2.3.4): services are names there.
const MAX_LABEL: usize = 63;
/// The most labels of an instance: all other nodes hold them.
const MAX_LABELS: usize = 32;
/// The most further ports of an application, as the control plane takes them.
const MAX_FURTHER: usize = 64;
/// The longest name of DNS, as text (RFC 1035 section 2.3.4).
const MAX_NAME: usize = 253;
/// The most services with a listener of their own.
const MAX_EXPLICIT: usize = 1_024;

/// What an agent is in the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// Takes traffic from outside, by the listeners and routes of its control plane.
    #[default]
    Gateway,
    /// Stands beside one instance of a service and carries all that it sends and is sent.
    Sidecar,
}

impl Role {
    /// Its name in configuration and in xDS.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Gateway => "gateway",
            Role::Sidecar => "sidecar",
        }
    }
}

/// The service that this process is, or stands before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSettings {
    /// A label of DNS.
    pub name: Arc<str>,
    /// A label of DNS.
    pub namespace: Arc<str>,
    /// Where its application listens; `None` for what only calls others.
    pub address: Option<SocketAddr>,
    /// What the application speaks.
    pub protocol: MeshProtocol,
    /// Its further ports.
    pub ports: Vec<Place>,
    /// Version of the application, empty when not said.
    pub version: Arc<str>,
    /// Labels of the instance.
    pub labels: Vec<(Arc<str>, Arc<str>)>,
    /// How it is registered at Consul; `None`: it is not.
    pub consul: Option<RegistrationSettings>,
}

impl ServiceSettings {
    /// `<namespace>/<service>`, as the mesh names it.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// How a sidecar takes what its application sends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutboundSettings {
    /// Listeners for one service each.
    pub explicit: Vec<ExplicitSettings>,
    /// One listener for all services, by `Host`.
    pub http_proxy: Option<SocketAddr>,
    /// Whether connections of the application are captured.
    pub capture: Capture,
    /// Where captured connections arrive; `None` where none are captured.
    pub captured: Option<SocketAddr>,
    /// What becomes of captured connections to nobody that the mesh knows.
    pub other: Other,
    /// What becomes of plain requests of the HTTP proxy to nobody that the mesh knows.
    pub requests: Requests,
    /// Where names of services are answered; `None` is nowhere.
    pub dns: Option<SocketAddr>,
    /// Which names of Kubernetes are answered there.
    pub cluster_domain: ClusterDomain,
}

/// Which names of services of Kubernetes (`api.shop.svc.cluster.local`) are answered where they are services of the mesh, too.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ClusterDomain {
    /// None: the addresses of services lead nowhere where no connection is captured.
    #[default]
    Off,
    /// Those that end as the resolver of this host says.
    OfHost,
    /// Those that end so.
    Named(Arc<str>),
}

/// What becomes of captured connections to nobody that the mesh knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Other {
    /// They go where they were going, as they are.
    #[default]
    Pass,
    /// They are closed: the application may call services of the mesh only.
    Refuse,
}

/// What becomes of plain requests of the HTTP proxy to nobody that the mesh knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Requests {
    /// They are refused: a name that is wrongly spelled leads to no stranger.
    #[default]
    Refuse,
    /// They are passed on to where their host is.
    Pass,
}

/// A listener for one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplicitSettings {
    /// `<namespace>/<service>`.
    pub service: Arc<str>,
    /// The port of it that is called; `None` is the one that it has by itself.
    pub port: Option<u16>,
    /// Where it listens.
    pub listen: SocketAddr,
}

/// How connections of the application reach the sidecar without its doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Capture {
    /// Not at all.
    #[default]
    Off,
    /// By rules that rewrite the destination.
    Redirect,
    /// By rules that keep it (TPROXY).
    Tproxy,
}

/// What an agent is and opens in the mesh.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MeshSettings {
    /// What it is.
    pub role: Role,
    /// Its service; a sidecar always has one.
    pub service: Option<ServiceSettings>,
    /// Of a sidecar whose application can be called.
    pub inbound: Option<InboundSettings>,
    /// Of a sidecar; empty otherwise.
    pub outbound: OutboundSettings,
}

impl MeshSettings {
    /// What others are told of the application beside this process; `None` where it cannot be called. The control plane fills in its address.
    #[must_use]
    pub fn instance(&self) -> Option<Instance> {
        let (service, inbound) = (self.service.as_ref()?, self.inbound.as_ref()?);
        let reached = inbound.reached_at();
        let ip = reached.ip();
        Some(Instance {
            address: if ip.is_unspecified() { "".into() } else { ip.to_string().into() },
            port: reached.port(),
            protocol: service.protocol,
            ports: service.ports.iter().map(|place| (place.port, place.protocol)).collect(),
            version: service.version.clone(),
            labels: service.labels.clone(),
            draining: false,
            process: 0,
            application: service.address.map_or(0, |address| address.port()),
            is_seen: false,
        })
    }

    /// The ports of the application beside this process; `None` where it cannot be called.
    #[must_use]
    pub fn application(&self) -> Option<Ports> {
        let service = self.service.as_ref().filter(|_| self.inbound.is_some())?;
        Some(Ports::new(service.address?, service.protocol, &service.ports))
    }

    /// How this node's service is registered at Consul, when it is.
    #[must_use]
    pub fn registration(&self) -> Option<(&ServiceSettings, &RegistrationSettings)> {
        let service = self.service.as_ref()?;
        Some((service, service.consul.as_ref()?))
    }

    /// Reads `role:`, `service:`, `inbound:` and `outbound:`.
    pub(super) fn read(root: &mut Section<'_>) -> Self {
        let role = root.choice("role", &[("gateway", Role::Gateway), ("sidecar", Role::Sidecar)]).unwrap_or_default();
        if role == Role::Sidecar {
            root.require("service");
        }
        let mut service = root.optional("service", |section| read_service(section, role));
        let inbound = root.optional("inbound", InboundSettings::read);
        let namespace = service.as_ref().map_or_else(|| DEFAULT_NAMESPACE.into(), |service| service.namespace.clone());
        let outbound = root.nested("outbound", |section| OutboundSettings::read(section, &namespace));
        if role == Role::Gateway {
            for key in ["inbound", "outbound"] {
                if root.has(key) {
                    root.mistake(key, "only sidecars have it: set `role: sidecar`, or remove it");
                }
            }
            reachable(root, service.as_mut(), None);
            return Self { role, service, ..Self::default() };
        }
        let callable = service.as_ref().is_some_and(|service| service.address.is_some());
        if !callable && root.has("inbound") {
            root.mistake("inbound", "needs service.address: where the application listens");
        }
        let inbound = callable.then(|| inbound.unwrap_or_default());
        leads_on(root, service.as_ref(), inbound.as_ref());
        reachable(root, service.as_mut(), inbound.as_ref());
        Self { role, service, inbound, outbound }
    }
}

/// Refuses an application that would be the sidecar itself: what comes in would go round in circles.
fn leads_on(root: &mut Section<'_>, service: Option<&ServiceSettings>, inbound: Option<&InboundSettings>) {
    let (Some(address), Some(inbound)) = (service.and_then(|service| service.address), inbound) else { return };
    let listens = inbound.address;
    let is_there = listens.ip() == address.ip() || (listens.ip().is_unspecified() && address.ip().is_loopback());
    if is_there && listens.port() == address.port() && address.port() != 0 {
        let told =
            format!("{address} is where the sidecar itself listens (inbound.address): expected where the application listens");
        root.nested("service", |service| service.mistake("address", told));
    }
}

/// Says where others reach what is to be registered at Consul: by the listener of a sidecar, where the settings say nothing else.
fn reachable(root: &mut Section<'_>, service: Option<&mut ServiceSettings>, inbound: Option<&InboundSettings>) {
    let Some(registration) = service.and_then(|service| service.consul.as_mut()) else { return };
    let at = inbound.map(InboundSettings::reached_at);
    if registration.port == 0 {
        registration.port = at.map_or(0, |at| at.port());
    }
    if registration.address.is_none() {
        registration.address = at.map(|at| at.ip()).filter(|ip| !ip.is_unspecified()).map(|ip| ip.to_string());
    }
    if registration.port == 0 {
        let told =
            "expected the port by which others reach this node: only sidecars with a service.address have one by themselves";
        root.nested("service", |service| service.nested("consul", |consul| consul.mistake("port", told)));
    }
}

fn read_service(section: &mut Section<'_>, role: Role) -> ServiceSettings {
    if role == Role::Sidecar {
        section.require("name");
    }
    let name = label(section, "name").unwrap_or_else(|| GATEWAY.into());
    let namespace = label(section, "namespace").unwrap_or_else(|| DEFAULT_NAMESPACE.into());
    let address = section.socket_addr("address");
    let protocol = section.choice("protocol", &MeshProtocol::ALL).unwrap_or_default();
    let ports = read_further(section, address);
    let version = section.string("version").unwrap_or_default();
    if version.len() > MAX_LABEL {
        section.mistake("version", format!("expected at most {MAX_LABEL} bytes"));
    }
    let labels = read_labels(section);
    let consul = section.optional("consul", |consul| RegistrationSettings::read(consul, address)).flatten();
    ServiceSettings { name, namespace, address, protocol, ports, version: version.into(), labels, consul }
}

/// Reads `ports:`, the application's ports besides that of `address`.
fn read_further(section: &mut Section<'_>, main: Option<SocketAddr>) -> Vec<Place> {
    let read = |item: &mut Section<'_>| {
        let port = item.require("port").u16("port").filter(|port| *port > 0);
        let protocol = item.require("protocol").choice("protocol", &MeshProtocol::ALL);
        let address = item.socket_addr("address");
        let (port, protocol) = (port?, protocol?);
        Some(Place { port, address: address.or_else(|| Some(SocketAddr::new(main?.ip(), port)))?, protocol })
    };
    let ports: Vec<Place> = section.list("ports", read).unwrap_or_default().into_iter().flatten().collect();
    if main.is_none() && section.has("ports") {
        section.mistake("ports", "needs address: where the application listens where nobody names a port");
    }
    if ports.len() > MAX_FURTHER {
        section.mistake("ports", format!("expected at most {MAX_FURTHER} ports"));
    }
    let taken = |place: &Place, before: &[Place]| {
        main.is_some_and(|main| main.port() == place.port) || before.iter().any(|other| other.port == place.port)
    };
    if let Some((_, twice)) = ports.iter().enumerate().find(|(at, place)| taken(place, &ports[..*at])) {
        section.mistake("ports", format!("port {} is given twice; that of address is given by it", twice.port));
    }
    ports
}

fn read_labels(section: &mut Section<'_>) -> Vec<(Arc<str>, Arc<str>)> {
    let wrong = format!("expected at most {MAX_LABELS} texts by name, names and texts of at most {MAX_LABEL} bytes");
    let labels = match section.value("labels") {
        None => return Vec::new(),
        Some(Value::Object(labels)) if labels.len() <= MAX_LABELS => labels,
        Some(_) => {
            section.mistake("labels", wrong);
            return Vec::new();
        }
    };
    let fits = |text: &str| text.len() <= MAX_LABEL;
    let read: Option<Vec<_>> = labels
        .iter()
        .map(|(name, value)| {
            value.as_str().filter(|value| fits(name) && fits(value)).map(|value| (name.as_str().into(), value.into()))
        })
        .collect();
    read.unwrap_or_else(|| {
        section.mistake("labels", wrong);
        Vec::new()
    })
}

impl OutboundSettings {
    fn read(section: &mut Section<'_>, namespace: &str) -> Self {
        let mut explicit = section.list("explicit", |item| read_explicit(item, namespace)).unwrap_or_default();
        let http_proxy = section.socket_addr("http_proxy");
        let choices = [("off", Capture::Off), ("redirect", Capture::Redirect), ("tproxy", Capture::Tproxy)];
        let capture = section.choice("capture", &choices).unwrap_or_default();
        if explicit.len() > MAX_EXPLICIT {
            section.mistake(
                "explicit",
                format!("expected at most {MAX_EXPLICIT} services; http_proxy serves all of them on one address"),
            );
            explicit.truncate(MAX_EXPLICIT);
        }
        let captured = section.socket_addr("capture_address").unwrap_or(DEFAULT_CAPTURED);
        let dns = section.socket_addr("dns");
        let other = section.choice("other", &[("pass", Other::Pass), ("refuse", Other::Refuse)]).unwrap_or_default();
        let requests =
            section.choice("http_proxy_other", &[("refuse", Requests::Refuse), ("pass", Requests::Pass)]).unwrap_or_default();
        if requests == Requests::Pass && (http_proxy.is_none() || other == Other::Refuse) {
            section.mistake("http_proxy_other", "pass has no meaning without http_proxy, or with other: refuse");
        }
        let is_on = capture != Capture::Off;
        let cluster_domain = read_cluster_domain(section, is_on);
        if is_on && captured.port() != 0 && http_proxy == Some(captured) {
            section.mistake(
                "http_proxy",
                format!("{captured} is where captured connections arrive: set another address, or capture_address"),
            );
        }
        let explicit: Vec<ExplicitSettings> = explicit.into_iter().flatten().collect();
        let taken = |listen: SocketAddr| listen.port() != 0 && explicit.iter().filter(|other| other.listen == listen).count() > 1;
        if let Some(twice) = explicit.iter().find(|explicit| taken(explicit.listen)) {
            section.mistake("explicit", format!("{} is given twice: each service needs an address of its own", twice.listen));
        }
        if let Some(proxy) =
            http_proxy.filter(|proxy| proxy.port() != 0 && explicit.iter().any(|explicit| explicit.listen == *proxy))
        {
            section.mistake("http_proxy", format!("{proxy} is the address of a service of outbound.explicit"));
        }
        let dns = dns.or(is_on.then_some(DEFAULT_DNS));
        Self { explicit, http_proxy, capture, captured: is_on.then_some(captured), other, requests, dns, cluster_domain }
    }
}

/// Reads `dns_cluster_domain:`.
fn read_cluster_domain(section: &mut Section<'_>, is_captured: bool) -> ClusterDomain {
    let Some(text) = section.string("dns_cluster_domain") else {
        return if is_captured { ClusterDomain::OfHost } else { ClusterDomain::Off };
    };
    if text == "off" {
        return ClusterDomain::Off;
    }
    if text.len() > MAX_NAME || !text.split('.').all(is_label) {
        section.mistake(
            "dns_cluster_domain",
            format!("expected the domain of a Kubernetes (`cluster.local`) or off, found `{text:.100}`"),
        );
    }
    if !is_captured {
        section.mistake("dns_cluster_domain", "needs capture: without it the addresses of services lead nowhere");
    }
    ClusterDomain::Named(text.into())
}

fn read_explicit(section: &mut Section<'_>, namespace: &str) -> Option<ExplicitSettings> {
    let listen = section.require("listen").socket_addr("listen");
    let own = label(section, "namespace");
    let port = section.u16("port");
    let text = section.require("service").name("service")?;
    let (namespace, name) = text.split_once('/').unwrap_or((own.as_deref().unwrap_or(namespace), &text));
    if own.is_some() && text.contains('/') {
        section.mistake("namespace", "stands in `service` already: remove one of them");
    }
    if !is_name(namespace) || !is_name(name) {
        section
            .mistake("service", format!("expected a service (`api`) or a namespace and a service (`shop/api`), found `{text}`"));
        return None;
    }
    Some(ExplicitSettings { service: format!("{namespace}/{name}").into(), port, listen: listen? })
}

fn label(section: &mut Section<'_>, key: &'static str) -> Option<Arc<str>> {
    let text = section.name(key)?;
    if !is_name(&text) {
        let expected = format!(
            "expected at most {MAX_LABEL} lower-case letters, digits, underscores and inner hyphens, as it becomes a part of a host name, found `{text}`"
        );
        section.mistake(key, expected);
        return None;
    }
    Some(text.into())
}

/// A name of a service or namespace: a label of DNS in lower case, where underscores count as letters.
fn is_name(text: &str) -> bool {
    is_label(&text.replace('_', "u"))
}

/// A label of DNS in lower case, as Kubernetes wants it too.
fn is_label(text: &str) -> bool {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    !text.is_empty() && text.len() <= MAX_LABEL && text.bytes().all(allowed) && !text.starts_with('-') && !text.ends_with('-')
}
