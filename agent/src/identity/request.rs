//! A key of our own and the request to have it signed. The key stays in memory; it is P-256, which every peer and every authority knows.

use heddle_node::identity::{SpiffeId, Svid, SvidError};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

/// A key that waits for its certificate.
pub(super) struct Request {
    key: KeyPair,
    csr: Vec<u8>,
}

impl Request {
    /// Makes a key and asks for `id`, or for whoever the proof belongs to.
    ///
    /// # Errors
    /// In words: there is no randomness.
    pub(super) fn new(id: Option<&SpiffeId>) -> Result<Self, String> {
        let made = || {
            let key = KeyPair::generate()?;
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            params.subject_alt_names =
                id.map(|id| Ok(SanType::URI(id.as_str().try_into()?))).into_iter().collect::<Result<_, rcgen::Error>>()?;
            let csr = params.serialize_request(&key)?.der().to_vec();
            Ok::<_, rcgen::Error>(Self { key, csr })
        };
        made().map_err(|error| format!("no key could be made: {error}"))
    }

    /// The request, PKCS #10 as DER.
    pub(super) fn csr(&self) -> &[u8] {
        &self.csr
    }

    /// Puts the certificate that came back and the key together.
    ///
    /// # Errors
    /// They do not belong together, or the certificate is no identity.
    pub(super) fn fulfil(&self, chain: Vec<CertificateDer<'static>>) -> Result<Svid, SvidError> {
        Svid::new(chain, PrivatePkcs8KeyDer::from(self.key.serialize_der()).into())
    }
}
