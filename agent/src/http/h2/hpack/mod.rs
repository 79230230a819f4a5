//! Field compression (RFC 7541): blocks to fields and back, over bytes alone. It knows what a field is called, not what it means.
//!
//! Both directions keep one dynamic table each for the life of a connection, so every block of a connection must pass through here, in order, even
//! one whose message nobody wants.

mod class;
mod decoder;
mod encoder;
mod fixed;
mod huffman;
mod integer;
mod policy;
mod table;
#[cfg(test)]
mod tests;

pub(super) use class::is_trim;
pub use class::{Class, Field};
pub use decoder::Decoder;
pub use encoder::Encoder;
