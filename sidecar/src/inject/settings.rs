//! What an injection is told by its operator: image, control plane, defaults of what annotations may override. It knows no workload.

use ipnet::IpNet;
use serde_json::{Value, json};

/// The user and group that the sidecar runs as. Capture lets the traffic of this user pass, so no application may be this user.
pub const SIDECAR_UID: u32 = 1337;
/// Whom the sidecar's service-account token is meant for; a token for the API server proves nothing here, and this one nothing there.
pub const TOKEN_AUDIENCE: &str = "heddle";
/// Seconds for which such a token is good. The kubelet renews it after four fifths; ten minutes is the least that Kubernetes gives.
pub const TOKEN_SECONDS: u32 = 3600;
/// Where the sidecar answers the kubelet: readiness, liveness and the application's own probes; nothing that changes anything.
pub const PROBE_PORT: u16 = 15_021;
/// The ports of a sidecar, which no application of the pod may use.
pub const SIDECAR_PORTS: [u16; 5] = [15_000, 15_001, 15_006, PROBE_PORT, 15_053];

/// What an injection is told.
#[derive(Debug, Clone, PartialEq)]
pub struct InjectSettings {
    /// The image with the `heddle` binary.
    pub image: String,
    /// `Always`, `IfNotPresent` or `Never`; Kubernetes' own default when absent.
    pub image_pull_policy: Option<String>,
    /// The trust domain of the identities; that of the roots when absent.
    pub trust_domain: Option<String>,
    /// Where sidecars find their control plane.
    pub control_plane: String,
    /// The roots by which they know it.
    pub bundle: Bundle,
    /// Whether traffic is captured.
    pub capture: Capture,
    /// What the sidecar may use.
    pub resources: Resources,
    /// Threads that carry traffic; two, because a sidecar shares its node with many.
    pub workers: u32,
    /// The sidecar's log level.
    pub log_level: String,
    /// Inbound ports that are not captured in any workload.
    pub exclude_inbound_ports: Vec<u16>,
    /// Destination ports that are not captured in any workload.
    pub exclude_outbound_ports: Vec<u16>,
    /// Destinations that are not captured in any workload.
    pub exclude_outbound_cidrs: Vec<IpNet>,
}

/// How a sidecar gets the roots of its trust domain before it has an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bundle {
    /// PEM, carried by an annotation of the pod.
    Inline(String),
    /// The key `root.pem` of a config map in the namespace of the workload.
    ConfigMap(String),
}

/// Whether and how traffic is captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capture {
    /// The application speaks to the sidecar by itself.
    Off,
    /// By nftables' `redirect`.
    Redirect,
}

impl Capture {
    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Capture::Off => "off",
            Capture::Redirect => "redirect",
        }
    }
}

/// Kubernetes quantities; a limit that is absent is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resources {
    /// Share of cores that is set aside.
    pub cpu_request: String,
    /// Most cores. None by default: a proxy that is throttled delays every request.
    pub cpu_limit: Option<String>,
    /// Memory that is set aside.
    pub memory_request: String,
    /// Most memory.
    pub memory_limit: Option<String>,
}

impl Default for InjectSettings {
    fn default() -> InjectSettings {
        InjectSettings {
            image: concat!("heddle:", env!("CARGO_PKG_VERSION")).to_owned(),
            image_pull_policy: None,
            trust_domain: None,
            control_plane: "https://heddle.heddle-system.svc:18000".to_owned(),
            bundle: Bundle::ConfigMap("heddle-bundle".to_owned()),
            capture: Capture::Redirect,
            resources: Resources::default(),
            workers: 2,
            log_level: "info".to_owned(),
            exclude_inbound_ports: Vec::new(),
            exclude_outbound_ports: Vec::new(),
            exclude_outbound_cidrs: Vec::new(),
        }
    }
}

impl Default for Resources {
    /// An idle sidecar needs 12 MiB; what a busy one buffers is bounded, and fits the limit.
    fn default() -> Resources {
        Resources {
            cpu_request: "10m".to_owned(),
            cpu_limit: None,
            memory_request: "32Mi".to_owned(),
            memory_limit: Some("256Mi".to_owned()),
        }
    }
}

impl Resources {
    /// As a container has them.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mut value = json!({ "requests": { "cpu": self.cpu_request, "memory": self.memory_request } });
        let limits: serde_json::Map<String, Value> = [("cpu", &self.cpu_limit), ("memory", &self.memory_limit)]
            .into_iter()
            .filter_map(|(name, limit)| Some((name.to_owned(), Value::from(limit.as_deref()?))))
            .collect();
        if !limits.is_empty() {
            value["limits"] = Value::Object(limits);
        }
        value
    }
}

/// Suffixes and their factors in thousandths.
const SUFFIXES: [(&str, f64); 14] = [
    ("Ki", 1024e3),
    ("Mi", 1_048_576e3),
    ("Gi", 1_073_741_824e3),
    ("Ti", 1_099_511_627_776e3),
    ("Pi", 1_125_899_906_842_624e3),
    ("n", 1e-6),
    ("u", 1e-3),
    ("m", 1.0),
    ("k", 1e6),
    ("M", 1e9),
    ("G", 1e12),
    ("T", 1e15),
    ("P", 1e18),
    ("", 1e3),
];

/// A positive quantity in thousandths, for comparison; `None` for what Kubernetes would refuse or what means nothing here.
#[must_use]
pub fn milli(text: &str) -> Option<f64> {
    let (suffix, factor) = SUFFIXES.iter().find(|(suffix, _)| text.ends_with(suffix))?;
    let number = text.strip_suffix(suffix)?;
    let plain = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') && number.bytes().any(|b| b.is_ascii_digit());
    let value = if plain && number.len() <= 20 { number.parse::<f64>().ok()? * factor } else { return None };
    (value > 0.0).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_compare_across_their_suffixes() {
        assert_eq!(milli("100m"), Some(100.0));
        assert_eq!(milli("0.1"), milli("100m"));
        assert_eq!(milli("64Mi"), milli("65536Ki"));
        assert!(milli("1Gi") > milli("1G"));
        for wrong in ["", "m", "-1", "1 Mi", "0", "0m", "1e3x", "ten", "1..2", "999999999999999999999"] {
            assert_eq!(milli(wrong), None, "{wrong}");
        }
    }
}
