//! The gRPC APIs: `heddle.admin.v1`, which the command line speaks, and `heddle.identity.v1`, by which nodes get who they are. It knows the keeper, the
//! authority and who may ask them; neither the store nor the agent.

mod auth;
mod authority;
mod codec;
mod explain;
mod identity;
mod masks;
mod nodes;
mod service;
mod status;
mod watch;

#[cfg(test)]
mod tests;

pub use authority::{AuthorityService, sidecars};
pub use explain::{ExplainedPlugin, ExplainedUpstream, Explainer, Explanation, Question};
pub use identity::{IdentityServer, IdentityService};
pub use service::AdminService;
pub use status::StatusService;
