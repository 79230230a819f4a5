//! An authority for tests: it signs requests as a control plane does, and whatever else a test wants signed. It knows no wire.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use heddle_node::clock;
use heddle_node::identity::{Bundle, Bundles, Identity, SpiffeId, Svid, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivatePkcs8KeyDer};

/// An authority for one trust domain.
pub(super) struct Authority {
    pub(super) domain: TrustDomain,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(super) fn new(domain: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.subject_alt_names = vec![SanType::URI(format!("spiffe://{domain}").try_into().unwrap())];
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("{domain} {}", fastrand::u64(..)));
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { domain: TrustDomain::new(domain).unwrap(), certificate, issuer: Issuer::new(params, key) }
    }

    pub(super) fn id(&self, service: &str) -> SpiffeId {
        SpiffeId::service(&self.domain, "default", service).unwrap()
    }

    pub(super) fn bundle(&self) -> Bundle {
        Bundle::from_der(self.domain.clone(), vec![self.certificate.clone()]).unwrap()
    }

    pub(super) fn bundles(&self) -> Bundles {
        Bundles::new(self.bundle())
    }

    fn params(id: &SpiffeId, ttl: Duration) -> CertificateParams {
        let now = clock::wall();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(id.as_str().try_into().unwrap())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.not_before = (now - Duration::from_secs(60)).into();
        params.not_after = (now + ttl).into();
        params
    }

    /// Signs the key of a request for `id`, whatever the request wants.
    pub(super) fn sign(&self, csr: &[u8], id: &SpiffeId, ttl: Duration) -> Vec<CertificateDer<'static>> {
        let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr)).unwrap();
        vec![Self::params(id, ttl).signed_by(&request.public_key, &self.issuer).unwrap().der().clone()]
    }

    /// The identity that a request asks for.
    pub(super) fn asked(csr: &[u8]) -> Option<SpiffeId> {
        let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr)).unwrap();
        assert!(!request.public_key.der_bytes().is_empty());
        request.params.subject_alt_names.iter().find_map(|name| match name {
            SanType::URI(uri) => Some(SpiffeId::parse(uri.as_str()).unwrap()),
            _ => None,
        })
    }

    pub(super) fn svid(&self, id: &SpiffeId, ttl: Duration) -> Svid {
        let key = KeyPair::generate().unwrap();
        let leaf = Self::params(id, ttl).signed_by(&key, &self.issuer).unwrap().der().clone();
        Svid::new(vec![leaf], PrivatePkcs8KeyDer::from(key.serialize_der()).into()).unwrap()
    }

    /// A process with this identity, which trusts this authority.
    pub(super) fn member(&self, id: &SpiffeId) -> Identity {
        let identity = Identity::new();
        identity.set_bundles(self.bundles());
        identity.set_svid(self.svid(id, Duration::from_secs(3_600)));
        identity
    }
}
