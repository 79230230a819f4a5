//! Services and their instances, from the catalog, from health and from prepared queries. What becomes of them it does not know.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use super::client::{Consul, decode};
use super::query::{Query, Scope};
use super::watch::Watch;
use super::{ConsulError, transport::Raw};

/// Checks of maintenance mode begin with this (`consul maint`).
const MAINTENANCE: [&str; 2] = ["_node_maintenance", "_service_maintenance"];

/// Which instances of a service are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HealthQuery {
    /// Name of the service.
    pub service: String,
    /// Where.
    pub scope: Scope,
    /// Those with all of these tags.
    pub tags: Vec<String>,
    /// Nearest to this node first; `_agent` is the one that is asked.
    pub near: Option<String>,
    /// Those whose checks all pass.
    pub only_passing: bool,
    /// Those on nodes with all of these in their meta.
    pub node_meta: BTreeMap<String, String>,
}

/// How an instance stands by its checks, and those of its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Standing {
    /// All pass, or there are none.
    #[default]
    Passing,
    /// The worst one warns.
    Warning,
    /// One at least is critical.
    Critical,
    /// An operator took it, or its node, out of service.
    Maintenance,
}

/// One instance of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Instance {
    /// Its id, unique on its node.
    pub id: String,
    /// Name of its service.
    pub service: String,
    /// Name of its node.
    pub node: String,
    /// Where it is: its own address, else its node's.
    pub address: String,
    /// Its port; 0 where it has none.
    pub port: u16,
    /// Where its node is.
    pub datacenter: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// Its meta.
    pub meta: BTreeMap<String, String>,
    /// Its node's meta.
    pub node_meta: BTreeMap<String, String>,
    /// Its zone by its locality, else by the meta `zone` of itself or of its node; empty where none says.
    pub zone: String,
    /// Share while it passes.
    pub weight_passing: u32,
    /// Share while it warns.
    pub weight_warning: u32,
    /// How it stands.
    pub standing: Standing,
}

impl Instance {
    /// Its share as it stands.
    #[must_use]
    pub fn weight(&self) -> u32 {
        if self.standing == Standing::Warning { self.weight_warning } else { self.weight_passing }
    }
}

/// Names of services with the tags that their instances have.
pub type Services = BTreeMap<String, Vec<String>>;

impl Consul {
    /// Watches the instances of a service.
    #[must_use]
    pub fn health(&self, query: &HealthQuery, dice: fastrand::Rng) -> Watch<Vec<Instance>> {
        let mut asked = Query::new("/v1/health/service").segment(&query.service).scope(&self.scope(&query.scope));
        for tag in &query.tags {
            asked = asked.with("tag", tag);
        }
        for (name, value) in &query.node_meta {
            asked = asked.with("node-meta", &format!("{name}:{value}"));
        }
        asked = asked.option("near", query.near.as_deref());
        if query.only_passing {
            asked = asked.with("passing", "1");
        }
        Watch::alone(self, asked, dice, instances).of_many(self.scope(&query.scope))
    }

    /// Watches the names of all services.
    #[must_use]
    pub fn services(&self, scope: &Scope, dice: fastrand::Rng) -> Watch<Services> {
        Watch::alone(self, Query::new("/v1/catalog/services").scope(&self.scope(scope)), dice, |raw, address, query| {
            Ok(decode::<BTreeMap<String, Nullable<Vec<String>>>>(address, query, raw)?
                .into_iter()
                .flatten()
                .map(|(name, tags)| (name, tags.0))
                .collect())
        })
    }

    /// Executes a prepared query by name or id; these cannot be watched.
    ///
    /// # Errors
    /// There is no such query, or Consul did not answer well.
    pub async fn prepared(&self, name: &str, scope: &Scope, near: Option<&str>) -> Result<Vec<Instance>, ConsulError> {
        let query = Query::new("/v1/query").segment(name).segment("execute").scope(&self.scope(scope)).option("near", near);
        let found: Option<RawPrepared> = self.get(&query).await?;
        let address = self.settings().addresses.join(", ");
        let Some(found) = found else {
            let said = format!("there is no prepared query named {name}");
            return Err(ConsulError::Status { address, path: "/v1/query".into(), status: 404, said });
        };
        Ok(found.nodes.0.into_iter().map(Instance::from).collect())
    }
}

