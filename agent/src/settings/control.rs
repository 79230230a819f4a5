//! Where the control plane is and how this process proves who it is: `controlplane:` and `identity:`. It opens nothing.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use heddle_node::config::Section;
use heddle_node::identity::TrustDomain;
use serde_json::Value;

/// Where a control plane on the same machine is.
pub const DEFAULT_CONTROL_PLANE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 18_000);
/// Control planes that an agent may be told of.
const MOST_ADDRESSES: usize = 16;
/// The most users that may ask for the identity over the Workload API.
const MAX_UIDS: usize = 64;

/// Where a control plane is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlPlaneAddress {
    /// Over TLS, as one identity to another; otherwise in clear.
    pub tls: bool,
    /// `host:port`.
    pub authority: String,
}

impl ControlPlaneAddress {
    /// Reads `host:port`, `http://host:port` (both in clear) or `https://host:port`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (tls, authority) = match text.split_once("://") {
            None => (false, text),
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some(_) => return None,
        };
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let (host, port) = authority.rsplit_once(':')?;
        port.parse::<u16>().ok().filter(|port| *port > 0)?;
        let name = |host: &str| host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
        let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let good = match literal {
            Some(literal) => literal.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.len() <= 253 && name(host),
        };
        good.then(|| Self { tls, authority: authority.to_owned() })
    }
}

impl fmt::Display for ControlPlaneAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority)
    }
}

/// How the control plane is reached, and what it is shown at first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlPlaneAccess {
    /// Where it is; the first where there are several.
    pub address: ControlPlaneAddress,
    /// Where other control planes beside the same store are; reached in the same way.
    pub others: Vec<ControlPlaneAddress>,
    /// What is shown to get the first identity.
    pub proof: Option<ProofSettings>,
    /// PEM file with the roots that the first connection trusts.
    pub bundle: Option<PathBuf>,
    /// Whose resources it serves.
    pub dialect: Served,
}

/// Whose resources a control plane serves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Served {
    /// Heddle's own.
    #[default]
    Heddle,
    /// Envoy's, only what changed.
    Envoy,
    /// Envoy's, everything of a kind whenever one thing changed.
    EnvoySotw,
}

impl Served {
    /// Every one, with its name in configuration.
    pub const ALL: [(&str, Served); 3] =
        [("heddle", Served::Heddle), ("envoy", Served::Envoy), ("envoy-sotw", Served::EnvoySotw)];
}

/// What proves to the control plane, before there is an identity, whose this process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProofSettings {
    /// File with a one-time join token.
    JoinToken(PathBuf),
    /// File with a service-account token of Kubernetes; read anew for each attempt, since it is rotated.
    ServiceAccount(PathBuf),
}

impl ControlPlaneAccess {
    /// All addresses, as they are reached.
    pub fn addresses(&self) -> Vec<String> {
        [&self.address].into_iter().chain(&self.others).map(ToString::to_string).collect()
    }

    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let (address, others) = read_addresses(section);
        let token = section.path("token_file");
        let account = section.path("service_account_token_file");
        let bundle = section.path("bundle");
        if token.is_some() && account.is_some() {
            section.mistake("service_account_token_file", "excludes token_file: one proof is enough, remove the other");
        }
        if !address.tls {
            for (key, given) in
                [("token_file", token.is_some()), ("service_account_token_file", account.is_some()), ("bundle", bundle.is_some())]
            {
                if given {
                    let meant = format!("needs TLS: set controlplane.address to \"https://{}\"", address.authority);
                    section.mistake(key, meant);
                }
            }
        }
        let proof = token.map(ProofSettings::JoinToken).or(account.map(ProofSettings::ServiceAccount));
        let dialect = section.choice("dialect", &Served::ALL).unwrap_or_default();
        Self { address, others, proof, bundle, dialect }
    }
}

/// One address, or a list of them.
fn read_addresses(section: &mut Section<'_>) -> (ControlPlaneAddress, Vec<ControlPlaneAddress>) {
    let default = || ControlPlaneAddress { tls: false, authority: DEFAULT_CONTROL_PLANE.to_string() };
    let texts = match section.value("address") {
        None => return (default(), Vec::new()),
        Some(Value::Array(items)) => items,
        Some(one) => vec![one],
    };
    if texts.is_empty() || texts.len() > MOST_ADDRESSES {
        section.mistake("address", format!("expected 1 to {MOST_ADDRESSES} addresses"));
    }
    let mut found: Vec<ControlPlaneAddress> = Vec::with_capacity(texts.len());
    for text in &texts {
        match text.as_str().and_then(ControlPlaneAddress::parse) {
            Some(address) if found.first().is_some_and(|first| first.tls != address.tls) => {
                section.mistake("address", format!("expected all addresses with the same scheme, found `{address}`"));
            }
            Some(address) => found.push(address),
            None => {
                let text = text.as_str().map_or_else(|| text.to_string(), str::to_owned);
                section.mistake("address", format!("expected host:port, http://host:port or https://host:port, found `{text}`"));
            }
        }
    }
    let mut found = found.into_iter();
    (found.next().unwrap_or_else(default), found.collect())
}

/// How this process gets its identity, and whom else it hands it to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdentitySettings {
    /// Our trust domain; `None`: the one that the roots of the bundle name.
    pub trust_domain: Option<TrustDomain>,
    /// Whether certificate and key are kept below `data_dir` (mode 0600), so that a restart does not need the control plane.
    pub persist: bool,
    /// Folder in which the own application finds certificate, key and roots, each in a file (mode 0600).
    pub files: Option<PathBuf>,
    /// Socket on which the own application finds the SPIFFE Workload API.
    pub workload_api: Option<WorkloadApiSettings>,
    /// Socket of a SPIRE agent, from whose SDS the identity comes instead of the control plane's.
    pub sds: Option<PathBuf>,
}

/// Who may ask for the identity over the Workload API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadApiSettings {
    /// Path of the socket.
    pub path: PathBuf,
    /// Users besides our own that are answered.
    pub uids: Vec<u32>,
}

impl IdentitySettings {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let trust_domain = section.parsed("trust_domain", "a trust domain such as mesh.example.org");
        let persist = section.bool("persist").unwrap_or(false);
        let sds = section.path("sds");
        let files = section.path("files");
        let path = section.path("workload_api");
        let uids = section.values("workload_api_uids").map(|uids| {
            let number = |value: &Value| value.as_u64().and_then(|uid| u32::try_from(uid).ok());
            let numbers: Vec<u32> = uids.iter().filter_map(|(_, value)| number(value)).collect();
            if numbers.len() != uids.len() {
                section.mistake("workload_api_uids", "expected a list of numbers of users, such as [1000]");
            }
            numbers
        });
        if uids.is_some() && path.is_none() {
            section.mistake("workload_api_uids", "needs workload_api, the path of the socket");
        }
        if uids.as_ref().is_some_and(|uids| uids.len() > MAX_UIDS) {
            section.mistake("workload_api_uids", format!("expected at most {MAX_UIDS} users"));
        }
        if persist && sds.is_some() {
            section.mistake("persist", "keeps nothing of an identity that comes over identity.sds: remove one of them");
        }
        let workload_api = path.map(|path| WorkloadApiSettings { path, uids: uids.unwrap_or_default() });
        Self { trust_domain, persist, files, workload_api, sds }
    }
}
