//! Certificates and keys as PEM text (RFC 7468), both ways. It knows nothing of what they mean.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// The characters of a line.
const LINE: usize = 64;

/// The certificates of a text, in their order; what else is in it does not count.
///
/// # Errors
/// In words: a section does not end, or is not base64.
pub(super) fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())
}

/// The first private key of a text.
///
/// # Errors
/// In words: there is none, or it is not base64.
pub(super) fn key(text: &str) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| error.to_string())
}

/// The text of certificates.
pub(super) fn of_certificates(certificates: &[CertificateDer<'_>]) -> String {
    let mut text = String::new();
    for certificate in certificates {
        push(&mut text, "CERTIFICATE", certificate);
    }
    text
}

/// The text of a key.
pub(super) fn of_key(key: &PrivateKeyDer<'_>) -> String {
    let label = match key {
        PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
        PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
        _ => "PRIVATE KEY",
    };
    let mut text = String::new();
    push(&mut text, label, key.secret_der());
    text
}

fn push(text: &mut String, label: &str, der: &[u8]) {
    let mut rest = STANDARD.encode(der);
    text.push_str(&format!("-----BEGIN {label}-----\n"));
    while rest.len() > LINE {
        let next = rest.split_off(LINE);
        text.push_str(&rest);
        text.push('\n');
        rest = next;
    }
    text.push_str(&rest);
    text.push_str(&format!("\n-----END {label}-----\n"));
}
