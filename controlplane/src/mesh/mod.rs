//! The services of the mesh: what is known of each beside what its owner wrote. It knows no wire and no translation.

mod directory;

/// The trust domain where nothing says another.
pub const DEFAULT_TRUST_DOMAIN: &str = "heddle.local";

pub use directory::{Directory, Found, Known};
