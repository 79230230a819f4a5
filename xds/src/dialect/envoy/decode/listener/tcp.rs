//! What a listener does with bytes that nobody looks into: `TcpProxy`. It knows neither sockets nor clusters.

use std::time::Duration;

use super::super::piece::{Target, TcpProxy};
use super::super::read::{Fault, Fields, Read};

/// How long nothing may move, where nothing is said.
const IDLE: Duration = Duration::from_secs(3600);
/// Fields that say nothing about where bytes go: statistics and logs.
const IGNORED: [&str; 5] =
    ["stat_prefix", "access_log", "access_log_options", "access_log_flush_interval", "flush_access_log_on_connected"];

/// How old connections may become.
pub(super) const AGE: &str = "max_downstream_connection_duration";

/// Reads the proxy.
pub(super) fn read(fields: &mut Fields<'_>) -> Read<TcpProxy> {
    fields.ignore(&IGNORED);
    for (name, reason) in [
        ("metadata_match", "is not supported"),
        ("tunneling_config", "is not supported"),
        ("on_demand", "is not supported: clusters are known by CDS"),
    ] {
        fields.refuse(name, reason)?;
    }
    let single = fields.text("cluster")?.map(|cluster| vec![Target { cluster: cluster.into(), weight: 1 }]);
    let weighted = fields.message("weighted_clusters", |weighted| {
        weighted.list("clusters", |share| {
            share.refuse("metadata_match", "is not supported")?;
            let weight = share.small("weight")?.filter(|weight| *weight > 0);
            let weight = weight.ok_or_else(|| Fault::new("weight", "expected a number above 0"))?;
            Ok(Target { cluster: share.name("name")?, weight })
        })
    })?;
    let targets = match (single, weighted) {
        (Some(targets), None) | (None, Some(targets)) if !targets.is_empty() => targets,
        _ => return Err(Fault::new("cluster", "expected exactly one of cluster and weighted_clusters")),
    };
    let attempts = match fields.small("max_connect_attempts")? {
        Some(0) => return Err(Fault::new("max_connect_attempts", "expected a number above 0")),
        attempts => attempts.unwrap_or(1),
    };
    let idle = fields.duration("idle_timeout")?.unwrap_or(IDLE);
    let by_source = fields.list("hash_policy", |policy| {
        policy.refuse("filter_state", "is not supported: expected source_ip")?;
        policy.required("source_ip", |source| source.skip())
    })?;
    let age = fields.duration(AGE)?.unwrap_or_default();
    Ok(TcpProxy { targets, idle, age, attempts, by_source: !by_source.is_empty() })
}
