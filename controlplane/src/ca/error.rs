//! Why the authority cannot do what is wanted of it, in words for operators. It knows no gRPC.

use std::path::PathBuf;

use heddle_node::identity::BundleError;

use super::issuer::IssuerError;
use super::rotation;
use crate::seal::SealError;
use crate::store::StoreError;

/// Why there is no authority, or why it does not do what an operator wants.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A key cannot be sealed or unsealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// What is stored makes no sense.
    #[error("the authority in the store cannot be used: {0}")]
    Damaged(String),
    /// The settings name another trust domain than the store.
    #[error(
        "identity.trust_domain is `{wanted}`, but the store has the authority of `{found}`: all identities would be worthless at once. \
         Set it back, or start with another node.data_dir"
    )]
    TrustDomain {
        /// In the settings.
        wanted: String,
        /// In the store.
        found: String,
    },
    /// A file cannot be read.
    #[error("{path}: {why}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The roots make no bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// Nothing can be signed.
    #[error(transparent)]
    Issuer(#[from] IssuerError),
    /// The rotation does not go that way.
    #[error(transparent)]
    Rotation(#[from] rotation::Refused),
    /// An operator's authority is changed by the operator.
    #[error(
        "the authority comes from identity.ca.certificate: to replace its root, name the new one in identity.ca.also_trusted, wait until \
         `heddle ca show` says that all nodes hold it, then change certificate and key"
    )]
    External,
    /// What an operator asks for cannot be.
    #[error("{0}")]
    Refused(String),
}
