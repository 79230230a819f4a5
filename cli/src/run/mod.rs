//! Starting things: the whole, a control plane or an agent, until a signal ends it.

mod allocator;
mod bootstrap;
mod demo;
mod fleet;
mod start;

pub use bootstrap::BootstrapError;
pub use demo::echo;
pub use start::{agent, all, control_plane};
