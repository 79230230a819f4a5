//! What upstreams ask of service discovery, and what was found. It knows neither upstreams' usage nor the wire.

mod ask;
mod discovered;
mod endpoints;
mod local;
mod record;
mod watch;

#[cfg(test)]
mod tests;

pub use ask::Ask;
pub use discovered::{Discovered, Found};
pub use watch::{News, Told, Watchers};
