//! The commands that talk to a control plane: requests out, answers printed. Protobuf stays in this folder.

mod change;
mod identity;
mod look;
mod mesh;
mod render;
mod rollout;
mod session;
mod standing;

pub use change::{apply, delete, diff, rollback};
pub use identity::{ca, token};
pub use look::{explain, get, history, nodes};
pub use mesh::mesh;
pub use render::table;
pub use rollout::rollout;
pub use session::ClientError;
