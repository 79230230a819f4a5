//! What the schema of a certificate cannot say: that chain and key can be read and belong together.

use heddle_xds::model::is_reference;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use serde_json::{Map, Value};

use super::super::resources::{Ssl, SslType};
use super::super::{Fault, expr};
use super::{both, neither};

/// Most certificates of one chain or trust bundle.
const LONGEST_CHAIN: usize = 4096;

/// A server certificate needs exactly one of sni and snis.
pub(super) fn alternatives(map: &Map<String, Value>, faults: &mut Vec<Fault>) {
    if map.get("type").and_then(Value::as_str) == Some("client") {
        return;
    }
    match (map.contains_key("sni"), map.contains_key("snis")) {
        (true, true) => faults.push(both("", "sni", "snis")),
        (false, false) => faults.push(neither("", "sni", "snis")),
        _ => {}
    }
}

/// Every pair can be read and matches; the trusted roots can be read.
pub(super) fn check(ssl: &Ssl, faults: &mut Vec<Fault>) {
    if let Err(why) = pair(&ssl.cert, &ssl.key) {
        faults.push(Fault::whole("cert", why));
    }
    if ssl.certs.len() != ssl.keys.len() {
        faults.push(Fault::whole("certs", "mismatched number of certs and keys"));
    }
    for (index, (cert, key)) in ssl.certs.iter().zip(&ssl.keys).enumerate() {
        if let Err(why) = pair(cert, key) {
            faults.push(Fault::whole(format!("certs[{index}]"), format!("failed to handle cert-key pair[{}]: {why}", index + 1)));
        }
    }
    if let Some(client) = &ssl.client {
        if ssl.kind == SslType::Client {
            faults.push(Fault::new("client", "only a certificate of type server can demand one of clients"));
        }
        if let Err(why) = chain(&client.ca) {
            faults.push(Fault::whole("client.ca", format!("failed to validate client_cert: {why}")));
        }
        for (index, pattern) in client.skip_mtls_uri_regex.iter().flatten().enumerate() {
            if let Err(why) = expr::regex(pattern) {
                faults.push(Fault::new(format!("client.skip_mtls_uri_regex[{index}]"), why));
            }
        }
    }
    if ssl.ssl_protocols.iter().flatten().any(|version| version == "TLSv1.1") {
        faults.push(Fault::new("ssl_protocols", "TLSv1.1 is not supported: RFC 8996 forbids it (expected TLSv1.2 or TLSv1.3)"));
    }
}

/// Reads a PEM chain; at least one certificate, each well-formed.
pub(super) fn chain(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    if is_reference(pem) {
        return Ok(Vec::new());
    }
    let mut chain = Vec::new();
    for item in CertificateDer::pem_slice_iter(pem.as_bytes()).take(LONGEST_CHAIN) {
        let cert = item.map_err(|e| format!("failed to parse cert: {e}"))?;
        x509_parser::parse_x509_certificate(&cert)
            .map_err(|e| format!("failed to parse cert: certificate {}: {e}", chain.len() + 1))?;
        chain.push(cert);
    }
    if chain.is_empty() {
        return Err("failed to parse cert: expected PEM with -----BEGIN CERTIFICATE-----, found none".to_owned());
    }
    Ok(chain)
}

/// Reads a PEM chain and its PEM key and proves that they belong together.
pub(super) fn pair(cert: &str, key: &str) -> Result<(), String> {
    let chain = chain(cert)?;
    if is_reference(key) {
        return Ok(());
    }
    let der = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|_| "failed to parse key: expected an unencrypted PEM key (PKCS#8, SEC1 or PKCS#1)".to_owned())?;
    let signer = any_supported_type(&der).map_err(|_| "failed to parse key: expected an RSA, ECDSA or Ed25519 key".to_owned())?;
    if chain.is_empty() {
        return Ok(());
    }
    match CertifiedKey::new(chain, signer).keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(()),
        Err(_) => Err("failed to match cert and key: the key does not belong to the first certificate".to_owned()),
    }
}
