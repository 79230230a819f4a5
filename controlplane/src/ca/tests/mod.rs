//! The authority as a whole, on a store of its own and with a clock that stands still.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod roots;
mod several;
mod signing;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use heddle_node::identity::{SpiffeId, Usage};
use heddle_xds::link::{Peer, PeerIdentity};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType};

use super::*;
use crate::seal::Seal;
use crate::settings::{CaFiles, IdentitySettings};
use crate::store::{Clock, Embedded};

const START: u64 = 1_700_000_000_000;
const WEB: &str = "spiffe://heddle.local/ns/default/svc/web";
const API: &str = "spiffe://heddle.local/ns/default/svc/api";

/// A control plane's authority, its folder and its clock.
struct Place {
    folder: tempfile::TempDir,
    now_ms: Arc<AtomicU64>,
    settings: IdentitySettings,
}

impl Place {
    fn new() -> Place {
        let settings = IdentitySettings { svid_ttl: Duration::from_secs(3_600), ..IdentitySettings::default() };
        Place { folder: tempfile::tempdir().unwrap(), now_ms: Arc::new(AtomicU64::new(START)), settings }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    async fn open(&self) -> Result<Authority, CaError> {
        let now_ms = self.now_ms.clone();
        let clock: Clock = Arc::new(move || now_ms.load(Ordering::SeqCst));
        let store = Arc::new(Embedded::open(self.path(), clock.clone()).unwrap());
        let seal = Arc::new(Seal::open(&self.path().join("secrets.key")).unwrap());
        Authority::open(self.settings.clone(), store, seal, clock, fastrand::Rng::with_seed(7)).await
    }

    fn later(&self, seconds: u64) {
        self.now_ms.fetch_add(seconds * 1_000, Ordering::SeqCst);
    }

    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.now_ms.load(Ordering::SeqCst))
    }
}

/// A request for an identity, and its key.
fn request(id: Option<&str>) -> (Vec<u8>, KeyPair) {
    let key = KeyPair::generate().unwrap();
    (request_with(id, &key), key)
}

fn request_with(id: Option<&str>, key: &KeyPair) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = id.into_iter().map(|id| SanType::URI(id.try_into().unwrap())).collect();
    params.serialize_request(key).unwrap().der().to_vec()
}

fn clear() -> Peer {
    Peer::Clear("127.0.0.1:4711".parse().unwrap())
}

/// The connection of whoever has this certificate.
fn connection(signed: &Signed) -> Peer {
    let identity = PeerIdentity { id: signed.id.clone(), chain: signed.chain.clone(), good_until: signed.not_after };
    Peer::Tls { address: "10.0.0.1:4711".parse().unwrap(), identity: Some(Arc::new(identity)) }
}

/// Lets a service join with a token of its own.
async fn join(authority: &Authority, service: &str) -> Signed {
    let (token, _) = authority.create_token("default", service, None, "ops").await.unwrap();
    authority.sign(&request(None).0, &Proof::Token(token), &clear()).await.unwrap()
}

/// The newest decision.
async fn last(authority: &Authority) -> Decision {
    authority.journal(None, 1, false).await.unwrap().remove(0).1
}

/// Verifies a certificate by the bundles of the authority.
fn verify(authority: &Authority, signed: &Signed, now: SystemTime) -> Result<SpiffeId, String> {
    let trusted = authority.trusted().borrow().clone();
    trusted.bundles.verify(&signed.chain, Usage::Client, now).map_err(|rejection| rejection.to_string())
}
