//! What the plugins that limit have in common: what is counted by, bounded state by key, requests that wait. It knows no plugin.

mod acted;
mod key;
mod store;
mod waiting;

pub(crate) use acted::Acted;
pub(crate) use key::{Key, KeyType};
pub(crate) use store::{Entry, Stays, Store};
pub(crate) use waiting::{Ticket, Waiting};

use serde_json::{Map, Value};
use xxhash_rust::xxh3::xxh3_128;

use super::check::Faults;

/// Under which key state is kept: by place and by those properties of the configuration that concern the state, so that it outlives a change of all others.
pub(crate) fn state_key(plugin: &str, origin: &str, config: &Value, concerning: &[&str]) -> String {
    let of_interest = |(name, _): &(&String, &Value)| concerning.contains(&name.as_str());
    let properties =
        config.as_object().map(|all| all.iter().filter(of_interest).map(|(name, value)| (name.clone(), value.clone())));
    let subset: Map<String, Value> = properties.into_iter().flatten().collect();
    format!("{plugin}/{origin}/{:032x}", xxh3_128(Value::Object(subset).to_string().as_bytes()))
}

/// Adds the fault of a place for counters that is not there yet, or that nobody knows.
pub(crate) fn check_policy(policy: &str, faults: &mut Faults) {
    match policy {
        "local" => {}
        "redis" | "redis-cluster" | "redis-sentinel" => {
            faults.add("policy", format!("{policy} comes in a later version; use local, which counts on each node by itself"));
        }
        other => faults.add("policy", format!("matches none of the enum values: got {other}, expected local")),
    }
}
