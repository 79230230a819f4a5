//! Choosing an endpoint: pure functions of an immutable view, one worker's load, a key, dice and the time. It knows no sockets and no causes of failure.
//!
//! Nodes are grouped by priority. The highest group that still has a node which stands and was not tried yet is used. Health of a group is ignored when
//! fewer of its nodes stand than the panic threshold says; when no node of any group stands, all are used. Weight zero is never chosen.

mod load;
mod pick;
mod ring;
mod standing;
#[cfg(test)]
mod tests;

mod view;

pub use load::{InFlight, Load};
pub use pick::{Pick, Worker};
pub use ring::{Ring, hash_key};
pub use standing::{Admission, Epoch, Standing, State};
pub use view::{Node, Policy, View};

use smallvec::SmallVec;

/// Ids of nodes that this request has tried already.
pub type Tried = SmallVec<[u64; 4]>;
