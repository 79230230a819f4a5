//! Capture: the firewall rules that turn an application's traffic to the agent beside it. It knows nothing of what the agent does with it.

mod apply;
mod establish;
mod routing;
mod script;
mod settings;
mod tool;
mod trouble;
mod turn;
mod verify;

#[cfg(test)]
mod tests;

pub use apply::Tools;
pub use script::script;
pub use settings::{CaptureSettings, DNS_PORT, INBOUND_PORT, MAX_ENTRIES, Mark, Mode, OUTBOUND_PORT, Port, Ports, ROUTING_ID};
pub use trouble::CaptureError;
pub use verify::{Doors, Report};
