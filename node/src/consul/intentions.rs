//! Who may call whom by Consul's intentions. What follows from that others decide.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::ConsulError;
use super::client::{Consul, decode};
use super::health::Nullable;
use super::query::{Query, Scope};
use super::watch::Watch;

/// What an intention says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IntentionAction {
    /// Calls are let through.
    Allow,
    /// Calls are refused.
    Deny,
}

/// One intention.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Intention {
    /// Its id; empty for those of configuration entries (Consul 1.9 and later).
    #[serde(rename = "ID", default)]
    pub id: String,
    /// The caller; `*` is any.
    pub source_name: String,
    /// The caller's namespace.
    #[serde(rename = "SourceNS", default)]
    pub source_namespace: String,
    /// The called one; `*` is any.
    pub destination_name: String,
    /// The called one's namespace.
    #[serde(rename = "DestinationNS", default)]
    pub destination_namespace: String,
    /// What it says; `None` where `permissions` decide request by request.
    #[serde(default, deserialize_with = "action")]
    pub action: Option<IntentionAction>,
    /// Rules by request (Consul 1.9 and later), as Consul writes them.
    #[serde(default)]
    pub permissions: Option<Value>,
    /// Higher goes first.
    #[serde(default)]
    pub precedence: u32,
    /// Conditions on tokens (Consul 1.16 and later), as Consul writes them.
    #[serde(rename = "JWT", default)]
    pub jwt: Option<Value>,
    /// The cluster whose caller it means, when it is not this one (Consul 1.13 and later).
    #[serde(default)]
    pub source_peer: String,
    /// Words of its author.
    #[serde(default)]
    pub description: String,
}

fn action<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<IntentionAction>, D::Error> {
    Ok(match Option::<String>::deserialize(deserializer)?.as_deref() {
        Some("allow") => Some(IntentionAction::Allow),
        Some("deny") => Some(IntentionAction::Deny),
        _ => None,
    })
}

impl Consul {
    /// Watches all intentions.
    #[must_use]
    pub fn intentions(&self, scope: &Scope, dice: fastrand::Rng) -> Watch<Vec<Intention>> {
        let query = Query::new("/v1/connect/intentions").scope(&self.scope(scope));
        Watch::alone(self, query, dice, |raw, address, query| {
            let found: Option<Nullable<Vec<Intention>>> = decode(address, query, raw)?;
            Ok(found.map(|found| found.0).unwrap_or_default())
        })
    }

    /// The intentions that speak of calls to `destination`, the ones that go first first. They carry no index: [`Consul::intentions`] tells when to ask.
    ///
    /// # Errors
    /// Consul did not answer well.
    pub async fn intentions_to(&self, destination: &str, scope: &Scope) -> Result<Vec<Intention>, ConsulError> {
        let query = Query::new("/v1/connect/intentions/match").with("by", "destination").with("name", destination);
        let found: Option<BTreeMap<String, Nullable<Vec<Intention>>>> = self.get(&query.scope(&self.scope(scope))).await?;
        Ok(found.into_iter().flatten().flat_map(|(_, list)| list.0).collect())
    }
}
