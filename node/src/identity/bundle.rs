//! Trust bundles: the roots of our own trust domain and of those that we are federated with. It knows neither keys nor connections.

use std::collections::BTreeMap;
use std::time::SystemTime;

use rustls_pki_types::{CertificateDer, TrustAnchor};

use super::leaf::domain_of_authority;
use super::pem;
use super::spiffe_id::{SpiffeId, TrustDomain};
use super::verify::{Rejection, Times, Usage, verify};

/// The most roots of one trust domain: each is a signature to try. Rotation needs two.
pub const MAX_ROOTS: usize = 32;

/// The most bytes of a bundle as PEM.
pub const MAX_BUNDLE_BYTES: usize = 256 * 1024;

/// Why roots make no bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// No PEM, or broken PEM.
    #[error("the trust bundle is not PEM: {0}")]
    Pem(String),
    /// Nothing in it.
    #[error("the trust bundle of {0} has no certificate in it: it would trust nobody")]
    Empty(TrustDomain),
    /// More than [`MAX_ROOTS`] or [`MAX_BUNDLE_BYTES`].
    #[error("the trust bundle of {0} is too large: at most {MAX_ROOTS} roots in {MAX_BUNDLE_BYTES} bytes")]
    TooLarge(TrustDomain),
    /// A certificate that cannot be a root.
    #[error("root {number} of the trust bundle of {domain} is no root certificate: {why}")]
    Root {
        /// Whose bundle.
        domain: TrustDomain,
        /// Which one, from 1.
        number: usize,
        /// What is wrong with it.
        why: String,
    },
}

/// The roots of one trust domain.
#[derive(Debug, Clone)]
pub struct Bundle {
    domain: TrustDomain,
    roots: Vec<CertificateDer<'static>>,
    anchors: Vec<TrustAnchor<'static>>,
}

impl Bundle {
    /// The bundle of these certificates.
    ///
    /// # Errors
    /// There are none, too many, or one cannot be a root.
    pub fn from_der(domain: TrustDomain, roots: Vec<CertificateDer<'static>>) -> Result<Self, BundleError> {
        if roots.is_empty() {
            return Err(BundleError::Empty(domain));
        }
        if roots.len() > MAX_ROOTS {
            return Err(BundleError::TooLarge(domain));
        }
        let mut anchors = Vec::with_capacity(roots.len());
        for (at, root) in roots.iter().enumerate() {
            let anchor = webpki::anchor_from_trusted_cert(root).map_err(|error| BundleError::Root {
                domain: domain.clone(),
                number: at + 1,
                why: error.to_string(),
            })?;
            anchors.push(anchor.to_owned());
        }
        Ok(Self { domain, roots, anchors })
    }

    /// The bundle of the certificates in a PEM text.
    ///
    /// # Errors
    /// It is not PEM, or see [`Bundle::from_der`].
    pub fn from_pem(domain: TrustDomain, text: &str) -> Result<Self, BundleError> {
        if text.len() > MAX_BUNDLE_BYTES {
            return Err(BundleError::TooLarge(domain));
        }
        let roots = pem::certificates(text).map_err(BundleError::Pem)?;
        Self::from_der(domain, roots)
    }

    /// Whose roots they are.
    #[must_use]
    pub fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// The roots, as DER.
    #[must_use]
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// The roots as one PEM text.
    #[must_use]
    pub fn pem(&self) -> String {
        pem::of_certificates(&self.roots)
    }

    pub(super) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }
}

impl PartialEq for Bundle {
    fn eq(&self, other: &Self) -> bool {
        self.domain == other.domain && self.roots == other.roots
    }
}

impl Eq for Bundle {}

/// Whom this node trusts: per trust domain its roots. The default trusts nobody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bundles {
    own: Option<TrustDomain>,
    of: BTreeMap<TrustDomain, Bundle>,
}

impl Bundles {
    /// Trust in our own domain.
    #[must_use]
    pub fn new(own: Bundle) -> Self {
        Self { own: Some(own.domain.clone()), of: BTreeMap::from([(own.domain.clone(), own)]) }
    }

    /// The same, and trust in the identities of another domain. A bundle for our own domain takes the place of the one that is there.
    #[must_use]
    pub fn with_federated(mut self, bundle: Bundle) -> Self {
        self.of.insert(bundle.domain.clone(), bundle);
        self
    }

    /// Our own trust domain; `None` while nobody is trusted.
    #[must_use]
    pub fn own_domain(&self) -> Option<&TrustDomain> {
        self.own.as_ref()
    }

    /// The bundle of our own domain.
    #[must_use]
    pub fn own(&self) -> Option<&Bundle> {
        self.of.get(self.own.as_ref()?)
    }

    /// The bundle of a domain, ours or federated.
    #[must_use]
    pub fn get(&self, domain: &TrustDomain) -> Option<&Bundle> {
        self.of.get(domain)
    }

    /// All bundles, ours among them, by domain.
    pub fn iter(&self) -> impl Iterator<Item = &Bundle> {
        self.of.values()
    }

    /// The bundles of other domains.
    pub fn federated(&self) -> impl Iterator<Item = &Bundle> {
        self.iter().filter(|bundle| Some(&bundle.domain) != self.own.as_ref())
    }

    /// Whose chain (leaf first) this is, if it may be trusted as `usage` at `now`: exactly one URI name, which is a SPIFFE id, no CA as leaf, and a
    /// path to a root of the trust domain of that id.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn verify(&self, chain: &[CertificateDer<'_>], usage: Usage, now: SystemTime) -> Result<SpiffeId, Rejection> {
        verify(self, chain, usage.demanded(), now, Times::Count)
    }
}

/// The trust domain that root certificates name themselves (SPIFFE wants it in their URI name), if all agree. For whoever was given a bundle, but not
/// the name of the domain.
#[must_use]
pub fn domain_of_roots(text: &str) -> Option<TrustDomain> {
    let mut domains = pem::certificates(text).ok()?.into_iter().map(|root| domain_of_authority(&root));
    let first = domains.next()??;
    domains.all(|domain| domain.as_ref() == Some(&first)).then_some(first)
}
