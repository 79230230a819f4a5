//! Identities judged and shaken hands with, over no network at all.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod handshake;
mod verifying;

use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::{Bundle, Bundles, Identity, SpiffeId, Svid, TrustDomain};

const HOUR: Duration = Duration::from_secs(3_600);

fn domain(name: &str) -> TrustDomain {
    TrustDomain::new(name).unwrap()
}

fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

/// An authority for one trust domain.
pub(crate) struct Authority {
    domain: TrustDomain,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = authority_params(&format!("spiffe://{name}"));
        params.distinguished_name.push(rcgen::DnType::CommonName, format!("{name} {}", fastrand::u64(..)));
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { domain: domain(name), certificate, issuer: Issuer::new(params, key) }
    }

    /// An authority that this one has signed.
    fn intermediate(&self, uri: &str) -> (CertificateDer<'static>, Issuer<'static, KeyPair>) {
        let key = KeyPair::generate().unwrap();
        let mut params = authority_params(uri);
        params.distinguished_name.push(rcgen::DnType::CommonName, format!("intermediate {}", fastrand::u64(..)));
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        (certificate, Issuer::new(params, key))
    }

    pub(crate) fn bundle(&self) -> Bundle {
        Bundle::from_der(self.domain.clone(), vec![self.certificate.clone()]).unwrap()
    }

    pub(crate) fn bundles(&self) -> Bundles {
        Bundles::new(self.bundle())
    }

    fn svid(&self, path: &str) -> Svid {
        self.issue(leaf_params(&format!("spiffe://{}{path}", self.domain)))
    }

    fn issue(&self, params: CertificateParams) -> Svid {
        let (chain, key) = self.issue_any(params);
        Svid::new(chain, key).unwrap()
    }

    fn issue_any(&self, params: CertificateParams) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        (vec![leaf], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
    }

    /// A process that this authority has given an identity, and that trusts it.
    pub(crate) fn member(&self, path: &str) -> Identity {
        let identity = Identity::new();
        identity.set_svid(self.svid(path));
        identity.set_bundles(self.bundles());
        identity
    }
}

fn authority_params(uri: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
}

fn leaf_params(uri: &str) -> CertificateParams {
    let now = super::clock::wall();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    valid(&mut params, now - HOUR, now + HOUR);
    params
}

fn valid(params: &mut CertificateParams, from: SystemTime, to: SystemTime) {
    params.not_before = from.into();
    params.not_after = to.into();
}
