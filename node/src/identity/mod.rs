//! Who this process is and whom it trusts: SPIFFE ids, bundles, the present identity, and TLS that reads both at every handshake. It knows neither
//! who signs identities nor what flows over the connections.

mod bundle;
mod leaf;
mod pem;
mod refused;
mod spiffe_id;
mod svid;
mod tls;
mod verify;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;

pub use bundle::{Bundle, BundleError, Bundles, MAX_BUNDLE_BYTES, MAX_ROOTS, domain_of_roots};
pub use refused::{Refusals, Refused, Told};
pub use spiffe_id::{MAX_ID_BYTES, MAX_TRUST_DOMAIN_BYTES, SpiffeId, SpiffeIdError, TrustDomain};
pub use svid::{Svid, SvidError};
pub use tls::{ClientAuth, Expect, nameless};
pub use verify::{CLOCK_TOLERANCE, MAX_CHAIN, Rejection, Usage};

use crate::clock;

/// The shared handle of who this process is: cheap to clone, one per process. TLS configurations made from it read the present certificate and the
/// present bundles at every handshake, so that rotation rebuilds nothing and cuts no connection.
#[derive(Debug, Clone)]
pub struct Identity(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    svid: ArcSwapOption<Svid>,
    bundles: ArcSwap<Bundles>,
    changes: watch::Sender<u64>,
    refusals: Refusals,
}

impl Default for Identity {
    fn default() -> Self {
        Self::new()
    }
}

impl Identity {
    /// Of a process that is nobody yet and trusts nobody.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            svid: ArcSwapOption::empty(),
            bundles: ArcSwap::from_pointee(Bundles::default()),
            changes: watch::Sender::new(0),
            refusals: Refusals::default(),
        }))
    }

    /// From the next handshake on this process is who `svid` says.
    pub fn set_svid(&self, svid: Svid) {
        self.0.svid.store(Some(Arc::new(svid)));
        self.0.changes.send_modify(|count| *count += 1);
    }

    /// From the next handshake on these are trusted. Whether peers of open connections still are, [`Identity::recheck`] tells.
    pub fn set_bundles(&self, bundles: Bundles) {
        self.0.bundles.store(Arc::new(bundles));
        self.0.changes.send_modify(|count| *count += 1);
    }

    /// The present identity.
    #[must_use]
    pub fn svid(&self) -> Option<Arc<Svid>> {
        self.0.svid.load_full()
    }

    /// Whom this process trusts at present.
    #[must_use]
    pub fn bundles(&self) -> Arc<Bundles> {
        self.0.bundles.load_full()
    }

    /// Counts how often identity or bundles have changed: what wants to look again waits for it.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Peers that were refused and of whom nobody has been told yet.
    #[must_use]
    pub fn refusals(&self) -> &Refusals {
        &self.0.refusals
    }

    /// Notes a peer that was refused for this, to be told of.
    pub fn note_refused(&self, peer: Option<std::net::IpAddr>, rejection: &Rejection) {
        self.0.refusals.note(Refused {
            at_ms: clock::unix_ms(),
            reason: rejection.label(),
            peer,
            subject: rejection.subject().map(ToString::to_string).unwrap_or_default(),
            detail: rejection.to_string(),
            count: 1,
        });
    }

    /// Judges the peer of an open connection again, by the bundles of now. That its leaf has expired since the handshake is no reason to refuse it:
    /// how old a connection may get is bounded elsewhere.
    ///
    /// # Errors
    /// Why it would be refused: mostly because its root is trusted no more.
    pub fn recheck(&self, chain: &[CertificateDer<'_>]) -> Result<SpiffeId, Rejection> {
        verify::verify(&self.0.bundles.load(), chain, verify::AnyUse, clock::wall(), verify::Times::Ignored)
    }
}

/// Who the peer of a connection is, from the chain that its handshake has verified already.
#[must_use]
pub fn peer_of(chain: &[CertificateDer<'_>]) -> Option<SpiffeId> {
    leaf::Leaf::read(chain.first()?).ok().map(|leaf| leaf.id)
}

/// When a certificate ends, whatever it is for; `None` when it cannot be read.
#[must_use]
pub fn end_of(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    leaf::end(certificate)
}

/// Until when the peer of a connection is believed, from the same: its leaf's end, and what is allowed for clocks that lag.
#[must_use]
pub fn good_until(chain: &[CertificateDer<'_>]) -> Option<SystemTime> {
    let leaf = leaf::Leaf::read(chain.first()?).ok()?;
    Some(leaf.not_after + verify::tolerance(leaf.not_before, leaf.not_after))
}
