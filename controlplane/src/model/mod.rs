//! User resources: what people write, in APISIX's vocabulary. Nothing here knows where they are stored or how they are translated.

mod addr;
mod carried;
mod expr;
mod kind;
mod mesh;
mod parse;
mod references;
pub mod resources;
mod schemas;
mod semantics;
mod shape;
#[cfg(test)]
mod tests;
mod types;

pub use addr::{canonical, network, socket};
pub use carried::{carriers, carriers_mut, carrying};
pub use expr::check as check_expression;
pub use kind::{Fault, Key, ResourceKind};
pub use mesh::{Caller, DEFAULT_NAMESPACE, ServiceId};
pub use parse::{UserResource, check_schema, parse, validate};
pub use references::{Reference, references};
pub use schemas::{MANAGERS, schema};
pub use types::{Id, Labels, Plugins, Size, Span, Timeout, seconds};
