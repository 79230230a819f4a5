//! The configuration that an injected sidecar starts with, and the arguments of the container that sets up capture. It does not know where they are put.

use serde_json::{Value, json};

use super::annotations::{Outbound, Protocol, Wishes};
use super::settings::{Capture, InjectSettings, PROBE_PORT, SIDECAR_UID};

/// Where configuration, token and roots are mounted.
pub const FILES: &str = "/var/run/heddle";
/// Where the sidecar keeps what it holds; in memory, so that nothing of it outlives the pod.
pub const DATA: &str = "/var/lib/heddle";

/// The service that a pod is an instance of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name; its namespace is that of the pod.
    pub name: String,
    /// Where it listens in the pod; none for workloads that only call others.
    pub port: Option<u16>,
    /// How it speaks.
    pub protocol: Protocol,
}

/// The configuration as YAML. What only the running pod knows comes from its environment.
#[must_use]
pub fn sidecar(service: &Service, wishes: &Wishes, settings: &InjectSettings, checks: &[Value]) -> String {
    let mut own = json!({ "name": service.name, "namespace": "${HEDDLE_POD_NAMESPACE}" });
    if let Some(port) = service.port {
        own["address"] = format!("127.0.0.1:{port}").into();
        own["protocol"] = service.protocol.name().into();
    }
    let explicit: Vec<Value> = wishes.outbound.iter().map(explicit).collect();
    let mut probes = json!({ "port": PROBE_PORT });
    if !checks.is_empty() {
        probes["application"] = "${HEDDLE_POD_IP}".into();
        probes["checks"] = checks.into();
    }
    let mut outbound = json!({ "capture": wishes.capture.name() });
    if !explicit.is_empty() {
        outbound["explicit"] = explicit.into();
    }
    let whole = json!({
        "node": { "id": "${HEDDLE_POD_NAME}.${HEDDLE_POD_NAMESPACE}", "data_dir": DATA },
        "role": "sidecar",
        "service": own,
        "identity": { "trust_domain": wishes.trust_domain },
        "controlplane": {
            "address": settings.control_plane,
            "bundle": format!("{FILES}/root.pem"),
            "service_account_token_file": format!("{FILES}/token"),
        },
        "agent": { "workers": settings.workers, "drain_timeout": "10s", "probes": probes },
        "inbound": { "address": "0.0.0.0:15006" },
        "outbound": outbound,
        "log": { "level": wishes.log_level, "format": "json" },
    });
    // Maps of strings, numbers and lists: there is nothing that YAML cannot say.
    serde_saphyr::to_string(&whole).unwrap_or_default()
}

fn explicit(outbound: &Outbound) -> Value {
    let (service, namespace) = outbound.service.split_once('.').map_or((outbound.service.as_str(), None), |(s, n)| (s, Some(n)));
    let mut value = json!({ "service": service, "listen": format!("127.0.0.1:{}", outbound.port) });
    if let Some(namespace) = namespace {
        value["namespace"] = namespace.into();
    }
    value
}

/// What `heddle` is told in the container that sets up capture; `None` where nothing is captured.
#[must_use]
pub fn capture(wishes: &Wishes) -> Option<Vec<String>> {
    let mode = match wishes.capture {
        Capture::Off => return None,
        Capture::Redirect => "redirect",
    };
    let joined = |items: Vec<String>| items.join(",");
    let mut inbound = vec![PROBE_PORT];
    inbound.extend(wishes.exclude_inbound_ports.iter().filter(|port| **port != PROBE_PORT));
    let mut arguments: Vec<String> = ["capture", "apply", "--mode", mode, "--uid"].map(str::to_owned).to_vec();
    arguments.push(SIDECAR_UID.to_string());
    arguments.extend(["--exclude-inbound-ports".to_owned(), joined(inbound.iter().map(u16::to_string).collect())]);
    if !wishes.exclude_outbound_ports.is_empty() {
        let ports = joined(wishes.exclude_outbound_ports.iter().map(u16::to_string).collect());
        arguments.extend(["--exclude-outbound-ports".to_owned(), ports]);
    }
    if !wishes.exclude_outbound_cidrs.is_empty() {
        let networks = joined(wishes.exclude_outbound_cidrs.iter().map(ToString::to_string).collect());
        arguments.extend(["--exclude-outbound-cidrs".to_owned(), networks]);
    }
    Some(arguments)
}
