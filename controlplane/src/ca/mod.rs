//! The certificate authority of the mesh: it signs identities for those who prove that they may have them, and tells everybody whom to trust. It knows
//! neither gRPC nor the configuration that the mesh carries.

mod authority;
mod bundles;
mod error;
mod federation;
mod holders;
mod issuer;
mod kubernetes;
mod others;
mod own;
mod rotation;
mod show;
mod sign;
mod stored;
#[cfg(test)]
mod tests;
mod tokens;

pub use authority::Authority;
pub use bundles::Trusted;
pub use error::CaError;
pub use holders::{Holder, Holders, Seat};
pub use issuer::Validity;
pub use others::Fellows;
pub use own::Resident;
pub use rotation::{Phase, Wait};
pub use show::{Federated, Overview, RootView};
pub use sign::{Blame, Decision, PeerRefusal, Proof, Reason, Refusal, Signed};
pub use tokens::Token;
