//! What is asked of whoever comes: where a key stands, failed attempts, and requests that browsers were tricked into. It knows headers and paths, not resources.

mod failures;
mod guard;
mod keys;

pub(super) use failures::Failures;
pub(super) use guard::{content_type, origin};
pub(super) use keys::{Given, Source, given};
