//! What one upstream asks of Consul. Upstreams that ask the same share one watcher.

use std::collections::BTreeMap;

use heddle_node::consul::{HealthQuery, Scope};
use serde::{Deserialize, Serialize};

use crate::model::resources::{DiscoveryArgs, Upstream};
use crate::model::{Key, ResourceKind};

/// What one upstream asks of Consul.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ask {
    /// Name of the service, or of the prepared query.
    pub service: String,
    /// Datacenter, when it is not that of the settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datacenter: Option<String>,
    /// Namespace, when it is not that of the settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Nearest to this node first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub near: Option<String>,
    /// Tags that an instance must have, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Meta that an instance's node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_meta: BTreeMap<String, String>,
    /// Instances with a check that does not pass are not even known.
    #[serde(default)]
    pub only_passing: bool,
    /// The port of all instances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Instances at addresses of hosts themselves, of their links and of clouds' metadata services, or with names, are left out.
    #[serde(default, skip_serializing_if = "is_off")]
    pub no_local: bool,
    /// `service` is a prepared query.
    #[serde(default)]
    pub prepared_query: bool,
}

fn is_off(flag: &bool) -> bool {
    !*flag
}

impl Ask {
    /// What an upstream asks of Consul, when it does.
    pub fn of(upstream: &Upstream) -> Option<Ask> {
        let service = upstream.service_name.clone().filter(|_| upstream.discovery_type.as_deref() == Some("consul"))?;
        let none = DiscoveryArgs::default();
        let args = upstream.discovery_args.as_ref().unwrap_or(&none);
        let mut tags = args.tags.clone();
        tags.sort_unstable();
        tags.dedup();
        Some(Ask {
            service,
            datacenter: args.datacenter.clone(),
            namespace: args.namespace.clone(),
            near: args.near.clone(),
            tags,
            node_meta: args.node_meta.clone(),
            only_passing: args.only_passing,
            port: args.port,
            no_local: args.allow_local == Some(false),
            prepared_query: args.prepared_query,
        })
    }

    /// What Consul is asked.
    pub(super) fn query(&self) -> HealthQuery {
        HealthQuery {
            service: self.service.clone(),
            scope: self.scope(),
            tags: self.tags.clone(),
            near: self.near.clone(),
            only_passing: self.only_passing,
            node_meta: self.node_meta.clone(),
        }
    }

    pub(super) fn scope(&self) -> Scope {
        Scope { datacenter: self.datacenter.clone(), namespace: self.namespace.clone() }
    }

    /// It in one line, which [`Ask::parse`] reads.
    pub fn text(&self) -> String {
        // Texts, lists and maps of texts always have a form in JSON.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads [`Ask::text`].
    pub fn parse(text: &str) -> Option<Ask> {
        serde_json::from_str(text).ok()
    }

    /// The name by which translations note that they looked at it. No resource has such an id.
    pub fn key(&self) -> Key {
        Key::new(ResourceKind::Upstream, format!("?consul{}", self.text()))
    }
}
