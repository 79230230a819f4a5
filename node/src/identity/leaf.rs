//! What a leaf certificate says of its holder: id, times, serial, uses. It trusts nothing of it: whether to is the matter of `verify`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::spiffe_id::SpiffeId;
use super::verify::Rejection;

/// The tag of a URI among the general names (RFC 5280 section 4.2.1.6).
const URI_TAG: u32 = 6;

/// What was read in a leaf that has the form of an X.509-SVID.
#[derive(Debug, Clone)]
pub(super) struct Leaf {
    pub(super) id: SpiffeId,
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
    pub(super) serial: Vec<u8>,
}

impl Leaf {
    /// Reads a certificate by the rules of X509-SVID sections 2 to 4 and 5.2: exactly one URI name, which is an id with a path; no CA; a key
    /// that signs messages but no certificates.
    pub(super) fn read(der: &[u8]) -> Result<Self, Rejection> {
        let certificate = parse(der)?;
        let id = match uris(&certificate)?.as_slice() {
            [] => return Err(Rejection::NoIdentity),
            [uri] => SpiffeId::parse(uri).map_err(|error| Rejection::Malformed(error.to_string()))?,
            more => return Err(Rejection::ManyIdentities(more.len())),
        };
        if id.path().is_empty() {
            return Err(Rejection::Malformed(format!("{id} names a trust domain, not a workload")));
        }
        if signs_certificates(&certificate)? {
            return Err(Rejection::Authority { id });
        }
        if let Some(usage) = certificate.key_usage().map_err(malformed)?
            && !usage.value.digital_signature()
        {
            return Err(Rejection::Malformed(format!("the key usage of {id} lacks digitalSignature")));
        }
        let validity = certificate.validity();
        Ok(Self {
            id,
            not_before: time(validity.not_before.timestamp()),
            not_after: time(validity.not_after.timestamp()),
            serial: certificate.raw_serial().to_vec(),
        })
    }
}

/// Whether an authority between a leaf and a root may have signed in `domain`: it may sign, and names no other trust domain (X509-SVID section 4).
pub(super) fn vouches_in(der: &[u8], domain: &str) -> Result<bool, Rejection> {
    let certificate = parse(der)?;
    let signs = certificate.key_usage().map_err(malformed)?.is_none_or(|usage| usage.value.key_cert_sign());
    let own = |uri: &&str| SpiffeId::parse(uri).is_ok_and(|id| id.trust_domain().as_str() == domain);
    Ok(signs && uris(&certificate)?.iter().all(own))
}

/// The trust domain that an authority's certificate names itself, if it does (X509-SVID section 4).
pub(super) fn domain_of_authority(der: &[u8]) -> Option<super::TrustDomain> {
    let certificate = parse(der).ok()?;
    match uris(&certificate).ok()?.as_slice() {
        [uri] => SpiffeId::parse(uri).ok().map(|id| id.trust_domain().clone()),
        _ => None,
    }
}

/// When a certificate of any kind ends.
pub(super) fn end(der: &[u8]) -> Option<SystemTime> {
    Some(time(parse(der).ok()?.validity().not_after.timestamp()))
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Rejection> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(Rejection::Malformed("bytes follow the certificate".to_owned())),
        Err(error) => Err(Rejection::Malformed(error.to_string())),
    }
}

fn uris<'a>(certificate: &'a X509Certificate<'_>) -> Result<Vec<&'a str>, Rejection> {
    let Some(names) = certificate.subject_alternative_name().map_err(malformed)? else { return Ok(Vec::new()) };
    let mut uris = Vec::new();
    for name in &names.value.general_names {
        match name {
            GeneralName::URI(uri) => uris.push(*uri),
            GeneralName::Invalid(tag, _) if tag.0 == URI_TAG => {
                return Err(Rejection::Malformed("a URI name that is no text".to_owned()));
            }
            _ => {}
        }
    }
    Ok(uris)
}

fn signs_certificates(certificate: &X509Certificate<'_>) -> Result<bool, Rejection> {
    let authority = certificate.basic_constraints().map_err(malformed)?.is_some_and(|basic| basic.value.ca);
    let usage = certificate.key_usage().map_err(malformed)?;
    Ok(authority || usage.is_some_and(|usage| usage.value.key_cert_sign() || usage.value.crl_sign()))
}

fn malformed(error: impl std::fmt::Display) -> Rejection {
    Rejection::Malformed(error.to_string())
}

/// A time of a certificate; what lies before the epoch counts as the epoch.
fn time(unix_seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(unix_seconds).unwrap_or(0))
}
