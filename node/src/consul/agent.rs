//! What a process says of itself to the Consul agent of its host: services, their TTL checks, and who that agent is. When to say it others decide.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::ConsulError;
use super::client::Consul;
use super::query::{Query, Scope};

/// What a check says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    /// It works.
    Passing,
    /// It works, but not well.
    Warning,
    /// It does not work.
    Critical,
}

impl CheckStatus {
    /// Its name in Consul.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            CheckStatus::Passing => "passing",
            CheckStatus::Warning => "warning",
            CheckStatus::Critical => "critical",
        }
    }
}

/// A check that lives from being told about: silence for longer than `ttl` makes it critical.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TtlCheck {
    /// Its id, unique at the agent.
    pub id: String,
    /// What people read.
    pub name: String,
    /// The longest silence.
    pub ttl: Duration,
    /// Consul forgets a service that was critical for this long (at least a minute there); `None`: never.
    pub reap_after: Option<Duration>,
    /// What it says until it is told about.
    pub initial: CheckStatus,
}

/// A service to register with an agent; registering it again changes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Registration {
    /// Its id, unique at the agent.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Where it is; `None`: where the agent is.
    pub address: Option<String>,
    /// Its port.
    pub port: u16,
    /// Its tags.
    pub tags: Vec<String>,
    /// Its meta: at most 64 names of letters, digits, `-` and `_`.
    pub meta: BTreeMap<String, String>,
    /// Share while it passes and while it warns.
    pub weights: Option<(u32, u32)>,
    /// Checks that Heddle keeps.
    pub ttl_checks: Vec<TtlCheck>,
    /// Checks as Consul writes them, that it runs itself.
    pub checks: Vec<Value>,
}

impl Registration {
    /// As Consul writes it.
    pub(super) fn body(&self) -> Value {
        let ttl = self.ttl_checks.iter().map(|check| {
            let mut body = json!({
                "CheckID": check.id,
                "Name": check.name,
                "TTL": format!("{}ms", check.ttl.as_millis()),
                "Status": check.initial,
            });
            if let Some(after) = check.reap_after {
                body["DeregisterCriticalServiceAfter"] = format!("{}s", after.as_secs().max(1)).into();
            }
            body
        });
        let checks: Vec<Value> = ttl.chain(self.checks.iter().cloned()).collect();
        let mut body = json!({
            "ID": self.id,
            "Name": self.name,
            "Port": self.port,
            "Tags": self.tags,
            "Meta": self.meta,
            "Checks": checks,
        });
        if let Some(address) = &self.address {
            body["Address"] = address.as_str().into();
        }
        if let Some((passing, warning)) = self.weights {
            body["Weights"] = json!({ "Passing": passing, "Warning": warning });
        }
        body
    }
}

/// Who the agent is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentSelf {
    /// Its node's name.
    pub node: String,
    /// Its datacenter.
    pub datacenter: String,
    /// Consul's version.
    pub version: String,
    /// Whether it is a server.
    pub server: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawSelf {
    config: RawConfig,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawConfig {
    #[serde(default)]
    node_name: String,
    #[serde(default)]
    datacenter: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    server: bool,
}

impl Consul {
    /// Registers a service with the agent; checks that are not in it any more are gone after it.
    ///
    /// # Errors
    /// The agent did not take it.
    pub async fn register(&self, service: &Registration) -> Result<(), ConsulError> {
        let query = Query::new("/v1/agent/service/register").with("replace-existing-checks", "true").scope(&self.here());
        self.put(&query, Bytes::from(service.body().to_string())).await
    }

    /// Takes a service back. One that is not there any more is no failure.
    ///
    /// # Errors
    /// The agent did not do it.
    pub async fn deregister(&self, id: &str) -> Result<(), ConsulError> {
        let query = Query::new("/v1/agent/service/deregister").segment(id).scope(&self.here());
        match self.put(&query, Bytes::new()).await {
            Err(ConsulError::Status { status: 404, .. }) => Ok(()),
            // Consul before 1.11 answers 500 for a service that it does not know.
            Err(ConsulError::Status { status: 500, said, .. }) if said.starts_with("Unknown service") => Ok(()),
            told => told,
        }
    }

    /// Tells how a TTL check stands. `false`: the agent does not know it (any more), so the service must be registered again.
    ///
    /// # Errors
    /// The agent did not take it.
    pub async fn update_ttl(&self, check: &str, status: CheckStatus, note: &str) -> Result<bool, ConsulError> {
        let query = Query::new("/v1/agent/check/update").segment(check).scope(&self.here());
        let body = json!({ "Status": status, "Output": note }).to_string();
        match self.put(&query, Bytes::from(body)).await {
            Ok(()) => Ok(true),
            Err(ConsulError::Status { status: 404, .. }) => Ok(false),
            // Consul before 1.11 answers 500 for a check that it does not know.
            Err(ConsulError::Status { status: 500, said, .. }) if said.contains("does not have associated TTL") => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Asks the agent who it is.
    ///
    /// # Errors
    /// It did not answer well.
    pub async fn agent_self(&self) -> Result<AgentSelf, ConsulError> {
        let query = Query::new("/v1/agent/self");
        let RawConfig { node_name, datacenter, version, server } = match self.get::<RawSelf>(&query).await? {
            Some(raw) => raw.config,
            None => {
                let (address, why) = (self.settings().addresses.join(", "), "there is nothing (404)".to_owned());
                return Err(ConsulError::Malformed { address, path: query.text().to_owned(), why });
            }
        };
        Ok(AgentSelf { node: node_name, datacenter, version, server })
    }

    /// Agents have a namespace but no other datacenter.
    fn here(&self) -> Scope {
        Scope { datacenter: None, ..self.scope(&Scope::default()) }
    }
}
