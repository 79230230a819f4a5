//! What signs: a root of our own, or an operator's root or intermediate; and the certificates that it makes. It knows nobody who asks.
//!
//! A root of our own signs identities itself (path length 0): it lives where it would be used anyway, sealed in the store, and can be replaced without
//! an outage, so an intermediate of the same process would protect nothing. Whoever keeps a root elsewhere gives the control plane an intermediate.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use heddle_node::hex;
use heddle_node::identity::{SpiffeId, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer as Signer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::rotation::RootMeta;

/// Bytes of a serial number: 127 random bits, so that it is positive.
const SERIAL_BYTES: usize = 16;
/// Certificates of an operator's file, from the one that signs to its root.
const MAX_CHAIN: usize = 5;

/// Why there is no authority, or why it cannot sign.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// The cryptographic library refused.
    #[error("{0}")]
    Crypto(String),
    /// Certificates or a key that make no authority.
    #[error("{0}")]
    Unfit(String),
    /// The authority itself has expired.
    #[error(
        "the authority {fingerprint} is valid until {until}, which has passed; give it a new certificate, or `heddle ca rotate`"
    )]
    Expired {
        /// Of its root.
        fingerprint: String,
        /// Unix seconds.
        until: u64,
    },
}

impl From<rcgen::Error> for IssuerError {
    fn from(error: rcgen::Error) -> IssuerError {
        IssuerError::Crypto(error.to_string())
    }
}

/// When a certificate is valid, in whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// From.
    pub not_before: SystemTime,
    /// Until.
    pub not_after: SystemTime,
}

impl Validity {
    /// Of a certificate made at `now`: from a little in the past, for clocks that lag behind, and no longer than its issuer.
    pub fn within(issuer: Validity, now: SystemTime, ttl: Duration, skew: Duration) -> Option<Validity> {
        let not_before = now.checked_sub(skew).unwrap_or(UNIX_EPOCH).max(issuer.not_before);
        let not_after = now.checked_add(ttl).unwrap_or(issuer.not_after).min(issuer.not_after);
        let validity = Validity { not_before: whole(not_before), not_after: whole(not_after) };
        (validity.not_after > now).then_some(validity)
    }
}

/// Certificates know whole seconds only.
fn whole(time: SystemTime) -> SystemTime {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

/// A certificate that was made.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The leaf, then intermediates; without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// When it is valid.
    pub validity: Validity,
    /// Its serial number, hex.
    pub serial: String,
}

/// What signs.
pub struct Issuer {
    root: CertificateDer<'static>,
    /// From the certificate that signs up to below the root; empty when the root signs.
    intermediates: Vec<CertificateDer<'static>>,
    signer: Signer<'static, KeyPair>,
    validity: Validity,
    meta: RootMeta,
}

impl Issuer {
    /// A new root of our own, valid from a little in the past.
    pub fn generate(domain: &TrustDomain, now: SystemTime, lifetime: Duration, skew: Duration) -> Result<Issuer, IssuerError> {
        let key = KeyPair::generate()?;
        let mut name = [0; 4];
        random(&mut name)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Heddle");
        // Roots that follow each other have different names, so that a verifier tries one of them only.
        params.distinguished_name.push(DnType::CommonName, format!("{domain} root {}", hex::encode(&name)));
        params.subject_alt_names = vec![uri(&format!("spiffe://{domain}"))?];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = whole(now.checked_sub(skew).unwrap_or(UNIX_EPOCH)).into();
        params.not_after = whole(now + lifetime).into();
        params.serial_number = Some(serial()?.0);
        let root = params.self_signed(&key)?.der().clone();
        Issuer::new(vec![root], key)
    }

    /// An authority from its certificates (the one that signs first, the root last) and the key of the first.
    pub fn new(mut chain: Vec<CertificateDer<'static>>, key: KeyPair) -> Result<Issuer, IssuerError> {
        if chain.len() > MAX_CHAIN {
            return Err(IssuerError::Unfit(format!("{} certificates, expected at most {MAX_CHAIN}", chain.len())));
        }
        let Some(root) = chain.pop() else {
            return Err(IssuerError::Unfit(
                "no certificate; expected the one that signs, and behind it those above up to the root".into(),
            ));
        };
        let (meta, validity) = look(&chain, &root, &key)?;
        let signing = chain.first().unwrap_or(&root);
        let signer = Signer::from_ca_cert_der(signing, key)?;
        Ok(Issuer { root, intermediates: chain, signer, validity, meta })
    }