fn instances(raw: &Raw, address: &str, query: &Query) -> Result<Vec<Instance>, ConsulError> {
    let found: Option<Nullable<Vec<RawEntry>>> = decode(address, query, raw)?;
    Ok(found.into_iter().flat_map(|found| found.0).map(Instance::from).collect())
}

/// Go's lists and maps are `null` when they are empty.
#[derive(Debug, Clone)]
pub(super) struct Nullable<T>(pub(super) T);

impl<T: Default> Default for Nullable<T> {
    fn default() -> Nullable<T> {
        Nullable(T::default())
    }
}

impl<'de, T: Deserialize<'de> + Default> Deserialize<'de> for Nullable<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Nullable<T>, D::Error> {
        Ok(Nullable(Option::<T>::deserialize(deserializer)?.unwrap_or_default()))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawPrepared {
    #[serde(default)]
    nodes: Nullable<Vec<RawEntry>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct RawEntry {
    node: RawNode,
    service: RawService,
    #[serde(default)]
    checks: Nullable<Vec<RawCheck>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawNode {
    #[serde(default)]
    node: String,
    #[serde(default)]
    address: String,
    #[serde(default)]
    datacenter: String,
    #[serde(default)]
    meta: Nullable<BTreeMap<String, String>>,
    #[serde(default)]
    locality: Nullable<RawLocality>,
}

#[derive(Deserialize, Default, Clone, Debug)]
#[serde(rename_all = "PascalCase")]
struct RawLocality {
    #[serde(default)]
    zone: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawService {
    #[serde(rename = "ID", default)]
    id: String,
    #[serde(default)]
    service: String,
    #[serde(default)]
    address: String,
    /// As wide as anybody may write it: one that is no port must not cost the whole answer.
    #[serde(default)]
    port: i64,
    #[serde(default)]
    tags: Nullable<Vec<String>>,
    #[serde(default)]
    meta: Nullable<BTreeMap<String, String>>,
    #[serde(default)]
    weights: Nullable<RawWeights>,
    #[serde(default)]
    locality: Nullable<RawLocality>,
}

#[derive(Deserialize, Clone, Debug)]
#[serde(rename_all = "PascalCase")]
struct RawWeights {
    #[serde(default = "one")]
    passing: i64,
    #[serde(default = "one")]
    warning: i64,
}

impl Default for RawWeights {
    fn default() -> RawWeights {
        RawWeights { passing: 1, warning: 1 }
    }
}

fn one() -> i64 {
    1
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawCheck {
    #[serde(rename = "CheckID", default)]
    id: String,
    #[serde(default)]
    status: String,
}

impl From<RawEntry> for Instance {
    fn from(entry: RawEntry) -> Instance {
        let RawEntry { node, service, checks } = entry;
        let named = |meta: &BTreeMap<String, String>| meta.get("zone").cloned().unwrap_or_default();
        let (meta, node_meta) = (service.meta.0, node.meta.0);
        let zones = [service.locality.0.zone, named(&meta), node.locality.0.zone, named(&node_meta)];
        Instance {
            zone: zones.into_iter().find(|zone| !zone.is_empty()).unwrap_or_default(),
            id: service.id,
            service: service.service,
            node: node.node,
            address: if service.address.is_empty() { node.address } else { service.address },
            port: u16::try_from(service.port).unwrap_or_default(),
            datacenter: node.datacenter,
            tags: service.tags.0,
            meta,
            node_meta,
            weight_passing: weight(service.weights.0.passing),
            weight_warning: weight(service.weights.0.warning),
            standing: checks.0.iter().map(standing).max().unwrap_or_default(),
        }
    }
}

fn weight(written: i64) -> u32 {
    u32::try_from(written.max(0)).unwrap_or(u32::MAX)
}

fn standing(check: &RawCheck) -> Standing {
    match check.status.as_str() {
        "passing" => Standing::Passing,
        "warning" => Standing::Warning,
        _ if MAINTENANCE.iter().any(|prefix| check.id.starts_with(prefix)) => Standing::Maintenance,
        _ => Standing::Critical,
    }
}
