//! How gossip travels: mutually authenticated streams between nodes, or a net in memory whose links can be cut. Both pass the same suite.

mod frame;
mod handshakes;
mod memory;
mod streams;

pub use memory::{MemoryNet, MemoryTransport};
pub use streams::{Security, StreamTransport, Timing};

#[cfg(test)]
mod tests;
