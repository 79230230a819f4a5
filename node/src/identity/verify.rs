//! Judging the chain that a peer has shown: whose it is, or why it is refused. It knows no connections.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::{CertificateError, OtherError};
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyUsage};

use super::bundle::Bundles;
use super::leaf::{Leaf, vouches_in};
use super::spiffe_id::SpiffeId;

/// The most certificates of a chain: a leaf and four authorities. It bounds the signatures that a stranger makes us check.
pub const MAX_CHAIN: usize = 5;

/// How far the clocks of two nodes may be apart before a leaf counts as expired or as not yet valid; at most a tenth of its lifetime, so that
/// lives of seconds are not stretched.
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(30);

/// What the peer is in the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// It opened the connection.
    Client,
    /// It accepted the connection.
    Server,
}

/// Whether a leaf's times count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Times {
    /// In a handshake.
    Count,
    /// On a connection that is open already: a leaf that has expired since is no reason to cut it.
    Ignored,
}

/// Why a peer was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// It has shown no certificate.
    #[error("the peer has shown no certificate")]
    NoCertificate,
    /// More certificates than [`MAX_CHAIN`].
    #[error("a chain of {0} certificates is too long: at most {MAX_CHAIN}")]
    TooLong(usize),
    /// Not a certificate, or not one that identities have.
    #[error("not an X.509-SVID: {0}")]
    Malformed(String),
    /// No URI among the subject alternative names.
    #[error("the certificate carries no SPIFFE id (no URI among its names): it was not issued for the mesh")]
    NoIdentity,
    /// More than one URI among the subject alternative names.
    #[error("the certificate carries {0} URI names; an identity has exactly one")]
    ManyIdentities(usize),
    /// An authority's certificate where a workload's belongs.
    #[error("the certificate of {id} is an authority's, which nobody may present as a workload's")]
    Authority {
        /// Who it says it is.
        id: SpiffeId,
    },
    /// There is no bundle for its trust domain.
    #[error("{id} is of a trust domain without a bundle here: federate with it if it shall be trusted")]
    ForeignTrustDomain {
        /// Who it says it is.
        id: SpiffeId,
    },
    /// Not signed by a root of its trust domain.
    #[error("{id} is not vouched for by any root of its trust domain: {why}")]
    Untrusted {
        /// Who it says it is.
        id: SpiffeId,
        /// What the check of the chain said.
        why: String,
    },
    /// Its time is over.
    #[error("the certificate of {id} expired {ago_s} s ago: its holder could not renew it, or a clock is wrong")]
    Expired {
        /// Who it says it is.
        id: SpiffeId,
        /// Seconds since then.
        ago_s: u64,
    },
    /// Its time has not come.
    #[error("the certificate of {id} becomes valid in {in_s} s only: a clock is wrong")]
    NotYetValid {
        /// Who it says it is.
        id: SpiffeId,
        /// Seconds until then.
        in_s: u64,
    },
    /// Trusted, but not who was expected.
    #[error("the peer is {id}, expected {expected}")]
    Unexpected {
        /// Who it is.
        id: SpiffeId,
        /// Who should have been there.
        expected: String,
    },
}

/// What TLS itself says of a client that shows nothing.
static NO_CERTIFICATE: Rejection = Rejection::NoCertificate;

impl Rejection {
    /// A short name, for audits.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Rejection::NoCertificate => "no-certificate",
            Rejection::TooLong(_)
            | Rejection::Malformed(_)
            | Rejection::NoIdentity
            | Rejection::ManyIdentities(_)
            | Rejection::Authority { .. } => "malformed-certificate",
            Rejection::ForeignTrustDomain { .. } => "foreign-domain",
            Rejection::Untrusted { .. } => "untrusted",
            Rejection::Expired { .. } => "expired",
            Rejection::NotYetValid { .. } => "not-yet-valid",
            Rejection::Unexpected { .. } => "wrong-identity",
        }
    }

    /// Who the peer says it is, when it has said that.
    #[must_use]
    pub fn subject(&self) -> Option<&SpiffeId> {
        match self {
            Rejection::Authority { id }
            | Rejection::ForeignTrustDomain { id }
            | Rejection::Untrusted { id, .. }
            | Rejection::Expired { id, .. }
            | Rejection::NotYetValid { id, .. }
            | Rejection::Unexpected { id, .. } => Some(id),
            Rejection::NoCertificate
            | Rejection::TooLong(_)
            | Rejection::Malformed(_)
            | Rejection::NoIdentity
            | Rejection::ManyIdentities(_) => None,
        }
    }

    /// The rejection that made a handshake fail at our end, if one did: to be logged, counted and audited. It looks into what TLS and I/O say.
    #[must_use]
    pub fn of<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Rejection> {
        if let Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(inner)))) = error.downcast_ref() {
            return inner.downcast_ref();
        }
        if let Some(rustls::Error::NoCertificatesPresented) = error.downcast_ref() {
            return Some(&NO_CERTIFICATE);
        }
        let within = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        match within {
            Some(within) => Self::of(within),
            None => error.source().and_then(Self::of),
        }
    }
}

