//! What `heddle inject` can be told, and what it means for an injection. Nothing is done here.

use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};
use heddle_sidecar::inject::{Bundle, Capture, InjectSettings, check_settings};
use ipnet::IpNet;

/// Most bytes of a bundle: it travels in an annotation of every pod.
const MOST_BUNDLE_BYTES: u64 = 64 * 1024;

/// `heddle inject`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["file", "systemd", "nomad", "consul", "webhook_configuration"]))]
pub struct InjectArgs {
    /// Kubernetes objects, YAML (of several documents) or JSON; `-` is standard input
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// A systemd unit: writes the unit of its sidecar, its configuration and a drop-in
    #[arg(long, value_name = "UNIT")]
    pub systemd: Option<PathBuf>,
    /// A Nomad job, HCL or JSON
    #[arg(long, value_name = "FILE")]
    pub nomad: Option<PathBuf>,
    /// A Consul service registration as JSON
    #[arg(long, value_name = "FILE")]
    pub consul: Option<PathBuf>,
    /// The MutatingWebhookConfiguration for a control plane with a `webhook` section
    #[arg(long)]
    pub webhook_configuration: bool,
    /// Where the result goes: a file, for --systemd a directory; standard output when absent
    #[arg(short, long, value_name = "PATH")]
    pub output: Option<PathBuf>,
    /// Take the sidecar out instead
    #[arg(long, conflicts_with = "webhook_configuration")]
    pub uninject: bool,
    #[command(flatten)]
    pub settings: SettingArgs,
    #[command(flatten)]
    pub service: ServiceArgs,
    #[command(flatten)]
    pub webhook: WebhookArgs,
}

/// What may differ from the defaults of an injection.
#[derive(Debug, Args)]
pub struct SettingArgs {
    /// Image with the heddle binary
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// Always, IfNotPresent or Never
    #[arg(long, value_name = "POLICY", value_parser = ["Always", "IfNotPresent", "Never"])]
    pub image_pull_policy: Option<String>,
    /// Where sidecars find their control plane
    #[arg(long, value_name = "URL")]
    pub control_plane: Option<String>,
    /// Trust domain of the identities
    #[arg(long, value_name = "DOMAIN")]
    pub trust_domain: Option<String>,
    /// Roots of the trust domain, PEM (`heddle ca export`): put into every pod
    #[arg(long, value_name = "FILE", conflicts_with = "bundle_config_map")]
    pub bundle: Option<PathBuf>,
    /// Config map that has them as `root.pem`, in the namespace of each workload
    #[arg(long, value_name = "NAME")]
    pub bundle_config_map: Option<String>,
    /// Whether traffic is captured: off or redirect
    #[arg(long, value_name = "MODE", value_parser = ["off", "redirect"])]
    pub capture: Option<String>,
    /// Log level of the sidecars
    #[arg(long, value_name = "LEVEL", value_parser = ["error", "warn", "info", "debug", "trace"])]
    pub log_level: Option<String>,
    /// Inbound ports that are not captured
    #[arg(long, value_name = "PORT", value_delimiter = ',')]
    pub exclude_inbound_ports: Vec<u16>,
    /// Destination ports that are not captured
    #[arg(long, value_name = "PORT", value_delimiter = ',')]
    pub exclude_outbound_ports: Vec<u16>,
    /// Destination networks that are not captured
    #[arg(long, value_name = "NET", value_delimiter = ',')]
    pub exclude_outbound_cidrs: Vec<IpNet>,
}

/// The service, where a file does not name it: for --systemd, --nomad and --consul.
#[derive(Debug, Args)]
pub struct ServiceArgs {
    /// Name of the service; from the file when absent
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,
    /// Its namespace
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub namespace: String,
    /// Port at which the application listens
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// How it speaks: http, http2, grpc, tcp or auto
    #[arg(long, value_name = "PROTOCOL", value_parser = ["http", "http2", "grpc", "tcp", "auto"])]
    pub protocol: Option<String>,
    /// Services that the application calls, each with a local port: api:9001 or db.shop:9002
    #[arg(long, value_name = "SERVICE:PORT", value_delimiter = ',')]
    pub outbound: Vec<String>,
}

/// Where the API server finds the webhook.
#[derive(Debug, Args)]
pub struct WebhookArgs {
    /// Namespace of the Service in front of the control plane
    #[arg(long, value_name = "NAME", default_value = "heddle-system")]
    pub webhook_namespace: String,
    /// Name of that Service
    #[arg(long, value_name = "NAME", default_value = "heddle")]
    pub webhook_service: String,
    /// Its port
    #[arg(long, value_name = "PORT", default_value_t = 8443)]
    pub webhook_port: u16,
    /// CA of the webhook, PEM; left out when absent, for a control plane that writes it itself
    #[arg(long, value_name = "FILE")]
    pub webhook_ca: Option<PathBuf>,
}

impl SettingArgs {
    /// The settings of an injection.
    ///
    /// # Errors
    /// The bundle cannot be read, or a value does not fit.
    pub fn settings(self) -> Result<InjectSettings, String> {
        let default = InjectSettings::default();
        let bundle = match (&self.bundle, self.bundle_config_map) {
            (Some(path), _) => Bundle::Inline(pem(path)?),
            (None, Some(name)) => Bundle::ConfigMap(name),
            (None, None) => default.bundle,
        };
        let settings = InjectSettings {
            image: self.image.unwrap_or(default.image),
            image_pull_policy: self.image_pull_policy,
            control_plane: self.control_plane.unwrap_or(default.control_plane),
            trust_domain: self.trust_domain,
            bundle,
            capture: if self.capture.as_deref() == Some("off") { Capture::Off } else { default.capture },
            log_level: self.log_level.unwrap_or(default.log_level),
            exclude_inbound_ports: self.exclude_inbound_ports,
            exclude_outbound_ports: self.exclude_outbound_ports,
            exclude_outbound_cidrs: self.exclude_outbound_cidrs,
            resources: default.resources,
            workers: default.workers,
        };
        check_settings(&settings)?;
        Ok(settings)
    }
}

/// Certificates of a file, as they are written.
///
/// # Errors
/// There are none, or too many.
pub fn pem(path: &Path) -> Result<String, String> {
    let place = path.display();
    let size = std::fs::metadata(path).map_err(|error| format!("{place}: {error}"))?.len();
    if size > MOST_BUNDLE_BYTES {
        return Err(format!("{place}: expected at most {MOST_BUNDLE_BYTES} bytes of certificates, found {size}"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| format!("{place}: {error}"))?;
    if !text.contains("-----BEGIN CERTIFICATE-----") || text.contains("PRIVATE KEY") {
        return Err(format!("{place}: expected certificates in PEM and no private key"));
    }
    Ok(text)
}
