//! Starting things: the whole, a control plane or an agent, until a signal ends it.

mod demo;
mod fleet;
mod start;

pub use demo::echo;
pub use start::{agent, all, control_plane};
