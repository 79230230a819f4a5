//! `identity:` in `heddle.yaml`: the trust domain, its authority, and who may join. It knows no certificate.

use std::path::PathBuf;
use std::time::Duration;

use heddle_node::config::Section;
use heddle_node::identity::TrustDomain;

/// The trust domain when nothing is said.
const DEFAULT_TRUST_DOMAIN: &str = "heddle.local";
/// Lifetime of an identity: renewed at half of it, so a control plane may be away for half a day.
const DEFAULT_SVID_TTL: Duration = Duration::from_secs(24 * 3600);
/// Shorter lifetimes leave no time to renew.
const MIN_SVID_TTL: Duration = Duration::from_secs(10);
/// Longer ones are no longer short-lived.
const MAX_SVID_TTL: Duration = Duration::from_secs(90 * 24 * 3600);
/// How far clocks may lag behind; what others have found to be needed.
const DEFAULT_CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);
/// More would make expiry meaningless.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(24 * 3600);
/// Lifetime of a root of our own.
const DEFAULT_ROOT_TTL: Duration = Duration::from_secs(3650 * 24 * 3600);
/// How long a new root is in the bundles before it signs: nodes that were just reconnecting have it by then.
const DEFAULT_SPREAD: Duration = Duration::from_secs(60);
/// Lifetime of a join token.
const DEFAULT_TOKEN_TTL: Duration = Duration::from_secs(10 * 60);
/// A join token that is good for longer is no longer a one-time password.
pub const MAX_TOKEN_TTL: Duration = Duration::from_secs(30 * 24 * 3600);
/// Signatures per second of one identity: all replicas of a service share it.
const DEFAULT_EACH: f64 = 20.0;
/// Signatures per second overall; one takes about 0.2 ms of a core, and a write to the disk that others share.
const DEFAULT_OVERALL: f64 = 200.0;
/// Names of hosts under which control planes are found; each stands in their certificates.
const MAX_NAMES: usize = 32;
/// The longest name of a host (RFC 1035 section 2.3.4).
const MAX_HOST: usize = 253;
/// Other trust domains.
const MAX_FEDERATED: usize = 100;

/// Identities and the authority behind them.
#[derive(Debug, Clone, PartialEq)]
pub struct IdentitySettings {
    /// The name in `spiffe://<trust domain>/…`.
    pub trust_domain: TrustDomain,
    /// Lifetime of an identity.
    pub svid_ttl: Duration,
    /// How far a certificate is valid in the past.
    pub clock_skew: Duration,
    /// Lifetime of a join token for which nothing else is said.
    pub token_ttl: Duration,
    /// `ca:`
    pub ca: CaSettings,
    /// Signatures per second: overall, and of one identity.
    pub signing: (f64, f64),
    /// Services whose nodes may be gateways, `<namespace>/<service>`: they are shown routes, consumers and private keys. All others are sidecars.
    pub gateways: Vec<String>,
    /// Takes service-account tokens of Kubernetes.
    pub kubernetes: Option<KubernetesSettings>,
    /// Other trust domains whose identities are known here.
    pub federation: Vec<FederatedSettings>,
    /// Names and addresses of hosts that stand in the certificate of the control plane, for clients that look at those (gRPC without a proxy).
    pub names: Vec<String>,
}

/// The authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaSettings {
    /// An operator's authority; `None`: a root of our own.
    pub files: Option<CaFiles>,
    /// Roots that are trusted besides, PEM: the next one of an operator's authority, before it signs.
    pub also_trusted: Option<PathBuf>,
    /// Lifetime of a root of our own.
    pub root_ttl: Duration,
    /// How long a new root is in the bundles before it signs, at least.
    pub spread: Duration,
}

/// An operator's authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaFiles {
    /// The certificate that signs, and behind it those above up to the root, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
}

/// Where the keys of a cluster are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwksSource {
    /// A file, read again when it changes.
    File(PathBuf),
    /// An `https` (or, on loopback, `http`) address, asked every few minutes and for keys that are not known yet.
    Url {
        /// The address.
        url: String,
        /// Roots of the server of an `https` address, PEM.
        ca_file: Option<PathBuf>,
        /// A file with a bearer token, read at every request.
        token_file: Option<PathBuf>,
    },
}

