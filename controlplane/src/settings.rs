//! What a control plane is told in `heddle.yaml`: its Admin API, its xDS address, its history, its providers and the listeners. Each setting has a default with its reason.

mod consul;
mod identity;
mod mesh;
mod store;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use heddle_node::config::{Position, Secret, Section};
use heddle_xds::dialect::envoy::encode::Gap;
use serde_json::{Value, json};

pub use consul::{CatalogSettings, ConsulProviderSettings, IntentionsSettings, KvSettings};
pub use identity::{
    CaFiles, CaSettings, FederatedSettings, IdentitySettings, JwksSource, KubernetesSettings, MAX_TOKEN_TTL, ServiceOf,
};
pub use mesh::MeshSettings;
pub use store::{SecretsKey, StoreSettings};

/// Where the Admin API listens when nothing is said; loopback, because it can change everything.
pub const DEFAULT_ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9180);
/// Where agents connect when nothing is said.
pub const DEFAULT_XDS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 18_000);
/// The file below `data_dir` that holds the admin key generated at the first start.
pub const ADMIN_KEY_FILE: &str = "admin.key";
/// The file below `data_dir` with the roots of the own trust domain, PEM. It is written anew at will, so it has a name that no file of an operator's own has.
pub const ROOTS_FILE: &str = "roots-of-control-plane.pem";
/// How long nodes wait for their canary: many times what an agent takes for 10,000 routes, and short enough that one that hangs is no outage of changes.
const DEFAULT_CANARY_WAIT: Duration = Duration::from_secs(2);
/// What may be said instead.
const CANARY_WAITS: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);
/// An admin key that is shorter can be guessed.
const MIN_KEY_BYTES: usize = 8;

/// What a control plane is told.
#[derive(Debug, Clone, PartialEq)]
pub struct ControlPlaneSettings {
    /// `admin:`
    pub admin: AdminSettings,
    /// `xds:`, of discovery, identities and the gRPC Admin API.
    pub xds: XdsSettings,
    /// `identity:`; `None`: there are no identities.
    pub identity: Option<IdentitySettings>,
    /// `store:`
    pub store: StoreSettings,
    /// `providers: { file }`
    pub file: Option<FileSettings>,
    /// `providers: { consul }`
    pub consul: Option<ConsulProviderSettings>,
    /// `mesh:`
    pub mesh: MeshSettings,
    /// `listeners:`, as user resources of the provider `config`.
    pub listeners: Vec<ListenerSetting>,
}

/// The REST Admin API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminSettings {
    /// Where it listens.
    pub address: SocketAddr,
    /// Who may use it. Empty: the generated key in [`ADMIN_KEY_FILE`], on loopback only.
    pub keys: Vec<AdminKey>,
}

/// One key of the Admin APIs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminKey {
    /// Whom the history shows as author.
    pub name: String,
    /// What `X-API-KEY` must say.
    pub key: Secret,
    /// What it allows.
    pub role: Role,
}

/// What an admin key allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    Admin,
    /// Reading.
    Viewer,
}

/// The port of discovery, identities and the gRPC Admin API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XdsSettings {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it speaks.
    pub door: Door,
    /// What Envoys and clients of gRPC are given in the place of routes that are withheld from them.
    pub withheld: Gap,
    /// How long the nodes of a group wait for the canary that new versions go to first; `None`: they go to all at once.
    pub canaries: Option<Duration>,
}

/// What the port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// Cleartext alone: there are no identities.
    Clear,
    /// TLS, and cleartext for those that begin without it: on loopback, or where the operator says that the network is protected.
    Both,
    /// TLS alone; discovery demands an identity.
    Tls,
}

/// The file provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSettings {
    /// A file or a directory.
    pub path: PathBuf,
    /// Whether changes are taken over while running.
    pub watch: bool,
}

/// One listener of `heddle.yaml`.
#[derive(Debug, Clone, PartialEq)]
pub struct ListenerSetting {
    /// Its name, which becomes its id.
    pub name: String,
    /// The resource as written; whoever validates `listeners` resources checks it.
    pub value: Value,
    /// Where it stands in the file; `None` for a default.
    pub at: Option<Position>,
}

