//! What every Heddle node is made of: clock, drain, readiness, signals, configuration reading, identity, membership, Consul, sockets, telemetry, values that are shared while they are held. It knows neither xDS nor requests.

pub mod clock;
pub mod config;
pub mod consul;
pub mod drain;
pub mod hex;
pub mod identity;
pub mod membership;
pub mod memory;
pub mod notify;
pub mod readiness;
pub mod settings;
pub mod signal;
pub mod sockets;
pub mod telemetry;
pub mod token;
pub mod weak_map;
