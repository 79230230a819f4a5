//! TLS towards endpoints: client configurations by what they trust and present, shared by all who agree on that.

use std::sync::{Arc, OnceLock, Weak};

use heddle_xds::model::{Secret, SecretBody, UpstreamTls};
use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

/// Finds key material by name.
pub type Secrets<'a> = &'a dyn Fn(&str) -> Option<Arc<Secret>>;

/// Makes client configurations and hands out the same one for the same demands, so that pools and TLS sessions are shared.
#[derive(Debug)]
pub struct TlsStore {
    provider: Arc<CryptoProvider>,
    system_roots: OnceLock<Result<Arc<RootCertStore>, String>>,
    made: Mutex<Vec<(Demand, Weak<ClientConfig>)>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Demand {
    verify: bool,
    ca: Option<Arc<Secret>>,
    client_cert: Option<Arc<Secret>>,
    h2: bool,
}

impl Default for TlsStore {
    fn default() -> TlsStore {
        TlsStore { provider: Arc::new(aws_lc_rs::default_provider()), system_roots: OnceLock::new(), made: Mutex::default() }
    }
}

impl TlsStore {
    /// The client configuration for `tls`. The message of an error names the secret at fault.
    pub fn client(&self, tls: &UpstreamTls, h2: bool, secrets: Secrets<'_>) -> Result<Arc<ClientConfig>, String> {
        let find = |name: &Option<Arc<str>>| match name {
            Some(name) => secrets(name).map(Some).ok_or_else(|| format!("secret `{name}` is not known (yet)")),
            None => Ok(None),
        };
        let demand = Demand { verify: tls.verify, ca: find(&tls.ca)?, client_cert: find(&tls.client_cert)?, h2 };
        let mut made = self.made.lock();
        made.retain(|(_, config)| config.strong_count() > 0);
        if let Some(config) = made.iter().filter(|(known, _)| *known == demand).find_map(|(_, config)| config.upgrade()) {
            return Ok(config);
        }
        let config = Arc::new(self.make(&demand)?);
        made.push((demand, Arc::downgrade(&config)));
        Ok(config)
    }

    fn make(&self, demand: &Demand) -> Result<ClientConfig, String> {
        let builder = ClientConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS provider: {error}"))?;
        let builder = if demand.verify {
            builder.with_root_certificates(self.roots(demand)?)
        } else {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAny(self.provider.clone())))
        };
        let mut config = match &demand.client_cert {
            None => builder.with_no_client_auth(),
            Some(secret) => {
                let (chain, key) = key_pair(secret)?;
                let wrong = |error| format!("secret `{}`: certificate and key are not usable: {error}", secret.name);
                builder.with_client_auth_cert(chain, key).map_err(wrong)?
            }
        };
        config.alpn_protocols = vec![if demand.h2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        Ok(config)
    }

    fn roots(&self, demand: &Demand) -> Result<Arc<RootCertStore>, String> {
        match &demand.ca {
            Some(secret) => Ok(Arc::new(roots_of(secret)?)),
            None => self.system_roots.get_or_init(load_system_roots).clone(),
        }
    }
}

/// The system's roots; those that do not parse are left out, as every browser does.
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

fn roots_of(secret: &Secret) -> Result<RootCertStore, String> {
    let pem = match &secret.body {
        SecretBody::Roots(pem) => pem,
        SecretBody::KeyPair { chain_pem, .. } => chain_pem,
    };
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let wrong = |error: &dyn std::fmt::Display| format!("secret `{}`: not a root certificate: {error}", secret.name);
        store.add(certificate.map_err(|error| wrong(&error))?).map_err(|error| wrong(&error))?;
    }
    if store.is_empty() { Err(format!("secret `{}`: no certificate in it", secret.name)) } else { Ok(store) }
}

fn key_pair(secret: &Secret) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
    let SecretBody::KeyPair { chain_pem, key_pem } = &secret.body else {
        return Err(format!("secret `{}`: expected a certificate with its key", secret.name));
    };
    let wrong = |error| format!("secret `{}`: {error}", secret.name);
    let chain = CertificateDer::pem_slice_iter(chain_pem.as_bytes()).collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(wrong)?;
    Ok((chain, key))
}

/// Server name of a `Host` value: without port, IP literals as addresses.
pub(in crate::upstream) fn server_name(host: &str) -> Option<ServerName<'static>> {
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
