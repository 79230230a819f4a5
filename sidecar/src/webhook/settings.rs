//! `webhook:` in `heddle.yaml`. It reads what is written and opens nothing.

use std::net::SocketAddr;
use std::path::PathBuf;

use heddle_node::config::Section;

use crate::inject::{Bundle, Capture, InjectSettings, Resources, check_settings, is_label};

/// Where the API server of a cluster is, seen from its pods.
const API: &str = "https://kubernetes.default.svc";
/// What the kubelet gives every pod that may speak to it.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Where the webhook listens when nothing is said.
const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 8443);
/// Namespaces that are never injected when nothing is said.
const EXCLUDED: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

/// What a webhook is told.
#[derive(Debug, Clone, PartialEq)]
pub struct WebhookSettings {
    /// Where it listens.
    pub address: SocketAddr,
    /// Namespace of the Service in front of it.
    pub namespace: String,
    /// Name of that Service.
    pub service: String,
    /// Further names of its certificate.
    pub names: Vec<String>,
    /// A certificate that others look after, instead of our own.
    pub files: Option<CertificateFiles>,
    /// Whether a pod that cannot be injected is refused.
    pub strict: bool,
    /// Namespaces that are never injected.
    pub exclude_namespaces: Vec<String>,
    /// Whether and how the live webhook configuration is told whom to trust.
    pub update: Option<UpdateSettings>,
    /// What is injected.
    pub inject: InjectSettings,
    /// The roots that pods are given.
    pub roots: Roots,
}

/// Where the roots come from that pods are given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Roots {
    /// The control plane's own, as they change; where it has none, the usual config map.
    Own,
    /// A file, read anew every minute.
    File(PathBuf),
    /// A config map of that name, which somebody else fills.
    ConfigMap,
}

/// Files in PEM, read anew every minute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate with its chain.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Whom the API server is to trust.
    pub ca: Option<PathBuf>,
}

/// How the live MutatingWebhookConfiguration is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdateSettings {
    /// Its name.
    pub configuration: String,
    /// The API server, `https://host[:port]`.
    pub api: String,
    /// Our service-account token, read anew each time.
    pub token_file: PathBuf,
    /// Whom we trust there.
    pub ca_file: PathBuf,
}

impl WebhookSettings {
    /// Reads the section.
    pub fn read(section: &mut Section<'_>) -> WebhookSettings {
        let label = |section: &mut Section<'_>, key, default: &str| {
            let text = section.name(key).unwrap_or_else(|| default.to_owned());
            if !is_label(&text) {
                section.mistake(key, format!("expected a DNS label, found `{text}`"));
            }
            text
        };
        let (certificate, key, ca) = (section.path("certificate"), section.path("key"), section.path("ca"));
        match (&certificate, &key) {
            (Some(_), None) => drop(section.require("key")),
            (None, Some(_)) => drop(section.require("certificate")),
            _ => {}
        }
        let (inject, roots) = section.nested("inject", injection);
        WebhookSettings {
            address: section.socket_addr("address").unwrap_or(ADDRESS),
            namespace: label(section, "namespace", "heddle-system"),
            service: label(section, "service", "heddle"),
            names: section.strings("names").unwrap_or_default(),
            files: certificate.zip(key).map(|(certificate, key)| CertificateFiles { certificate, key, ca }),
            strict: section.bool("strict").unwrap_or(false),
            exclude_namespaces: section.strings("exclude_namespaces").unwrap_or_else(|| EXCLUDED.map(str::to_owned).to_vec()),
            update: section.optional("update", UpdateSettings::read),
            inject,
            roots,
        }
    }

    /// The names of its certificate: those by which the API server asks for a Service, and further ones.
    #[must_use]
    pub fn all_names(&self) -> Vec<String> {
        let service = format!("{}.{}.svc", self.service, self.namespace);
        let mut names = vec![format!("{service}.cluster.local"), service];
        names.extend(self.names.iter().cloned());
        names
    }
}

impl UpdateSettings {
    fn read(section: &mut Section<'_>) -> UpdateSettings {
        let api = section.name("api").unwrap_or_else(|| API.to_owned());
        let good = api.strip_prefix("https://").is_some_and(|rest| !rest.is_empty() && !rest.contains(['/', '@', '?', '#']));
        if !good {
            section.mistake("api", format!("expected https://host or https://host:port, found `{api}`"));
        }
        let configuration = section.name("configuration").unwrap_or_else(|| "heddle".to_owned());
        if !configuration.split('.').all(is_label) {
            section.mistake(
                "configuration",
                format!("expected the name of a MutatingWebhookConfiguration, found `{configuration}`"),
            );
        }
        UpdateSettings {
            configuration,
            api,
            token_file: section.path("token_file").unwrap_or_else(|| format!("{ACCOUNT}/token").into()),
            ca_file: section.path("ca_file").unwrap_or_else(|| format!("{ACCOUNT}/ca.crt").into()),
        }
    }
}

fn injection(section: &mut Section<'_>) -> (InjectSettings, Roots) {
    let default = InjectSettings::default();
    let port = |text: &str| text.parse().ok().filter(|port: &u16| *port > 0);
    let mut ports = |key| section.parsed_list(key, "a port (1 to 65535)", port).unwrap_or_default();
    let (exclude_inbound_ports, exclude_outbound_ports) = (ports("exclude_inbound_ports"), ports("exclude_outbound_ports"));
    let bundle = section.name("bundle_config_map").map_or(default.bundle, Bundle::ConfigMap);
    let policies = [("Always", "Always"), ("IfNotPresent", "IfNotPresent"), ("Never", "Never")];
    let levels = ["error", "warn", "info", "debug", "trace"].map(|level| (level, level));
    let settings = InjectSettings {
        image: section.name("image").unwrap_or(default.image),
        image_pull_policy: section.choice("image_pull_policy", &policies).map(str::to_owned),
        trust_domain: section.name("trust_domain").or(default.trust_domain),
        control_plane: section.name("control_plane").unwrap_or(default.control_plane),
        bundle,
        capture: section.choice("capture", &[("off", Capture::Off), ("redirect", Capture::Redirect)]).unwrap_or(default.capture),
        resources: Resources {
            cpu_request: section.name("cpu_request").unwrap_or(default.resources.cpu_request),
            cpu_limit: section.name("cpu_limit").or(default.resources.cpu_limit),
            memory_request: section.name("memory_request").unwrap_or(default.resources.memory_request),
            memory_limit: section.name("memory_limit").or(default.resources.memory_limit),
        },
        workers: section.u32("workers", 1..=64).unwrap_or(default.workers),
        log_level: section.choice("log_level", &levels).map_or(default.log_level, str::to_owned),
        exclude_inbound_ports,
        exclude_outbound_ports,
        exclude_outbound_cidrs: section.networks("exclude_outbound_cidrs").unwrap_or_default(),
    };
    if let Err(message) = check_settings(&settings) {
        section.mistake("image", message);
    }
    let roots = match section.path("bundle") {
        Some(path) => Roots::File(path),
        None if section.has("bundle_config_map") => Roots::ConfigMap,
        None => Roots::Own,
    };
    (settings, roots)
}
