//! Public keys out of PEM (RFC 7468) and certificates, and RSA numbers into DER. It knows no algorithms.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::KeyError;

/// Padding may lack: keys are copied by hand.
const LENIENT: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// Longest PEM text in bytes; a certificate with a key of 8192 bits has less than a quarter of it.
const MAX_PEM: usize = 32 * 1024;

/// The DER of the first public key in a PEM text: a `SubjectPublicKeyInfo`, or an `RSAPublicKey` (PKCS#1).
pub(super) fn public_key(text: &str) -> Result<Vec<u8>, KeyError> {
    if text.len() > MAX_PEM {
        return Err(KeyError::Pem);
    }
    let (_, rest) = text.split_once("-----BEGIN ").ok_or(KeyError::Pem)?;
    let (label, rest) = rest.split_once("-----").ok_or(KeyError::Pem)?;
    let (body, _) = rest.split_once("-----END ").ok_or(KeyError::Pem)?;
    if label.ends_with("PRIVATE KEY") {
        return Err(KeyError::Private);
    }
    let packed: String = body.split_whitespace().collect();
    let der = LENIENT.decode(packed).map_err(|_| KeyError::Pem)?;
    match label {
        "PUBLIC KEY" | "RSA PUBLIC KEY" => Ok(der),
        "CERTIFICATE" => {
            let (_, certificate) = X509Certificate::from_der(&der).map_err(|_| KeyError::Certificate)?;
            Ok(certificate.public_key().raw.to_vec())
        }
        _ => Err(KeyError::Pem),
    }
}

/// An `RSAPublicKey` (RFC 8017 appendix A.1.1) of modulus and exponent, both big-endian.
pub(super) fn rsa_der(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let content = [integer(modulus), integer(exponent)].concat();
    tagged(0x30, &content)
}

fn integer(bytes: &[u8]) -> Vec<u8> {
    let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    let number = &bytes[first..];
    let mut content = Vec::with_capacity(number.len() + 1);
    // A leading bit would make it negative; nought has one byte.
    if number.first().is_none_or(|byte| byte & 0x80 != 0) {
        content.push(0);
    }
    content.extend_from_slice(number);
    tagged(0x02, &content)
}

fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = content.len().to_be_bytes();
    let significant = &length[length.iter().position(|byte| *byte != 0).unwrap_or(length.len() - 1)..];
    if content.len() >= 0x80 {
        out.push(0x80 | significant.len() as u8);
    }
    out.extend_from_slice(significant);
    out.extend_from_slice(content);
    out
}