impl ControlPlaneSettings {
    /// Reads `admin:`, `xds:`, `store:`, `providers:` and `listeners:`.
    pub fn read(root: &mut Section<'_>) -> ControlPlaneSettings {
        let identity = root.optional("identity", IdentitySettings::read);
        let xds = root.nested("xds", |section| xds(section, identity.is_some()));
        let (file, consul) = root.nested("providers", |section| {
            let file = section.optional("file", FileSettings::read).flatten();
            (file, section.optional("consul", ConsulProviderSettings::read))
        });
        ControlPlaneSettings {
            admin: root.nested("admin", AdminSettings::read),
            // Beyond loopback there is no port without identities.
            identity: identity.or_else(|| (xds.door == Door::Tls).then(IdentitySettings::default)),
            xds,
            store: root.nested("store", StoreSettings::read),
            file,
            consul,
            mesh: root.nested("mesh", MeshSettings::read),
            listeners: listeners(root),
        }
    }
}

/// Where agents connect. They are shown private keys: beyond loopback the port speaks TLS and wants to know who they are, unless an operator says that
/// the network is protected by other means. On loopback cleartext stays possible, so that the command line works without certificates.
fn xds(section: &mut Section<'_>, identities: bool) -> XdsSettings {
    let address = section.socket_addr("address").unwrap_or(DEFAULT_XDS);
    let clear = section.bool("allow_plaintext").unwrap_or(false) || address.ip().is_loopback();
    let required = section.choice("tls", &[("auto", false), ("required", true)]).unwrap_or(false);
    let door = match (identities, clear && !required) {
        (false, true) => Door::Clear,
        (true, true) => Door::Both,
        (_, false) => Door::Tls,
    };
    let answers = [("not_found", Gap::NotFound), ("unavailable", Gap::Unavailable)];
    let withheld = section.choice("withheld", &answers).unwrap_or_default();
    let first = section.choice("rollout", &[("canary", true), ("everywhere", false)]).unwrap_or(true);
    let wait = section.duration("canary_wait");
    if let Some(wait) = wait.filter(|wait| !CANARY_WAITS.contains(wait)) {
        section.mistake("canary_wait", format!("expected 100ms to 60s, found {}ms", wait.as_millis()));
    }
    XdsSettings { address, door, withheld, canaries: first.then_some(wait.unwrap_or(DEFAULT_CANARY_WAIT)) }
}

impl AdminSettings {
    fn read(section: &mut Section<'_>) -> AdminSettings {
        let address = section.socket_addr("address").unwrap_or(DEFAULT_ADMIN);
        let listed = section.list("keys", AdminKey::read);
        let some_listed = listed.as_ref().is_some_and(|keys| !keys.is_empty());
        let keys: Vec<AdminKey> = listed.into_iter().flatten().flatten().collect();
        if !some_listed && !address.ip().is_loopback() {
            section.mistake("address", format!("expected a loopback address, as no admin key is configured, found {address}; add `keys: [{{ name, key, role }}]`"));
        }
        for (i, one) in keys.iter().enumerate() {
            if keys[..i].iter().any(|other| other.name == one.name || other.key == one.key) {
                section.mistake("keys", format!("expected different names and keys, found `{}` (or its key) twice", one.name));
            }
        }
        AdminSettings { address, keys }
    }
}

impl AdminKey {
    fn read(section: &mut Section<'_>) -> Option<AdminKey> {
        let name = section.require("name").name("name");
        let key = section.require("key").secret("key");
        if key
            .as_ref()
            .is_some_and(|key| key.reveal().len() < MIN_KEY_BYTES || !key.reveal().bytes().all(|b| b.is_ascii_graphic()))
        {
            section
                .mistake("key", format!("expected at least {MIN_KEY_BYTES} visible ASCII characters, as it travels in a header"));
        }
        let role = section.choice("role", &[("admin", Role::Admin), ("viewer", Role::Viewer)]).unwrap_or(Role::Viewer);
        Some(AdminKey { name: name?, key: key?, role })
    }
}

