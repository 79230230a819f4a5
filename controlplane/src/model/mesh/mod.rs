//! How user resources name services of the mesh and those who call them. It knows no certificate and no instance.

mod caller;
mod service_id;

pub use caller::Caller;
pub use service_id::{DEFAULT_NAMESPACE, ServiceId};
pub(super) use service_id::{NAME_RULE, is_mesh_name};
