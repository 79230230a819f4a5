//! Reading configuration documents, so that every mistake is reported at once and at its place. It knows no setting of anybody: each section reads itself.

mod expand;
mod mistake;
mod parse;
mod scalar;
mod secret;
mod section;
mod tree;
mod units;

#[cfg(test)]
mod tests;

pub use expand::{Environment, Expansion};
pub use mistake::{Mistake, Mistakes, suggest};
pub use parse::{Format, MAX_DEPTH, MAX_DOCUMENT_BYTES, MAX_NODES};
pub use secret::Secret;
pub use section::Section;
pub use tree::{Data, Document, Entry, Node, Position};
pub use units::{parse_duration, parse_size};
