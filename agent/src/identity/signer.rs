//! Who signs identities, seen from those who want one: a request goes in, a chain and the present bundles come out. It knows no wire.

use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use heddle_node::identity::{Bundles, SpiffeId};
use rustls_pki_types::CertificateDer;

/// What shows who asks.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Proof {
    /// The present identity, on the connection itself.
    Svid,
    /// A one-time token.
    JoinToken(String),
    /// A service-account token of Kubernetes.
    ServiceAccount(String),
}

/// What was signed, and what the signer knows besides.
#[derive(Debug, Clone)]
pub(super) struct Signed {
    /// Leaf first.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// Whom to trust from now on.
    pub(super) trust: Trust,
    /// The clock of the signer.
    pub(super) server_time: SystemTime,
}

/// Bundles with the name of their version, which the control plane wants to hear back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Trust {
    pub(super) bundles: Bundles,
    pub(super) version: String,
}

/// Why nothing was signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SignError {
    /// It was said no; asking again helps only when something else has changed.
    #[error("the control plane refuses to sign: {0}")]
    Refused(String),
    /// It cannot now.
    #[error("the control plane cannot sign now: {why}")]
    Busy {
        /// In its words.
        why: String,
        /// When to ask again.
        after: Option<Duration>,
    },
    /// It was not reached.
    #[error("{0}")]
    Unreachable(String),
    /// What it sent is of no use.
    #[error("the answer of the control plane is of no use: {0}")]
    Useless(String),
    /// There is nothing to show.
    #[error("{0}")]
    NoProof(String),
    /// It belongs to somebody else.
    #[error("the control plane has signed {got}, but this process is {wanted}: the token was made for another service")]
    Other {
        /// Who it is by the certificate.
        got: SpiffeId,
        /// Who it should be by the configuration.
        wanted: SpiffeId,
    },
}

/// Signs requests.
pub(super) trait Signer: Send + Sync {
    /// Has a certificate request (PKCS #10, DER) signed.
    fn sign<'a>(&'a self, csr: &'a [u8], proof: &'a Proof) -> BoxFuture<'a, Result<Signed, SignError>>;
}