/// Judges a chain, leaf first. The roots of other trust domains than the leaf's have no say. Validity of roots is not looked at: what makes a root
/// trusted is that it is in the bundle.
pub(super) fn verify(
    bundles: &Bundles,
    chain: &[CertificateDer<'_>],
    usage: impl ExtendedKeyUsageValidator,
    now: SystemTime,
    times: Times,
) -> Result<SpiffeId, Rejection> {
    let (end, authorities) = chain.split_first().ok_or(Rejection::NoCertificate)?;
    if chain.len() > MAX_CHAIN {
        return Err(Rejection::TooLong(chain.len()));
    }
    let leaf = Leaf::read(end)?;
    let Some(bundle) = bundles.get(leaf.id.trust_domain()) else { return Err(Rejection::ForeignTrustDomain { id: leaf.id }) };
    let at = moment(&leaf, now, times)?;
    let untrusted = |error: webpki::Error| Rejection::Untrusted { id: leaf.id.clone(), why: words(&error) };
    let certificate = EndEntityCert::try_from(end).map_err(untrusted)?;
    let path = certificate
        .verify_for_usage(webpki::ALL_VERIFICATION_ALGS, bundle.anchors(), authorities, at, usage, None, None)
        .map_err(untrusted)?;
    for authority in path.intermediate_certificates() {
        if !vouches_in(&authority.der(), leaf.id.trust_domain().as_str())? {
            let why = "an authority of the chain may not sign, or is of another trust domain".to_owned();
            return Err(Rejection::Untrusted { id: leaf.id, why });
        }
    }
    Ok(leaf.id)
}

/// What is allowed for clocks that differ, at either end of this lifetime.
pub(super) fn tolerance(not_before: SystemTime, not_after: SystemTime) -> Duration {
    CLOCK_TOLERANCE.min(not_after.duration_since(not_before).unwrap_or_default() / 10)
}

/// When the chain is judged: now, or at the end of the leaf's life that is nearest to now.
fn moment(leaf: &Leaf, now: SystemTime, times: Times) -> Result<UnixTime, Rejection> {
    let tolerance = if times == Times::Count { tolerance(leaf.not_before, leaf.not_after) } else { Duration::MAX };
    let early = leaf.not_before.duration_since(now).unwrap_or_default();
    let late = now.duration_since(leaf.not_after).unwrap_or_default();
    if early > tolerance {
        return Err(Rejection::NotYetValid { id: leaf.id.clone(), in_s: early.as_secs() });
    }
    if late > tolerance {
        return Err(Rejection::Expired { id: leaf.id.clone(), ago_s: late.as_secs() });
    }
    let at = now.max(leaf.not_before).min(leaf.not_after);
    Ok(UnixTime::since_unix_epoch(at.duration_since(UNIX_EPOCH).unwrap_or_default()))
}

fn words(error: &webpki::Error) -> String {
    match error {
        webpki::Error::UnknownIssuer => "its issuer is not known here (the bundle is old, or the root was replaced)".to_owned(),
        other => other.to_string(),
    }
}

impl Usage {
    /// What the leaf must be good for. Leaves without extended key usage are good for both.
    pub(super) fn demanded(self) -> KeyUsage {
        match self {
            Usage::Client => KeyUsage::client_auth(),
            Usage::Server => KeyUsage::server_auth(),
        }
    }
}

/// Any use will do: of connections that are open already, the handshake has judged that.
pub(super) struct AnyUse;

impl ExtendedKeyUsageValidator for AnyUse {
    fn validate(&self, _uses: webpki::KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        Ok(())
    }
}
