//! Where a limit is kept, as users say it. It keeps nothing.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::super::check::Faults;

/// Where a limit is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Policy {
    /// On each node by itself, exact over its workers.
    #[default]
    Local,
    /// In a Redis, exact over all nodes that use it.
    Redis,
    /// On each node, with what the others say that they have let through: nearly right over all nodes of a group.
    Gossip,
}

impl Policy {
    /// Adds the fault of a limit that cannot be shared by gossip.
    pub(crate) fn must_be_exact(self, faults: &mut Faults) {
        if self == Policy::Gossip {
            faults
                .add("policy", "gossip is for limit-count alone, since what others say comes too late here; use local or redis");
        }
    }
}

impl<'de> Deserialize<'de> for Policy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Policy, D::Error> {
        let why = match String::deserialize(deserializer)?.as_str() {
            "local" => return Ok(Policy::Local),
            "redis" => return Ok(Policy::Redis),
            "gossip" => return Ok(Policy::Gossip),
            kin @ ("redis-cluster" | "redis-sentinel") => {
                format!("{kin} is not known here; use redis with the address of a proxy, or a name that leads to the primary")
            }
            other => format!("matches none of the enum values: got {other}, expected local, redis or gossip"),
        };
        Err(serde::de::Error::custom(why))
    }
}
