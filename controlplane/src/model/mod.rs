//! User resources: what people write, in APISIX's vocabulary. Nothing here knows where they are stored or how they are translated.

mod kind;

pub use kind::{Fault, Key, ResourceKind};
