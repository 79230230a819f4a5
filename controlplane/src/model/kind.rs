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
    /// `/mesh_services`.
    MeshService,
    /// `/authorization_policies`.
    AuthorizationPolicy,
    /// `/peer_authentications`.
    PeerAuthentication,
}

impl ResourceKind {
    /// Every kind, referenced before referring.
    pub const ALL: [ResourceKind; 15] = [
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
        ResourceKind::MeshService,
        ResourceKind::AuthorizationPolicy,
        ResourceKind::PeerAuthentication,
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
            ResourceKind::MeshService => "mesh_services",
            ResourceKind::AuthorizationPolicy => "authorization_policies",
            ResourceKind::PeerAuthentication => "peer_authentications",
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
            ResourceKind::MeshService => "mesh_service",
            ResourceKind::AuthorizationPolicy => "authorization_policy",
            ResourceKind::PeerAuthentication => "peer_authentication",
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

    /// The provider that it came from (`file` of `r1@file`), `None` when it is kept in the store.
    pub fn provider(&self) -> Option<&str> {
        self.id.rsplit_once('@').map(|(_, provider)| provider)
    }

    /// The id as its author wrote it: `r1` of `r1@file`.
    pub fn local_id(&self) -> &str {
        self.id.rsplit_once('@').map_or(&self.id, |(local, _)| local)
    }

    /// The key as its author wrote it: `routes/r1` of `routes/r1@file`.
    pub fn local(&self) -> Key {
        Key { kind: self.kind, id: self.local_id().into() }
    }

    /// The key of the same resource when it comes from `provider`: `r1@file`.
    pub fn of_provider(&self, provider: &str) -> Key {
        Key { kind: self.kind, id: format!("{}@{provider}", self.id).into() }
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
    /// Path inside the resource (`plugins.limit-count.count`, `uris[2]`, `nodes["a.b:80"]`), empty for the whole.
    pub path: String,
    /// What was expected and what was found.
    pub message: String,
    /// The message says everything by itself (plugins, references): [`Fault::wording`] does not wrap it in its path.
    pub whole: bool,
    /// APISIX's own words for it, where the message says more than they do.
    pub literal: Option<&'static str>,
}

impl Fault {
    /// A fault of the shape of the resource at `path`.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Fault {
        Fault { path: path.into(), message: message.into(), whole: false, literal: None }
    }

    /// A fault whose message is complete by itself.
    pub fn whole(path: impl Into<String>, message: impl Into<String>) -> Fault {
        Fault { path: path.into(), message: message.into(), whole: true, literal: None }
    }

    /// The same fault, which APISIX tells with exactly these words.
    pub fn literally(self, words: &'static str) -> Fault {
        Fault { literal: Some(words), ..self }
    }

    /// The text that Admin API clients of APISIX look for:
    /// `invalid configuration: property "uri" validation failed: …`, items counted from one.
    pub fn wording(&self) -> String {
        if self.whole {
            return self.message.clone();
        }
        let mut text = String::from("invalid configuration: ");
        for step in steps(&self.path) {
            match step {
                Step::Item(index) => text.push_str(&format!("failed to validate item {}: ", index + 1)),
                Step::Property(name) => text.push_str(&format!("property \"{name}\" validation failed: ")),
            }
        }
        text + self.literal.unwrap_or(&self.message)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() || self.whole { f.write_str(&self.message) } else { write!(f, "{}: {}", self.path, self.message) }
    }
}

enum Step<'a> {
    Property(&'a str),
    Item(usize),
}

/// The steps of a fault's path: `a.b[2]["c.d"]` is a, b, item 2, c.d.
fn steps(path: &str) -> Vec<Step<'_>> {
    let mut out = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix("[\"") {
            let (name, tail) = quoted.split_once("\"]").unwrap_or((quoted, ""));
            out.push(Step::Property(name));
            rest = tail;
        } else if let Some(inner) = rest.strip_prefix('[') {
            let (index, tail) = inner.split_once(']').unwrap_or((inner, ""));
            out.push(index.parse().map_or(Step::Property(index), Step::Item));
            rest = tail;
        } else {
            let rest_of = rest.strip_prefix('.').unwrap_or(rest);
            let end = rest_of.find(['.', '[']).unwrap_or(rest_of.len());
            out.push(Step::Property(&rest_of[..end]));
            rest = &rest_of[end..];
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::Fault;

    #[test]
    fn wording_follows_the_path() {
        let fault = Fault::new("upstream.nodes[1].host", "wrong type: expected string, got number");
        assert_eq!(
            fault.wording(),
            "invalid configuration: property \"upstream\" validation failed: property \"nodes\" validation failed: \
             failed to validate item 2: property \"host\" validation failed: wrong type: expected string, got number"
        );
        assert_eq!(
            Fault::new("nodes[\"a.b:80\"]", "m").wording(),
            "invalid configuration: property \"nodes\" validation failed: property \"a.b:80\" validation failed: m"
        );
        let both = Fault::new("id", "object matches none of the required: expected a, or b")
            .literally("object matches none of the required");
        assert_eq!(
            both.wording(),
            "invalid configuration: property \"id\" validation failed: object matches none of the required"
        );
        assert!(both.to_string().ends_with("expected a, or b"));
        assert_eq!(Fault::whole("plugins.x", "unknown plugin [x]").wording(), "unknown plugin [x]");
    }
}
