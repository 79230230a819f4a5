//! Choosing an endpoint: pure functions of an immutable view, one worker's load, a key, dice and the time. It knows no sockets and no causes of failure.
//!
//! Nodes are grouped by priority. The highest group that still has a node which stands and was not tried yet is used. Health of a group is ignored when
//! fewer of its nodes stand than the panic threshold says; when no node of any group stands, all are used. Weight zero is never chosen.
//!
//! Inside a group the zone of this node comes first, and others help by the shares that `zones` computes. What follows from health, ramps and zones is
//! planned when one of them changes; a request finds a list of parts to try.

mod load;
mod maglev;
mod pick;
mod plan;
mod ring;
mod spread;
mod standing;
#[cfg(test)]
mod tests;

mod tilt;
mod view;
mod zones;

pub use load::{InFlight, Load};
pub use pick::{Pick, Worker};
pub use plan::ZoneShare;
pub use ring::{Ring, hash_key};
pub use standing::{Admission, Epoch, Standing, State};
pub use tilt::{joint_load, tilts};
pub use view::{Node, Policy, View};
pub use zones::{Callers, Zones};

use smallvec::SmallVec;

/// Ids of nodes that this request has tried already.
pub type Tried = SmallVec<[u64; 4]>;
