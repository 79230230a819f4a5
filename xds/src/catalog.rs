//! What the control plane may know of plugins: names, order, schemas and a way to check a configuration. The agent implements it; the binary hands it over.

use serde_json::Value;

/// Where a plugin configuration stands, which decides the schema it is checked against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// On a route, service, plugin_config, consumer (non-auth), consumer group or global rule.
    Route,
    /// The credential part of an authentication plugin, on a consumer or credential.
    Consumer,
    /// `plugin_metadata/<name>`.
    Metadata,
}

/// The facts of one plugin that do not depend on a configuration.
#[derive(Debug, Clone)]
pub struct Descriptor {
    /// The name users write, for example `key-auth`.
    pub name: &'static str,
    /// Higher runs first within a phase (APISIX's numbers).
    pub priority: i32,
    /// Version shown by the schema endpoints, for example `0.1`.
    pub version: &'static str,
    /// `auth` for plugins that identify a consumer, otherwise empty.
    pub kind: PluginKind,
    /// Attribute of the consumer configuration that must be unique over all consumers (`key` of key-auth).
    pub unique_consumer_field: Option<&'static str>,
    /// Dotted paths of fields that are encrypted at rest and masked in logs.
    pub encrypt_fields: &'static [&'static str],
    /// Runs from global rules only where the route does not have it enabled itself (`prometheus`).
    pub prefer_route: bool,
}

/// Plugins that edit fields of requests or of answers on their way, with their priorities. Envoys are told what all of them together make of a field, which depends
/// on who comes last.
pub const EDITORS: [(&str, i32); 6] = [
    ("request-id", 12_015),
    ("cors", 4_000),
    ("headers", 2_870),
    ("jwt-auth", 2_510),
    ("proxy-rewrite", 1_008),
    ("response-rewrite", 899),
];

/// Whether a plugin identifies consumers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PluginKind {
    /// Identifies a consumer; may appear in credentials.
    Auth,
    /// Everything else.
    Plain,
}

/// One fault in a plugin configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFault {
    /// Dotted path inside the configuration, empty for the whole (`headers.set`, `whitelist[2]`).
    pub path: String,
    /// What was expected and what was found.
    pub message: String,
}

/// The set of plugins that the data plane runs.
pub trait Catalog: Send + Sync {
    /// All plugins, by descending priority.
    fn descriptors(&self) -> &[Descriptor];
    /// JSON Schema of the configuration at `place`; `None` when the plugin or the place does not exist.
    fn schema(&self, name: &str, place: Place) -> Option<Value>;
    /// All faults found in `config` at `place`, `_meta` included. An unknown name is one fault.
    fn check(&self, name: &str, place: Place, config: &Value) -> Result<(), Vec<ConfigFault>>;

    /// The facts of one plugin.
    fn descriptor(&self, name: &str) -> Option<&Descriptor> {
        self.descriptors().iter().find(|d| d.name == name)
    }
}
