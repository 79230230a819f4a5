//! What the agent tells about itself: counters, access log, trace spans and their exposition. It reads exchanges; it never changes one.

pub mod access_log;
pub mod detail;
mod exposition;
mod json_line;
mod mesh;
mod stats;
mod tcp;
mod tracer;

pub use exposition::TextWriter;
pub use mesh::MeshStats;
pub use stats::{Counted, Counter, Durations, RouteShard, RouteStats, Sharded};
pub use tcp::{TcpShard, TcpStats, expose as expose_tcp};
pub use tracer::Tracer;
