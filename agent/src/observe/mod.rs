//! What the agent tells about itself: counters, access log, trace spans and their exposition. It reads exchanges; it never changes one.

pub mod access_log;
mod exposition;
mod stats;

pub use exposition::TextWriter;
pub use stats::{Codes, Counter, Histogram, RouteShard, RouteStats, Sharded};