impl FileSettings {
    fn read(section: &mut Section<'_>) -> Option<FileSettings> {
        let watch = section.bool("watch").unwrap_or(true);
        section.require("path").path("path").map(|path| FileSettings { path, watch })
    }
}

fn listeners(root: &mut Section<'_>) -> Vec<ListenerSetting> {
    let Some(values) = root.values("listeners") else {
        let default = |name: &str, address: &str| ListenerSetting {
            name: name.to_owned(),
            value: json!({"name": name, "address": address, "protocol": name}),
            at: None,
        };
        return vec![default("http", "0.0.0.0:9080"), default("https", "0.0.0.0:9443")];
    };
    let mut found: Vec<ListenerSetting> = Vec::with_capacity(values.len());
    for (i, (at, value)) in values.into_iter().enumerate() {
        match value.get("name").and_then(Value::as_str).map(str::to_owned) {
            Some(name) if found.iter().any(|other| other.name == name) => {
                root.mistake("listeners", format!("expected different names, found `{name}` twice"));
            }
            Some(name) => found.push(ListenerSetting { name, value, at: Some(at) }),
            None => root.mistake("listeners", format!("expected a map with a `name` as item {i}")),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use heddle_node::config::{Document, Expansion, Format};

    use super::*;

    fn read(text: &str) -> Result<ControlPlaneSettings, String> {
        let document = Document::parse("heddle.yaml", text, Format::Yaml, Expansion::Off).map_err(|m| m.to_string())?;
        document.read(ControlPlaneSettings::read).map_err(|m| m.to_string())
    }

    #[test]
    fn nothing_said_is_all_defaults() {
        let settings = read("").unwrap();
        assert_eq!((settings.admin.address, settings.xds.address, settings.file), (DEFAULT_ADMIN, DEFAULT_XDS, None));
        assert_eq!((settings.xds.door, settings.identity), (Door::Clear, None));
        assert!(settings.admin.keys.is_empty());
        let names: Vec<&str> = settings.listeners.iter().map(|listener| listener.name.as_str()).collect();
        assert_eq!(names, ["http", "https"]);
        assert_eq!(settings.listeners[1].value, json!({"name": "https", "address": "0.0.0.0:9443", "protocol": "https"}));
    }

    #[test]
    fn private_keys_do_not_go_over_a_network_in_clear_by_accident() {
        let settings = read("xds: { address: \"0.0.0.0:18000\" }").unwrap();
        assert_eq!((settings.xds.door, settings.identity), (Door::Tls, Some(IdentitySettings::default())));
        let settings = read("xds: { address: \"0.0.0.0:18000\", allow_plaintext: true }").unwrap();
        assert_eq!((settings.xds.address.to_string().as_str(), settings.xds.door), ("0.0.0.0:18000", Door::Clear));
        assert_eq!(read("identity: {}").unwrap().xds.door, Door::Both);
        assert_eq!(read("xds: { tls: required }").unwrap().xds.door, Door::Tls);
    }

    #[test]
    fn new_versions_go_to_a_canary_first_unless_they_are_to_go_everywhere() {
        assert_eq!(read("").unwrap().xds.canaries, Some(DEFAULT_CANARY_WAIT));
        assert_eq!(read("xds: { canary_wait: 500ms }").unwrap().xds.canaries, Some(Duration::from_millis(500)));
        assert_eq!(read("xds: { rollout: everywhere }").unwrap().xds.canaries, None);
        assert!(read("xds: { canary_wait: 5m }").unwrap_err().contains("expected 100ms to 60s"));
    }

    #[test]
    fn identities_are_read_with_all_that_belongs_to_them() {
        assert_eq!(read("identity: {}").unwrap().identity, Some(IdentitySettings::default()));
        let text = "\
identity:
  trust_domain: mesh.example.org
  svid_ttl: 10s
  ca: { certificate: ca.pem, key: ca.key, spread: 2s }
  kubernetes: { issuer: \"https://k8s\", audience: heddle, jwks_file: keys.json, services: [ { namespace: a, service_account: b, service: c } ] }
  federation: [ { trust_domain: partner.example.org, bundle_file: partner.pem } ]
";
        let identity = read(text).unwrap().identity.unwrap();
        assert_eq!((identity.trust_domain.as_str(), identity.svid_ttl), ("mesh.example.org", Duration::from_secs(10)));
        assert_eq!(identity.ca.files, Some(CaFiles { certificate: "ca.pem".into(), key: "ca.key".into() }));
        assert_eq!(identity.kubernetes.unwrap().services[0].service, "c");
        assert_eq!(identity.federation[0].bundle_file, PathBuf::from("partner.pem"));
        let wrong = [
            ("{ trust_domain: UPPER }", "trust_domain: expected a trust domain"),
            ("{ svid_ttl: 9s }", "svid_ttl: expected 10s to"),
            ("{ ca: { key: k } }", "the key `certificate` is missing"),
            ("{ kubernetes: { issuer: i, audience: a } }", "either `jwks_file` or `jwks_url`"),
            ("{ kubernetes: { issuer: i, audience: a, jwks_url: \"http://10.0.0.1/keys\" } }", "expected https://"),
            ("{ kubernetes: { issuer: i, audience: a, jwks_url: \"https://10.0.0.1/keys\" } }", "expected the roots"),
            ("{ federation: [ { trust_domain: heddle.local, bundle_file: x } ] }", "expected other trust domains"),
        ];
        for (text, expected) in wrong {
            let told = read(&format!("identity: {text}")).unwrap_err();
            assert!(told.contains(expected), "{expected} is not in:\n{told}");
        }
    }

    #[test]
    fn everything_can_be_said() {
        let text = "\
admin: { address: \"0.0.0.0:9180\", keys: [ { name: ops, key: \"0123456789\", role: admin }, { name: eye, key: \"abcdefghij\" } ] }
xds: { address: \"[::1]:18000\" }
store: { keep_revisions: 5, keep_for: 7d }
listeners:
  - { name: edge, address: \"127.0.0.1:0\", protocol: https, proxy_protocol: off }
providers: { file: { path: resources.yaml, watch: false } }
";
        let settings = read(text).unwrap();
        assert_eq!(settings.admin.keys.len(), 2);
        assert_eq!((settings.admin.keys[0].role, settings.admin.keys[1].role), (Role::Admin, Role::Viewer));
        assert_eq!(
            settings.store,
            StoreSettings {
                keep_revisions: 5,
                keep_for: Duration::from_secs(7 * 24 * 3600),
                secrets_key: SecretsKey::Made,
                etcd: None
            }
        );
        assert_eq!(settings.file, Some(FileSettings { path: "resources.yaml".into(), watch: false }));
        assert_eq!(settings.listeners[0].value["proxy_protocol"], "off");
        assert_eq!(settings.listeners[0].at, Some(Position { line: 5, column: 5 }));
        assert!(!format!("{settings:?}").contains("0123456789"));
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let text = "\
admin: { address: \"0.0.0.0:9180\" }
xds: { adress: \"x\" }
providers: { file: { watch: true }, zookeeper: {} }
listeners: [ { address: \"127.0.0.1:1\" }, { name: a }, { name: a } ]
";
        let text = read(text).unwrap_err();
        let parts = [
            "admin.address: expected a loopback address",
            "did you mean `address`",
            "the key `path` is missing",
            "unknown key `zookeeper`",
            "as item 0",
            "found `a` twice",
        ];
        for part in parts {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
        let text = read("admin: { keys: [ { name: a, key: short }, { name: b, role: root } ] }").unwrap_err();
        for part in
            ["at least 8", "admin.keys[1]: the key `key` is missing", "admin.keys[1].role: expected one of: admin, viewer"]
        {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
        assert!(!text.contains("short`"));
    }
}
