//! The gRPC Admin API `heddle.admin.v1`: what the command line speaks. It knows the keeper and who may ask it; neither the store nor the agent.

mod auth;
mod codec;
mod explain;
mod masks;
mod service;
mod watch;

#[cfg(test)]
mod tests;

pub use explain::{ExplainedPlugin, ExplainedUpstream, Explainer, Explanation, Question};
pub use service::AdminService;
