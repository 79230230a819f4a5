//! The mutating admission webhook: injects pods when the API server asks. It knows the API server's questions, and of an injection only that it can be done.

mod authorities;
mod configuration;
mod kubernetes;
mod metrics;
mod review;
mod server;
mod settings;
mod tls;

#[cfg(test)]
mod tests;

pub use configuration::{ConfigurationSettings, webhook_configuration};
pub use review::{Policy, Review, Scope, answer};
pub use server::{Running, StartError, start};
pub use settings::{Roots, UpdateSettings, WebhookSettings};
