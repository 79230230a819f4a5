//! Who else belongs to the fleet and what they say of themselves: one handle through which a process is heard and hears. It knows no wire.
//!
//! What members say is a hint. Any member can relay, and so forge, what another one says: nothing about identity, policy or secrets is ever taken from
//! here, and whoever acts on it must bound what a lying or isolated member can do.

mod board;
mod facts;
pub mod gossip;
mod shown;

pub use board::Membership;
pub use facts::{Cell, CellMember, EndpointLoad, Facts, Fleet, LimitUse, Member, MemberState, NodeLoad, Observation, Seen};
pub use shown::json;

/// The role of a control plane among members.
pub const CONTROL_PLANE: &str = "controlplane";