/// Service-account tokens of one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubernetesSettings {
    /// `iss` of the tokens.
    pub issuer: String,
    /// What `aud` must have.
    pub audience: String,
    /// Where its keys are.
    pub keys: JwksSource,
    /// Service accounts that are another service than their name says.
    pub services: Vec<ServiceOf>,
}

/// A service account and the service that it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceOf {
    /// Its namespace, which is that of the service too.
    pub namespace: String,
    /// Its name.
    pub service_account: String,
    /// The service.
    pub service: String,
}

/// Another trust domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FederatedSettings {
    /// Its name.
    pub trust_domain: TrustDomain,
    /// Its roots, PEM; read again when the file changes.
    pub bundle_file: PathBuf,
}

impl IdentitySettings {
    /// Reads the section; an empty one is all defaults.
    pub(super) fn read(section: &mut Section<'_>) -> IdentitySettings {
        let trust_domain =
            section.parsed("trust_domain", "a trust domain such as mesh.example.org").unwrap_or_else(default_domain);
        let federation: Vec<FederatedSettings> =
            section.list("federation", FederatedSettings::read).into_iter().flatten().flatten().collect();
        if federation.len() > MAX_FEDERATED {
            section.mistake("federation", format!("expected at most {MAX_FEDERATED} trust domains, found {}", federation.len()));
        }
        for (at, one) in federation.iter().enumerate() {
            let twice = federation[..at].iter().any(|other| other.trust_domain == one.trust_domain);
            if twice || one.trust_domain == trust_domain {
                section.mistake("federation", format!("expected other trust domains, each once, found `{}`", one.trust_domain));
            }
        }
        IdentitySettings {
            svid_ttl: bounded(section, "svid_ttl", DEFAULT_SVID_TTL, MIN_SVID_TTL, MAX_SVID_TTL),
            clock_skew: bounded(section, "clock_skew", DEFAULT_CLOCK_SKEW, Duration::ZERO, MAX_CLOCK_SKEW),
            token_ttl: bounded(section, "token_ttl", DEFAULT_TOKEN_TTL, Duration::from_secs(1), MAX_TOKEN_TTL),
            ca: section.nested("ca", CaSettings::read),
            signing: section.nested("signing", |section| {
                let rate = 0.1..=1_000_000.0;
                let overall = section.float("per_second", rate.clone()).unwrap_or(DEFAULT_OVERALL);
                (overall, section.float("per_identity", rate).unwrap_or(DEFAULT_EACH))
            }),
            gateways: section.parsed_list("gateways", "NAMESPACE/SERVICE", full_name).unwrap_or_else(default_gateways),
            kubernetes: section.optional("kubernetes", KubernetesSettings::read).flatten(),
            federation,
            trust_domain,
            names: names(section),
        }
    }
}

/// Names and addresses of hosts that may stand in a certificate.
fn names(section: &mut Section<'_>) -> Vec<String> {
    let label = |label: &str| !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let host = |text: &str| {
        let is_name = text.len() <= MAX_HOST && text.split('.').all(label);
        (is_name || text.parse::<std::net::IpAddr>().is_ok()).then(|| text.to_owned())
    };
    let names = section.parsed_list("names", "a host such as controlplane.example.org", host).unwrap_or_default();
    if names.len() > MAX_NAMES {
        section.mistake("names", format!("expected at most {MAX_NAMES} hosts, found {}", names.len()));
    }
    names
}

/// What an agent is that says nothing of its service.
fn default_gateways() -> Vec<String> {
    vec!["default/gateway".to_owned()]
}

fn full_name(text: &str) -> Option<String> {
    let (namespace, service) = text.split_once('/')?;
    let whole = !namespace.is_empty() && !service.is_empty() && !service.contains('/');
    whole.then(|| text.to_owned())
}

