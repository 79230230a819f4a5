//! Consul, the real one: the client against its API, and traffic by what it says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "consul/client.rs"]
mod client;
#[path = "consul/configuration.rs"]
mod configuration;
#[path = "consul/discovery.rs"]
mod discovery;
#[path = "consul/intentions.rs"]
mod intentions;
#[path = "consul/registration.rs"]
mod registration;
