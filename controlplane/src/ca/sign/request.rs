//! Certificate requests (PKCS #10, RFC 2986): read, verified, and reduced to the key and the identity that is asked for. It knows nobody who asks.

use heddle_node::identity::SpiffeId;
use rcgen::SubjectPublicKeyInfo;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

use super::refusal::{Reason, Refusal};

/// Bytes of a request; one for an RSA key of 8192 bits has 2.5 KiB.
pub const MAX_REQUEST: usize = 16 * 1024;
/// Bits of an RSA key.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=8_192;

/// A request whose sender has the key.
#[derive(Debug)]
pub struct Request {
    /// The public key.
    pub key: SubjectPublicKeyInfo,
    /// The key as it stands in the request, DER.
    pub key_der: Vec<u8>,
    /// The identity that is asked for; `None` leaves it to the proof.
    pub wants: Option<SpiffeId>,
}

/// Reads a request. All that it may say besides its key is one SPIFFE id.
pub fn read(der: &[u8]) -> Result<Request, Refusal> {
    if der.len() > MAX_REQUEST {
        return Err(Refusal::new(
            Reason::RequestSize,
            format!("the request has {} bytes, at most {MAX_REQUEST} are read", der.len()),
        ));
    }
    let malformed = |why: &str| Refusal::new(Reason::Request, format!("the certificate request cannot be read: {why}"));
    let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| malformed("no DER of PKCS #10"))?;
    if !rest.is_empty() {
        return Err(malformed("something follows it"));
    }
    let info = &request.certification_request_info;
    key_is_fit(&info.subject_pki.parsed().map_err(|_| malformed("its key"))?)?;
    request.verify_signature().map_err(|_| {
        Refusal::new(Reason::Signature, "the certificate request is not signed by its own key (or not with SHA-256 or better)")
    })?;
    let key_der = info.subject_pki.raw.to_vec();
    let key = SubjectPublicKeyInfo::from_der(&key_der).map_err(|_| unfit("of this kind"))?;
    Ok(Request { key, key_der, wants: wanted(&request)? })
}

fn unfit(what: &str) -> Refusal {
    Refusal::new(
        Reason::Key,
        format!("a key {what} is not signed; use ECDSA P-256 (or P-384, Ed25519, RSA of 2048 bits and more)"),
    )
}

fn key_is_fit(key: &PublicKey<'_>) -> Result<(), Refusal> {
    match key {
        PublicKey::EC(point) if matches!(point.key_size(), 256 | 384) => Ok(()),
        PublicKey::EC(point) => Err(unfit(&format!("on a curve of {} bits", point.key_size()))),
        PublicKey::RSA(rsa) if RSA_BITS.contains(&rsa.key_size()) => Ok(()),
        PublicKey::RSA(rsa) => Err(unfit(&format!("of RSA with {} bits", rsa.key_size()))),
        // Ed25519 has no parsed form; its length tells it from Ed448.
        PublicKey::Unknown(bytes) if bytes.len() == 32 => Ok(()),
        _ => Err(unfit("of this kind")),
    }
}

fn wanted(request: &X509CertificationRequest<'_>) -> Result<Option<SpiffeId>, Refusal> {
    let extra = |what: String| {
        Refusal::new(Reason::Extra, format!("the certificate request asks for {what}; all that it may name is one SPIFFE id"))
    };
    let mut wants = None;
    for extension in request.requested_extensions().into_iter().flatten() {
        match extension {
            ParsedExtension::SubjectAlternativeName(names) => match (&names.general_names[..], &wants) {
                ([GeneralName::URI(uri)], None) => {
                    let id = SpiffeId::parse(uri).map_err(|error| Refusal::new(Reason::Extra, error.to_string()))?;
                    wants = Some(id);
                }
                _ => return Err(extra(format!("{} names", names.general_names.len()))),
            },
            // What an identity has anyway may be asked for.
            ParsedExtension::KeyUsage(usage) if !usage.key_cert_sign() && !usage.crl_sign() => {}
            ParsedExtension::ExtendedKeyUsage(_) => {}
            ParsedExtension::BasicConstraints(constraints) if !constraints.ca => {}
            ParsedExtension::BasicConstraints(_) | ParsedExtension::KeyUsage(_) => return Err(extra("an authority".into())),
            _ => return Err(extra("an extension that identities do not have".into())),
        }
    }
    Ok(wants)
}