impl Default for IdentitySettings {
    fn default() -> Self {
        IdentitySettings {
            trust_domain: default_domain(),
            svid_ttl: DEFAULT_SVID_TTL,
            clock_skew: DEFAULT_CLOCK_SKEW,
            token_ttl: DEFAULT_TOKEN_TTL,
            ca: CaSettings { files: None, also_trusted: None, root_ttl: DEFAULT_ROOT_TTL, spread: DEFAULT_SPREAD },
            signing: (DEFAULT_OVERALL, DEFAULT_EACH),
            gateways: default_gateways(),
            kubernetes: None,
            federation: Vec::new(),
            names: Vec::new(),
        }
    }
}

#[expect(clippy::expect_used, reason = "the constant is a trust domain, and a test says so")]
fn default_domain() -> TrustDomain {
    TrustDomain::new(DEFAULT_TRUST_DOMAIN).expect("the default is a trust domain")
}

fn bounded(section: &mut Section<'_>, key: &'static str, default: Duration, least: Duration, most: Duration) -> Duration {
    let found = section.duration(key).unwrap_or(default);
    if found < least || found > most {
        section.mistake(key, format!("expected {}s to {}s, found {}s", least.as_secs(), most.as_secs(), found.as_secs_f64()));
        return default;
    }
    found
}

impl CaSettings {
    fn read(section: &mut Section<'_>) -> CaSettings {
        let (certificate, key) = (section.path("certificate"), section.path("key"));
        match (&certificate, &key) {
            (Some(_), None) => drop(section.require("key")),
            (None, Some(_)) => drop(section.require("certificate")),
            _ => {}
        }
        let (least, most) = (Duration::from_secs(60), Duration::from_secs(36_500 * 24 * 3600));
        CaSettings {
            files: certificate.zip(key).map(|(certificate, key)| CaFiles { certificate, key }),
            also_trusted: section.path("also_trusted"),
            root_ttl: bounded(section, "root_ttl", DEFAULT_ROOT_TTL, least, most),
            spread: bounded(section, "spread", DEFAULT_SPREAD, Duration::ZERO, MAX_TOKEN_TTL),
        }
    }
}

impl KubernetesSettings {
    fn read(section: &mut Section<'_>) -> Option<KubernetesSettings> {
        let issuer = section.require("issuer").string("issuer");
        let audience = section.require("audience").string("audience");
        let (file, url) = (section.path("jwks_file"), section.string("jwks_url"));
        let (ca_file, token_file) = (section.path("ca_file"), section.path("token_file"));
        let keys = match (file, url) {
            (Some(file), None) => Some(JwksSource::File(file)),
            (None, Some(url)) => {
                check_url(section, &url, ca_file.is_some());
                Some(JwksSource::Url { url, ca_file, token_file })
            }
            _ => {
                section.mistake("jwks_file", "expected either `jwks_file` or `jwks_url`: where the keys of the cluster are");
                None
            }
        };
        let services = section.list("services", ServiceOf::read).into_iter().flatten().flatten().collect();
        Some(KubernetesSettings { issuer: issuer?, audience: audience?, keys: keys?, services })
    }
}

fn check_url(section: &mut Section<'_>, url: &str, has_ca: bool) {
    let host = |rest: &str| rest.split(['/', ':']).next().unwrap_or_default().to_owned();
    let loopback = url.strip_prefix("http://").is_some_and(|rest| matches!(&*host(rest), "127.0.0.1" | "localhost"));
    if url.starts_with("https://") && !has_ca {
        section.mistake("ca_file", "expected the roots of the server of `jwks_url`, PEM");
    } else if !url.starts_with("https://") && !loopback {
        section.mistake("jwks_url", "expected https:// (http:// on loopback only): whoever changes these keys can be everybody");
    }
}

impl ServiceOf {
    fn read(section: &mut Section<'_>) -> Option<ServiceOf> {
        let namespace = section.require("namespace").name("namespace");
        let service_account = section.require("service_account").name("service_account");
        let service = section.require("service").name("service");
        Some(ServiceOf { namespace: namespace?, service_account: service_account?, service: service? })
    }
}

impl FederatedSettings {
    fn read(section: &mut Section<'_>) -> Option<FederatedSettings> {
        let trust_domain = section.require("trust_domain").parsed("trust_domain", "a trust domain such as partner.example.org");
        let bundle_file = section.require("bundle_file").path("bundle_file");
        Some(FederatedSettings { trust_domain: trust_domain?, bundle_file: bundle_file? })
    }
}
