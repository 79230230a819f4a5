//! An identity document with its key: what this process shows of itself. It knows neither who signed it nor when it is renewed.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::leaf::Leaf;
use super::pem;
use super::spiffe_id::SpiffeId;
use super::verify::{MAX_CHAIN, Rejection};

/// Why a chain and a key are no identity.
#[derive(Debug, thiserror::Error)]
pub enum SvidError {
    /// No PEM, or broken PEM.
    #[error("certificate or key is not PEM: {0}")]
    Pem(String),
    /// A key of a kind that is not known, or of another certificate.
    #[error("the key does not fit the certificate: {0}")]
    Key(rustls::Error),
    /// The leaf is no identity.
    #[error("the certificate is no identity: {0}")]
    Certificate(#[from] Rejection),
}

/// An X.509-SVID: a certificate chain, leaf first, whose leaf names one SPIFFE id, and its private key.
pub struct Svid {
    leaf: Leaf,
    certified: Arc<CertifiedKey>,
    key: PrivateKeyDer<'static>,
}

impl Svid {
    /// Puts a chain (leaf first) and its key together. That somebody trusts it is not checked.
    ///
    /// # Errors
    /// The leaf is no identity, or the key is another's.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, SvidError> {
        if chain.len() > MAX_CHAIN {
            return Err(Rejection::TooLong(chain.len()).into());
        }
        let leaf = Leaf::read(chain.first().ok_or(Rejection::NoCertificate)?)?;
        let signer = any_supported_type(&key).map_err(SvidError::Key)?;
        let certified = CertifiedKey::new(chain, signer);
        certified.keys_match().map_err(SvidError::Key)?;
        Ok(Self { leaf, certified: Arc::new(certified), key })
    }

    /// The same from PEM texts.
    ///
    /// # Errors
    /// One of them is not PEM, or see [`Svid::new`].
    pub fn from_pem(chain: &str, key: &str) -> Result<Self, SvidError> {
        Self::new(pem::certificates(chain).map_err(SvidError::Pem)?, pem::key(key).map_err(SvidError::Pem)?)
    }

    /// Who its holder is.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.leaf.id
    }

    /// From when it is valid.
    #[must_use]
    pub fn not_before(&self) -> SystemTime {
        self.leaf.not_before
    }

    /// Until when it is valid.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.leaf.not_after
    }

    /// How long it is valid from `now` on; zero once it is not any more.
    #[must_use]
    pub fn remaining(&self, now: SystemTime) -> Duration {
        self.leaf.not_after.duration_since(now).unwrap_or_default()
    }

    /// The serial number, big-endian, as it stands in the certificate.
    #[must_use]
    pub fn serial(&self) -> &[u8] {
        &self.leaf.serial
    }

    /// The serial number in hexadecimal, as logs and the CA's audit show it.
    #[must_use]
    pub fn serial_hex(&self) -> String {
        crate::hex::encode(&self.leaf.serial)
    }

    /// The chain, leaf first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// The chain as PEM.
    #[must_use]
    pub fn chain_pem(&self) -> String {
        pem::of_certificates(self.chain())
    }

    /// The private key. It leaves the process only where the operator asked for that: towards the own application, or into a file of mode 0600.
    #[must_use]
    pub fn key(&self) -> &PrivateKeyDer<'static> {
        &self.key
    }

    /// The private key as PEM; see [`Svid::key`].
    #[must_use]
    pub fn key_pem(&self) -> String {
        pem::of_key(&self.key)
    }

    /// Chain and key as rustls takes them.
    #[must_use]
    pub fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }
}

/// Without the key, which must not reach any log.
impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svid")
            .field("id", &self.leaf.id)
            .field("serial", &self.serial_hex())
            .field("not_after", &self.leaf.not_after)
            .finish()
    }
}
