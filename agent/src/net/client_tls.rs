//! TLS towards servers: what a client trusts, what it presents, which name it expects. It knows no upstreams, no secrets by name and no HTTP.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

/// A certificate chain with its key.
pub type KeyPair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Makes the configuration of a client.
///
/// `roots` is what it trusts; `None` accepts every certificate. `identity` is what it shows to servers that ask.
///
/// # Errors
/// In words: the provider, or a certificate and a key that do not belong together.
pub fn client_config(
    provider: &Arc<CryptoProvider>,
    roots: Option<Arc<RootCertStore>>,
    identity: Option<KeyPair>,
    alpn: &[&[u8]],
) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS provider: {error}"))?;
    let builder = match roots {
        Some(roots) => builder.with_root_certificates(roots),
        None => builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAny(provider.clone()))),
    };
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            builder.with_client_auth_cert(chain, key).map_err(|error| format!("certificate and key are not usable: {error}"))?
        }
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

/// The system's roots, read once when they are first needed.
#[derive(Debug, Default)]
pub struct SystemRoots(OnceLock<Result<Arc<RootCertStore>, String>>);

impl SystemRoots {
    /// The roots; those that do not parse are left out, as every browser does.
    ///
    /// # Errors
    /// There is none.
    pub fn get(&self) -> Result<Arc<RootCertStore>, String> {
        self.0.get_or_init(load_system_roots).clone()
    }
}

fn load_system_roots() -> Result<Arc<RootCertStore>, String> {
    let loaded = rustls_native_certs::load_native_certs();
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(loaded.certs);
    if store.is_empty() {
        let causes: Vec<String> = loaded.errors.iter().map(ToString::to_string).collect();
        return Err(format!("the system has no trusted roots ({}); install ca-certificates or name a CA", causes.join(", ")));
    }
    Ok(Arc::new(store))
}

/// The root certificates of a PEM text.
///
/// # Errors
/// One of them is none, or there is none.
pub fn roots_of_pem(pem: &str) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let wrong = |error: &dyn std::fmt::Display| format!("not a root certificate: {error}");
        store.add(certificate.map_err(|error| wrong(&error))?).map_err(|error| wrong(&error))?;
    }
    if store.is_empty() { Err("no certificate in it".to_owned()) } else { Ok(store) }
}

/// A certificate chain and its key, both PEM.
///
/// # Errors
/// One of them cannot be read.
pub fn key_pair_of_pem(chain: &str, key: &str) -> Result<KeyPair, String> {
    let wrong = |error: rustls_pki_types::pem::Error| error.to_string();
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    Ok((chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(wrong)?))
}

/// Server name of a `Host` value: without port, IP literals as addresses.
pub fn server_name(host: &str) -> Option<ServerName<'static>> {
    let bare = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next()?,
        None => host.rsplit_once(':').filter(|(name, _)| !name.contains(':')).map_or(host, |(name, _)| name),
    };
    ServerName::try_from(bare.strip_suffix('.').unwrap_or(bare).to_owned()).ok()
}

/// Accepts every certificate, as APISIX does without `tls.verify`: the connection is encrypted, but whoever sits in between is not found out.
/// That the server holds the key of the certificate that it shows is still checked.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
