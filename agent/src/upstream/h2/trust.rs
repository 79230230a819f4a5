//! How long a connection in the mesh may be used: until it is old, or its peer is trusted no more. It knows no requests.

use std::cell::Cell;
use std::time::Duration;

use heddle_node::identity::Identity;
use rustls_pki_types::CertificateDer;
use tokio::time::Instant;
use xxhash_rust::xxh64::xxh64;

/// The oldest that a connection may get: who the peer is and whether it may still be is then found out anew.
const MAX_AGE: Duration = Duration::from_secs(3600);
/// The part of [`MAX_AGE`] by which connections differ, so that those opened together are not renewed together.
const JITTER: f64 = 0.2;

/// Whom this node trusts at the moment of a sweep.
pub(in crate::upstream) struct Trust<'a> {
    identity: &'a Identity,
    /// Counts the changes.
    count: u64,
}

impl<'a> Trust<'a> {
    pub(in crate::upstream) fn now(identity: &'a Identity) -> Trust<'a> {
        Trust { identity, count: *identity.changes().borrow() }
    }
}

/// What a connection in the mesh rests on.
pub(super) struct Vouched {
    /// The certificates that the peer has shown.
    chain: Box<[CertificateDer<'static>]>,
    /// Count of changes at which they were last judged.
    judged: Cell<u64>,
    /// When it is too old.
    until: Instant,
}

impl Vouched {
    /// A connection whose peer has just been judged. `seed` decides how much younger than the oldest it may get.
    pub(super) fn new(chain: &[CertificateDer<'_>], trust: &Trust<'_>, seed: u64, now: Instant) -> Vouched {
        let chain = chain.iter().map(|der| der.clone().into_owned()).collect();
        Vouched { chain, judged: Cell::new(trust.count), until: now + lifetime(seed) }
    }

    /// Whether no further request may use the connection: it is old, or its peer would be refused by the bundles of now.
    pub(super) fn is_over(&self, trust: &Trust<'_>, now: Instant) -> bool {
        if now >= self.until {
            return true;
        }
        if self.judged.replace(trust.count) == trust.count {
            return false;
        }
        let judged = trust.identity.recheck(&self.chain);
        judged.inspect_err(|why| tracing::info!(%why, "a connection in the mesh is given up")).is_err()
    }
}

fn lifetime(seed: u64) -> Duration {
    let drawn = xxh64(&seed.to_le_bytes(), 0) as f64 / u64::MAX as f64;
    MAX_AGE.mul_f64(1.0 - JITTER * drawn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_end_apart_and_in_time() {
        let lives: std::collections::BTreeSet<_> = (0..100).map(lifetime).collect();
        assert!(lives.len() > 90);
        assert!(lives.iter().all(|life| *life <= MAX_AGE && *life >= MAX_AGE.mul_f64(1.0 - JITTER)));
    }
}
