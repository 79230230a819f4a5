//! What the plugins that limit have in common: what is counted by, bounded state by key, requests that wait. It knows no plugin.

mod acted;
mod key;
mod policy;
pub(crate) mod redis;
mod store;
mod uses;
mod waiting;

pub(crate) use acted::Acted;
pub(crate) use key::{Key, KeyType};
pub(crate) use policy::Policy;
pub(crate) use redis::{Shelf, with_redis};
pub(crate) use store::{Entry, Stays, Store};
pub use uses::Uses;
pub(crate) use uses::Window;
pub(crate) use waiting::{Ticket, Waiting};

use serde_json::{Map, Value};
use xxhash_rust::xxh3::xxh3_128;

/// Under which key state is kept: by place and by those properties of the configuration that concern the state, so that it outlives a change of all others.
pub(crate) fn state_key(plugin: &str, origin: &str, config: &Value, concerning: &[&str]) -> String {
    let of_interest = |(name, _): &(&String, &Value)| concerning.contains(&name.as_str());
    let properties =
        config.as_object().map(|all| all.iter().filter(of_interest).map(|(name, value)| (name.clone(), value.clone())));
    let subset: Map<String, Value> = properties.into_iter().flatten().collect();
    format!("{plugin}/{origin}/{:032x}", xxh3_128(Value::Object(subset).to_string().as_bytes()))
}
