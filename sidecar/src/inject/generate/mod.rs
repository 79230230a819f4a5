//! Sidecars outside of Kubernetes: what is written for systemd, Nomad and Consul. It starts nothing and reads no file.

mod consul;
mod nomad;
mod systemd;

#[cfg(test)]
mod tests;

use serde_json::{Value, json};

pub use consul::{consul, without_consul};
pub use nomad::{nomad, without_nomad};
pub use systemd::{UnitFile, systemd, without_systemd};

use super::annotations::{Outbound, Protocol, is_label, outbound_of, trust_domain};
use super::configuration::capture_section;
use super::settings::{InjectSettings, PROBE_PORT};

/// The port at which sidecars are reached.
const INBOUND_PORT: u16 = 15_006;

/// The service, where the file of an orchestrator does not name it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceWishes {
    /// Its name.
    pub service: Option<String>,
    /// Its namespace.
    pub namespace: String,
    /// Where the application listens.
    pub port: Option<u16>,
    /// How it speaks.
    pub protocol: Option<String>,
    /// What it calls, each with a local port: `api:9001`.
    pub outbound: Vec<String>,
}

/// A service that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    name: String,
    namespace: String,
    port: Option<u16>,
    protocol: Protocol,
    outbound: Vec<Outbound>,
}

/// Where a sidecar has what it needs, as its configuration says it.
#[derive(Debug, Clone, Copy)]
struct Spots<'s> {
    /// Its node id.
    node: &'s str,
    /// The way to the join token.
    proof: &'s str,
    /// The way to the roots.
    bundle: &'s str,
    /// The way to what it keeps.
    data: &'s str,
    /// Where others reach it, when that is not where it listens.
    advertise: Option<&'s str>,
    /// Ports of its host that are never captured, beside those of the settings; none where capture is not set up by its file.
    spared: Option<&'s [u16]>,
}

impl ServiceWishes {
    /// What is wished, else what the file says.
    fn known(&self, name: Option<&str>, port: Option<u16>) -> Result<Known, String> {
        let name = self.service.as_deref().or(name).ok_or("expected the name of the service; say --service NAME")?;
        for (what, label) in [("service", name), ("namespace", self.namespace.as_str())] {
            if !is_label(label) {
                return Err(format!("{what}: expected a DNS label of at most 63 characters, found `{label}`; say --{what} NAME"));
            }
        }
        let protocol = match &self.protocol {
            None => Protocol::Auto,
            Some(text) => Protocol::parse(text)
                .ok_or(format!("protocol: expected `http`, `http2`, `grpc`, `tcp` or `auto`, found `{text}`"))?,
        };
        let read = |item: &String| {
            outbound_of(item).ok_or(format!("outbound: expected a service with a local port such as api:9001, found `{item}`"))
        };
        let outbound = self.outbound.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Known { name: name.to_owned(), namespace: self.namespace.clone(), port: self.port.or(port), protocol, outbound })
    }
}

impl Known {
    /// The sidecar's configuration.
    fn configuration(&self, settings: &InjectSettings, spots: Spots<'_>) -> String {
        let mut service = json!({ "name": self.name, "namespace": self.namespace });
        if let Some(port) = self.port {
            service["address"] = format!("127.0.0.1:{port}").into();
            service["protocol"] = self.protocol.name().into();
        }
        let explicit: Vec<Value> = self.outbound.iter().map(Outbound::to_value).collect();
        let mut outbound = json!({ "capture": settings.capture.name() });
        if !explicit.is_empty() {
            outbound["explicit"] = explicit.into();
        }
        let mut identity = json!({ "persist": true });
        if let Some(domain) = settings.trust_domain.as_ref().filter(|domain| trust_domain(domain).is_some()) {
            identity["trust_domain"] = domain.as_str().into();
        }
        let mut whole = json!({
            "node": { "id": spots.node, "data_dir": spots.data },
            "role": "sidecar",
            "service": service,
            // A join token is good once, so the identity is kept for restarts.
            "identity": identity,
            "controlplane": { "address": settings.control_plane, "token_file": spots.proof, "bundle": spots.bundle },
            "agent": { "workers": settings.workers, "probes": { "port": PROBE_PORT } },
            "outbound": outbound,
            "log": { "level": settings.log_level },
        });
        if let Some(capture) = spots.spared.and_then(|spared| capture_section(settings, spared)) {
            whole["capture"] = capture;
        }
        if self.port.is_some() {
            whole["inbound"] = json!({ "address": format!("0.0.0.0:{INBOUND_PORT}") });
            if let Some(advertise) = spots.advertise {
                whole["inbound"]["advertise"] = advertise.into();
            }
        }
        // Maps of strings, numbers and lists: there is nothing that YAML cannot say.
        serde_saphyr::to_string(&whole).unwrap_or_default()
    }
}
