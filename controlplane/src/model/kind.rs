//! Names of things: kinds of user resources, their keys, and a fault found in one.

use std::fmt;
use std::sync::Arc;

/// The kinds of user resources, in an order in which references only point backwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceKind {
    /// `/secrets/{manager}/{id}`; the id is `manager/id`.
    Secret,
    /// `/plugin_metadata/{plugin}`.
    PluginMetadata,
    /// `/ssls`.
    Ssl,
    /// `/upstreams`.
    Upstream,
    /// `/plugin_configs`.
    PluginConfig,
    /// `/services`.
    Service,
    /// `/consumer_groups`.
    ConsumerGroup,
    /// `/consumers`.
    Consumer,
    /// `/consumers/{username}/credentials/{id}`; the id is `username/credentials/id`.
    Credential,
    /// `/global_rules`.
    GlobalRule,
    /// `/routes`.
    Route,
    /// `/listeners`.
    Listener,
}

impl ResourceKind {
    /// Every kind, referenced before referring.
    pub const ALL: [ResourceKind; 12] = [
        ResourceKind::Secret,
        ResourceKind::PluginMetadata,
        ResourceKind::Ssl,
        ResourceKind::Upstream,
        ResourceKind::PluginConfig,
        ResourceKind::Service,
        ResourceKind::ConsumerGroup,
        ResourceKind::Consumer,
        ResourceKind::Credential,
        ResourceKind::GlobalRule,
        ResourceKind::Route,
        ResourceKind::Listener,
    ];

    /// The collection in URLs and files, for example `routes`.
    pub fn plural(self) -> &'static str {
        match self {
            ResourceKind::Secret => "secrets",
            ResourceKind::PluginMetadata => "plugin_metadata",
            ResourceKind::Ssl => "ssls",
            ResourceKind::Upstream => "upstreams",
            ResourceKind::PluginConfig => "plugin_configs",
            ResourceKind::Service => "services",
            ResourceKind::ConsumerGroup => "consumer_groups",
            ResourceKind::Consumer => "consumers",
            ResourceKind::Credential => "credentials",
            ResourceKind::GlobalRule => "global_rules",
            ResourceKind::Route => "routes",
            ResourceKind::Listener => "listeners",
        }
    }

    /// One of it, for example `route`, as messages and `/schema/{name}` say it.
    pub fn singular(self) -> &'static str {
        match self {
            ResourceKind::Secret => "secret",
            ResourceKind::PluginMetadata => "plugin_metadata",
            ResourceKind::Ssl => "ssl",
            ResourceKind::Upstream => "upstream",
            ResourceKind::PluginConfig => "plugin_config",
            ResourceKind::Service => "service",
            ResourceKind::ConsumerGroup => "consumer_group",
            ResourceKind::Consumer => "consumer",
            ResourceKind::Credential => "credential",
            ResourceKind::GlobalRule => "global_rule",
            ResourceKind::Route => "route",
            ResourceKind::Listener => "listener",
        }
    }

    /// The kind with this collection name.
    pub fn from_plural(name: &str) -> Option<ResourceKind> {
        ResourceKind::ALL.into_iter().find(|kind| kind.plural() == name)
    }
}

/// A kind and an id: what names one user resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// What it is.
    pub kind: ResourceKind,
    /// Unique within the kind; `name@provider` when it came from a provider.
    pub id: Arc<str>,
}

impl Key {
    /// A key.
    pub fn new(kind: ResourceKind, id: impl Into<Arc<str>>) -> Key {
        Key { kind, id: id.into() }
    }
}

impl fmt::Display for Key {
    /// `routes/r1`; a credential reads `consumers/jack/credentials/c1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ResourceKind::Credential => write!(f, "consumers/{}", self.id),
            kind => write!(f, "{}/{}", kind.plural(), self.id),
        }
    }
}

/// One fault found in a user resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Dotted path inside the resource (`plugins.limit-count.count`, `uris[2]`), empty for the whole.
    pub path: String,
    /// What was expected and what was found.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.path, self.message) }
    }
}
