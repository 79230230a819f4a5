//! How the control plane uses Consul: where it is, and what of it becomes configuration. It opens nothing.

use heddle_node::config::Section;
use heddle_node::consul::ConsulSettings;

use crate::model::{DEFAULT_NAMESPACE, ServiceId};

/// Where keys are looked for when nothing is said.
const DEFAULT_PREFIX: &str = "heddle";
/// What tags begin with when nothing is said; the first one that fits counts.
const DEFAULT_TAGS: [&str; 2] = ["heddle", "traefik"];
/// The rule of routers without one, as Traefik's default.
const DEFAULT_RULE: &str = "Host(`{{ name }}`)";

/// `providers: { consul }`.
#[derive(Debug, Clone, PartialEq)]
pub struct ConsulProviderSettings {
    /// How it is reached.
    pub client: ConsulSettings,
    /// Resources behind keys.
    pub kv: Option<KvSettings>,
    /// Routes that services ask for by their tags.
    pub catalog: Option<CatalogSettings>,
    /// Intentions as authorization policies.
    pub intentions: Option<IntentionsSettings>,
}

/// `providers: { consul: { kv } }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvSettings {
    /// Keys `PREFIX/COLLECTION/ID` are resources.
    pub prefix: String,
}

/// `providers: { consul: { catalog } }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogSettings {
    /// What tags begin with.
    pub prefixes: Vec<String>,
    /// Whether a service that says nothing gets a route.
    pub exposed_by_default: bool,
    /// The rule of routers without one; `{{ name }}` is the service's name.
    pub default_rule: String,
    /// Which services are looked at, by their tags.
    pub constraints: Option<String>,
    /// Whether services may lead routes to addresses of loopback, of links and of metadata services, and to names.
    pub allow_local: bool,
}

/// `providers: { consul: { intentions } }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntentionsSettings {
    /// The namespace of the mesh whose services Consul's are.
    pub namespace: String,
    /// Whether callers of whom no intention speaks are refused.
    pub deny: bool,
}

impl ConsulProviderSettings {
    /// Reads the keys of one section.
    pub(super) fn read(section: &mut Section<'_>) -> ConsulProviderSettings {
        ConsulProviderSettings {
            client: ConsulSettings::read(section),
            kv: section.optional("kv", KvSettings::read),
            catalog: section.optional("catalog", CatalogSettings::read),
            intentions: section.optional("intentions", IntentionsSettings::read),
        }
    }
}

impl KvSettings {
    fn read(section: &mut Section<'_>) -> KvSettings {
        let prefix = section.name("prefix").unwrap_or_else(|| DEFAULT_PREFIX.to_owned());
        KvSettings { prefix: prefix.trim_matches('/').to_owned() }
    }
}

impl IntentionsSettings {
    fn read(section: &mut Section<'_>) -> IntentionsSettings {
        let namespace = section.name("namespace").unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
        if ServiceId::new(&namespace, "x").is_none() {
            section.mistake("namespace", format!("expected a namespace of the mesh, found `{namespace}`"));
        }
        let deny = section.choice("default", &[("allow", false), ("deny", true)]).unwrap_or(false);
        IntentionsSettings { namespace, deny }
    }
}

impl CatalogSettings {
    fn read(section: &mut Section<'_>) -> CatalogSettings {
        let lower = |text: String| text.to_ascii_lowercase();
        let prefixes = section.strings("prefixes").unwrap_or_else(|| DEFAULT_TAGS.map(str::to_owned).to_vec());
        CatalogSettings {
            prefixes: prefixes.into_iter().map(lower).collect(),
            exposed_by_default: section.bool("exposed_by_default").unwrap_or(false),
            default_rule: section.name("default_rule").unwrap_or_else(|| DEFAULT_RULE.to_owned()),
            constraints: section.name("constraints"),
            allow_local: section.bool("allow_local").unwrap_or(false),
        }
    }
}