    /// An operator's authority, from PEM.
    pub fn from_pem(certificates: &str, key: &str) -> Result<Issuer, IssuerError> {
        let chain = CertificateDer::pem_slice_iter(certificates.as_bytes()).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| IssuerError::Unfit(format!("the certificates are not PEM: {error}")))?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|error| IssuerError::Unfit(format!("the key is not PEM: {error}")))?;
        let key = KeyPair::try_from(&key)
            .map_err(|error| IssuerError::Unfit(format!("the key is of no kind that can sign: {error}")))?;
        Issuer::new(chain, key)
    }

    /// The root, as others trust it.
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// The root by what decides over it.
    pub fn meta(&self) -> &RootMeta {
        &self.meta
    }

    /// The private key, PKCS #8 DER. It goes nowhere but into the store, sealed.
    pub(super) fn key_der(&self) -> &[u8] {
        self.signer.key().serialized_der()
    }

    /// A certificate for the identity and the key, valid for `ttl`.
    pub fn issue(
        &self,
        id: &SpiffeId,
        key: &impl PublicKeyData,
        now: SystemTime,
        ttl: Duration,
        skew: Duration,
    ) -> Result<Issued, IssuerError> {
        self.issue_named(id, &[], key, now, (ttl, skew))
    }

    /// The same, for a server that is found under names of hosts too.
    pub fn issue_named(
        &self,
        id: &SpiffeId,
        hosts: &[String],
        key: &impl PublicKeyData,
        now: SystemTime,
        (ttl, skew): (Duration, Duration),
    ) -> Result<Issued, IssuerError> {
        let expired =
            || IssuerError::Expired { fingerprint: self.meta.fingerprint.clone(), until: self.meta.not_after_ms / 1_000 };
        let validity = Validity::within(self.validity, now, ttl, skew).ok_or_else(expired)?;
        let (number, serial) = serial()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![uri(id.as_str())?];
        for host in hosts {
            params.subject_alt_names.push(match host.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(host.as_str().try_into()?),
            });
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = validity.not_before.into();
        params.not_after = validity.not_after.into();
        params.serial_number = Some(number);
        let leaf = params.signed_by(key, &self.signer)?.der().clone();
        let chain = std::iter::once(leaf).chain(self.intermediates.iter().cloned()).collect();
        Ok(Issued { chain, validity, serial })
    }
}

/// SHA-256 of a certificate, hex.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    hex::encode(digest(&SHA256, certificate).as_ref())
}

/// What decides over a root certificate.
pub fn meta_of(root: &CertificateDer<'_>) -> Result<RootMeta, IssuerError> {
    let (_, parsed) =
        X509Certificate::from_der(root).map_err(|error| IssuerError::Unfit(format!("a certificate cannot be read: {error}")))?;
    let validity = validity_of(&parsed);
    let ms = |time: SystemTime| heddle_node::clock::unix_ms_of(time);
    Ok(RootMeta { fingerprint: fingerprint(root), not_before_ms: ms(validity.not_before), not_after_ms: ms(validity.not_after) })
}

fn validity_of(certificate: &X509Certificate<'_>) -> Validity {
    let at = |seconds: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let validity = certificate.validity();
    Validity { not_before: at(validity.not_before.timestamp()), not_after: at(validity.not_after.timestamp()) }
}

/// Checks that certificates are a chain of authorities up to the root, and that the key is that of the first; gives how long all of them are valid.
fn look(below: &[CertificateDer<'_>], root: &CertificateDer<'_>, key: &KeyPair) -> Result<(RootMeta, Validity), IssuerError> {
    let unfit = |number: usize, why: &str| IssuerError::Unfit(format!("certificate {number}: {why}"));
    let mut parsed = Vec::new();
    for (at, der) in below.iter().chain([root]).enumerate() {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|error| unfit(at + 1, &format!("cannot be read: {error}")))?;
        parsed.push(certificate);
    }
    let mut together = Validity { not_before: UNIX_EPOCH, not_after: UNIX_EPOCH + Duration::from_secs(u32::MAX.into()) * 100 };
    for (at, certificate) in parsed.iter().enumerate() {
        if !certificate.is_ca() {
            return Err(unfit(at + 1, "is no authority (basic constraints), so it may not sign"));
        }
        if certificate.key_usage().ok().flatten().is_some_and(|usage| !usage.value.key_cert_sign()) {
            return Err(unfit(at + 1, "may not sign certificates (key usage)"));
        }
        let above = parsed.get(at + 1).unwrap_or(certificate);
        if certificate.issuer() != above.subject() || certificate.verify_signature(Some(above.public_key())).is_err() {
            return Err(unfit(
                at + 1,
                "is not signed by the one behind it; the file has the certificate that signs first and the root last",
            ));
        }
        let validity = validity_of(certificate);
        together.not_before = together.not_before.max(validity.not_before);
        together.not_after = together.not_after.min(validity.not_after);
    }
    let own = parsed.first().map(|certificate| certificate.public_key().raw.to_vec()).unwrap_or_default();
    if own != key.subject_public_key_info() {
        return Err(IssuerError::Unfit("the key is not that of the first certificate".into()));
    }
    Ok((meta_of(root)?, together))
}

fn uri(text: &str) -> Result<SanType, IssuerError> {
    Ok(SanType::URI(text.try_into()?))
}

fn serial() -> Result<(SerialNumber, String), IssuerError> {
    let mut bytes = [0; SERIAL_BYTES];
    random(&mut bytes)?;
    // Positive, and of the same length always.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok((SerialNumber::from_slice(&bytes), hex::encode(&bytes)))
}

pub(super) fn random(bytes: &mut [u8]) -> Result<(), IssuerError> {
    aws_lc_rs::rand::fill(bytes).map_err(|_| IssuerError::Crypto("the system gives no random numbers".into()))
}
