//! A thin client of Consul: blocking queries by its index rules, and typed answers. It knows neither upstreams nor policies, and keeps nothing.
//!
//! Rules of blocking queries: <https://developer.hashicorp.com/consul/api-docs/features/blocking>.

mod agent;
mod client;
mod crowd;
mod error;
mod health;
mod index;
mod intentions;
mod kv;
mod settings;
mod watch;
mod wire;

#[cfg(test)]
mod tests;

pub use agent::{AgentSelf, CheckStatus, Registration, TtlCheck};
pub use client::Consul;
pub use error::ConsulError;
pub use health::{HealthQuery, Instance, Services, Standing};
pub use index::{Belief, Cursor, Step, Verdict, pause};
pub use intentions::{Intention, IntentionAction};
pub use kv::KvPair;
pub use settings::{Consistency, ConsulSettings, ConsulTls};
pub use watch::{Seen, Watch};
pub use wire::query::Scope;
use wire::{query, tls, transport};
