//! The configuration that an injected sidecar starts with, and the arguments of the container that sets up capture. It does not know where they are put.

use ipnet::IpNet;
use serde_json::{Value, json};

use super::annotations::{Bind, Outbound, Protocol, Wishes};
use super::ports::Further;
use super::settings::{Capture, InjectSettings, PROBE_PORT, SIDECAR_UID};

/// Where configuration, token and roots are mounted.
pub const FILES: &str = "/var/run/heddle";
/// Where the sidecar keeps what it holds; in memory, so that nothing of it outlives the pod.
pub const DATA: &str = "/var/lib/heddle";

/// How long requests in flight may take when the pod ends: a little less than the 30 s that Kubernetes gives it by default.
const DRAIN: &str = "25s";

/// The service that a pod is an instance of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name; its namespace is that of the pod.
    pub name: String,
    /// Where it listens in the pod; none for workloads that only call others.
    pub port: Option<u16>,
    /// How it speaks.
    pub protocol: Protocol,
    /// Its further ports.
    pub further: Vec<Further>,
    /// The ports that Services lead to it, as they are kept in an annotation; empty for none.
    pub of_services: String,
}

fn further(one: &Further, host: &str) -> Value {
    let mut port = json!({ "port": one.port, "protocol": one.protocol.name() });
    if one.application != one.port {
        port["address"] = format!("{host}:{}", one.application).into();
    }
    port
}

/// The address of the pod at which the application listens; brackets, since it may be one of either family.
fn host(bind: Bind) -> &'static str {
    match bind {
        Bind::Loopback => "127.0.0.1",
        Bind::Pod => "[${HEDDLE_POD_IP}]",
    }
}

/// The configuration as YAML. What only the running pod knows comes from its environment.
#[must_use]
pub fn sidecar(service: &Service, wishes: &Wishes, settings: &InjectSettings, checks: &[Value]) -> String {
    let mut own = json!({ "name": service.name, "namespace": "${HEDDLE_POD_NAMESPACE}" });
    if let Some(port) = service.port {
        own["address"] = format!("{}:{port}", host(wishes.bind)).into();
        own["protocol"] = service.protocol.name().into();
        let further: Vec<Value> = service.further.iter().map(|one| further(one, host(wishes.bind))).collect();
        if !further.is_empty() {
            own["ports"] = further.into();
        }
    }
    let explicit: Vec<Value> = wishes.outbound.iter().map(Outbound::to_value).collect();
    let mut probes = json!({ "port": PROBE_PORT });
    if !checks.is_empty() {
        probes["application"] = "${HEDDLE_POD_IP}".into();
        probes["checks"] = checks.into();
    }
    let mut outbound = json!({ "capture": wishes.capture.name() });
    if !explicit.is_empty() {
        outbound["explicit"] = explicit.into();
    }
    // Without capture no name leads to the addresses of services.
    if let Some(domain) = wishes.dns_cluster_domain.as_ref().filter(|_| wishes.capture != Capture::Off) {
        outbound["dns_cluster_domain"] = domain.as_str().into();
    }
    let mut whole = json!({
        "node": { "id": "${HEDDLE_POD_NAME}.${HEDDLE_POD_NAMESPACE}", "data_dir": DATA },
        "role": "sidecar",
        "service": own,
        "controlplane": {
            "address": settings.control_plane,
            "bundle": format!("{FILES}/root.pem"),
            "service_account_token_file": format!("{FILES}/token"),
        },
        "agent": { "workers": settings.workers, "drain_timeout": DRAIN, "probes": probes },
        "outbound": outbound,
        "log": { "level": wishes.log_level, "format": "json" },
    });
    if service.port.is_some() {
        whole["inbound"] = json!({ "address": "0.0.0.0:15006" });
        if let Some(mode) = wishes.mode {
            whole["inbound"]["mode"] = mode.into();
        }
    }
    if let Some(domain) = &wishes.trust_domain {
        whole["identity"] = json!({ "trust_domain": domain });
    }
    // Maps of strings, numbers and lists: there is nothing that YAML cannot say.
    serde_saphyr::to_string(&whole).unwrap_or_default()
}

/// What `heddle` is told in the container that sets up capture; `None` where nothing is captured.
#[must_use]
pub fn capture(wishes: &Wishes, service: &Service) -> Option<Vec<String>> {
    let ports = (&*wishes.exclude_inbound_ports, &*wishes.exclude_outbound_ports);
    let mut arguments = arguments(wishes.capture, ports.0, ports.1, &wishes.exclude_outbound_cidrs)?;
    if service.port.is_none() {
        // The sidecar listens for nobody then, and ports that the pod does not declare stay reachable.
        arguments.extend(["--inbound-port".to_owned(), "off".to_owned()]);
    }
    Some(arguments)
}

/// What the file of a sidecar says of capture, beside its mode, with further inbound ports that are not captured; `None` where nothing is.
#[must_use]
pub fn capture_section(settings: &InjectSettings, spared: &[u16]) -> Option<Value> {
    if settings.capture == Capture::Off {
        return None;
    }
    let inbound: Vec<u16> = settings.exclude_inbound_ports.iter().chain(spared).copied().collect();
    let mut section = json!({ "exclude_inbound_ports": spared_inbound(&inbound) });
    if !settings.exclude_outbound_ports.is_empty() {
        section["exclude_outbound_ports"] = json!(settings.exclude_outbound_ports);
    }
    if !settings.exclude_outbound_cidrs.is_empty() {
        let networks: Vec<String> = settings.exclude_outbound_cidrs.iter().map(ToString::to_string).collect();
        section["exclude_outbound_cidrs"] = json!(networks);
    }
    Some(section)
}

/// These ports, and that of the sidecar's probes.
fn spared_inbound(ports: &[u16]) -> Vec<u16> {
    [PROBE_PORT].into_iter().chain(ports.iter().copied().filter(|port| *port != PROBE_PORT)).collect()
}

fn arguments(capture: Capture, inbound: &[u16], outbound: &[u16], networks: &[IpNet]) -> Option<Vec<String>> {
    let mode = match capture {
        Capture::Off => return None,
        Capture::Redirect => "redirect",
    };
    let ports = |ports: &[u16]| ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
    let mut arguments: Vec<String> = ["capture", "apply", "--mode", mode, "--uid"].map(str::to_owned).to_vec();
    arguments.push(SIDECAR_UID.to_string());
    arguments.extend(["--exclude-inbound-ports".to_owned(), ports(&spared_inbound(inbound))]);
    if !outbound.is_empty() {
        arguments.extend(["--exclude-outbound-ports".to_owned(), ports(outbound)]);
    }
    if !networks.is_empty() {
        let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
        arguments.extend(["--exclude-outbound-cidrs".to_owned(), networks.join(",")]);
    }
    Some(arguments)
}
