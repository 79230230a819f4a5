//! Who may ask for what: keys and roles, failed attempts, and requests that browsers were tricked into. It knows headers and paths, not resources.

mod failures;
mod guard;
mod keys;

pub(super) use failures::Failures;
pub(super) use guard::{content_type, origin};
pub use keys::{AdminKey, Keys, Role};
pub(super) use keys::{Given, Source, given};
