//! One certificate resource ready for handshakes: keys, versions, demands on the client. It knows no names.

use std::sync::Arc;

use heddle_xds::model::{Certificate, ClientValidation, Secret, SecretBody, TlsVersion};
use regex::Regex;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, CipherSuite, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
    version,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

use super::accept::Speaks;

/// Largest `skip_uri_regex` program, so that a pattern cannot take memory at will.
const MAX_PATTERN_BYTES: usize = 256 * 1024;

/// A certificate resource ready for handshakes.
pub(super) struct Entry {
    source: Arc<Certificate>,
    secrets: Vec<Arc<Secret>>,
    config: Arc<ServerConfig>,
    /// The same for clients whose first choice is ChaCha20, since they compute AES in software: their order counts.
    without_aes: Arc<ServerConfig>,
    unless: Option<Arc<[Regex]>>,
    /// Whose clients are believed, where they must show a certificate.
    trusted: Vec<CertificateDer<'static>>,
}

impl Entry {
    /// Makes one, or says what is wrong.
    pub(super) fn build(
        source: &Arc<Certificate>,
        secrets: Vec<Arc<Secret>>,
        roots: Option<Arc<Secret>>,
    ) -> Result<Entry, String> {
        let provider = Arc::new(provider());
        let keys = Keys(secrets.iter().map(|secret| certified_key(secret, &provider)).collect::<Result<_, _>>()?);
        if keys.0.is_empty() {
            return Err("it has no key pair".to_owned());
        }
        let versions: Vec<_> = [(TlsVersion::V1_2, &version::TLS12), (TlsVersion::V1_3, &version::TLS13)]
            .into_iter()
            .filter(|(number, _)| (source.min_version..=source.max_version).contains(number))
            .map(|(_, version)| version)
            .collect();
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&versions)
            .map_err(|error| format!("TLS versions: {error}"))?;
        let (builder, trusted) = match (&source.client, &roots) {
            (None, _) => (builder.with_no_client_auth(), Vec::new()),
            (Some(client), Some(roots)) => {
                let trusted = certificates_of(roots)?;
                (builder.with_client_cert_verifier(client_verifier(client, roots, &trusted, &provider)?), trusted)
            }
            (Some(client), None) => return Err(format!("secret {} with the client CA is missing", client.ca)),
        };
        let mut config = builder.with_cert_resolver(Arc::new(keys));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        if source.client.is_some() {
            // A resumed session carries the old verdict on the client's certificate, so there is none.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        } else {
            // One key per certificate resource: a ticket is good for no other, and at no listener that demands something else.
            config.ticketer = aws_lc_rs::Ticketer::new().map_err(|error| format!("ticket key: {error}"))?;
            config.send_tls13_tickets = 1;
        }
        let unless = source.client.as_ref().and_then(|client| patterns(client).transpose()).transpose()?;
        let secrets = secrets.into_iter().chain(roots).collect();
        let without_aes = Arc::new(config.clone());
        config.ignore_client_order = true;
        Ok(Entry { source: source.clone(), secrets, config: Arc::new(config), without_aes, unless, trusted })
    }

    pub(super) fn id(&self) -> &Arc<str> {
        &self.source.id
    }

    /// The names that it was made for.
    pub(super) fn names(&self) -> &[Arc<str>] {
        &self.source.snis
    }

    /// The roots of what it demands of clients.
    fn roots(&self) -> Option<&Arc<Secret>> {
        self.source.client.as_ref().and_then(|_| self.secrets.last())
    }

    /// Whether it may be shown where a newer version cannot be used: at the same listeners, and demanding no less. `roots` are those that the newer one names, where
    /// they are there.
    pub(super) fn stands_in_for(&self, newer: &Certificate, roots: Option<&Arc<Secret>>) -> bool {
        let demands_no_less = match (&newer.client, self.roots()) {
            (None, _) => true,
            (Some(client), Some(own)) => self.source.client.as_ref() == Some(client) && roots.is_none_or(|roots| roots == own),
            (Some(_), None) => false,
        };
        demands_no_less && self.source.listeners == newer.listeners && self.source.min_version >= newer.min_version
    }

    pub(super) fn demands_client(&self) -> bool {
        self.source.client.is_some()
    }

    /// Whether whom it has let in has met what `other` demands: nothing, or the same of a version of the same certificate. One that others had issued is not taken for
    /// one of those that are trusted now, unless these are among them.
    pub(super) fn meets(&self, other: &Entry) -> bool {
        let (Some(own), Some(wanted)) = (&self.source.client, &other.source.client) else {
            return !other.demands_client() && (!self.demands_client() || self.id() == other.id());
        };
        let trusts_all = || self.trusted.iter().all(|root| other.trusted.contains(root));
        std::ptr::eq(self, other) || (self.id() == other.id() && is_at_least(own, wanted) && trusts_all())
    }

    /// Paths for which no client certificate is demanded.
    pub(super) fn unless(&self) -> Option<Arc<[Regex]>> {
        self.unless.clone()
    }

    /// What serves a client that offers these cipher suites.
    pub(super) fn config(&self, offered: &[CipherSuite], speaks: Speaks) -> Arc<ServerConfig> {
        let first = offered.iter().find_map(|suite| kind(*suite));
        let config = if first == Some(Kind::ChaCha20) { &self.without_aes } else { &self.config };
        match speaks {
            Speaks::Http => config.clone(),
            // What it shares with the other one are pointers.
            Speaks::Bytes => {
                let mut plain = (**config).clone();
                plain.alpn_protocols.clear();
                Arc::new(plain)
            }
        }
    }

    /// Whether it was made from just this; then it is used on, with its tickets.
    pub(super) fn is_of(&self, source: &Certificate, secrets: &[Arc<Secret>], roots: Option<&Arc<Secret>>) -> bool {
        *self.source == *source && self.secrets.iter().eq(secrets.iter().chain(roots))
    }
}

/// Whether a client that met these demands but for the roots has met the others, too.
fn is_at_least(own: &ClientValidation, wanted: &ClientValidation) -> bool {
    own.ca == wanted.ca && own.depth <= wanted.depth && own.skip_uri_regex == wanted.skip_uri_regex
}

/// What a cipher suite encrypts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Aes128,
    Aes256,
    ChaCha20,
}

/// `None` for those that we do not have.
fn kind(suite: CipherSuite) -> Option<Kind> {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => Some(Kind::Aes128),
        CipherSuite::TLS13_AES_256_GCM_SHA384
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
        | CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => Some(Kind::Aes256),
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => Some(Kind::ChaCha20),
        _ => None,
    }
}

/// All suites that are safe, AES-128 first: it is as strong as the key exchange before it (X25519, P-256), and SHA-256, which comes with it and of
/// which a handshake consists in good part, is computed by the processor where SHA-384 is not.
fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| kind(suite.suite()));
    provider
}

fn patterns(client: &ClientValidation) -> Result<Option<Arc<[Regex]>>, String> {
    let compile = |pattern: &Arc<str>| {
        let built = regex::RegexBuilder::new(pattern).size_limit(MAX_PATTERN_BYTES).build();
        built.map_err(|error| format!("skip_uri_regex {pattern:?}: {error}"))
    };
    let all = client.skip_uri_regex.iter().map(compile).collect::<Result<Vec<_>, _>>()?;
    Ok((!all.is_empty()).then(|| all.into()))
}

fn certified_key(secret: &Secret, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, String> {
    let SecretBody::KeyPair { chain_pem, key_pem } = &secret.body else {
        return Err(format!("secret {} is not a key pair", secret.name));
    };
    let chain = CertificateDer::pem_slice_iter(chain_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("secret {}: certificate: {error}", secret.name))?;
    let key =
        PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|error| format!("secret {}: key: {error}", secret.name))?;
    let certified = CertifiedKey::from_der(chain, key, provider).map_err(|error| format!("secret {}: {error}", secret.name))?;
    Ok(Arc::new(certified))
}

/// Certificates for one set of names, of different key types.
#[derive(Debug)]
struct Keys(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for Keys {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        self.0.iter().find(fits).cloned()
    }
}

fn certificates_of(roots: &Secret) -> Result<Vec<CertificateDer<'static>>, String> {
    let SecretBody::Roots(pem) = &roots.body else { return Err(format!("secret {} holds no roots", roots.name)) };
    let all = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>();
    all.map_err(|error| format!("secret {}: {error}", roots.name))
}

fn client_verifier(
    client: &ClientValidation,
    roots: &Secret,
    trusted: &[CertificateDer<'static>],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut store = RootCertStore::empty();
    for root in trusted {
        store.add(root.clone()).map_err(|error| format!("secret {}: {error}", roots.name))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider.clone());
    let builder = if client.skip_uri_regex.is_empty() { builder } else { builder.allow_unauthenticated() };
    let inner = builder.build().map_err(|error| format!("secret {}: {error}", roots.name))?;
    Ok(Arc::new(BoundedDepth { inner, depth: usize::from(client.depth) }))
}

/// Refuses chains that are longer than allowed before they are verified.
#[derive(Debug)]
struct BoundedDepth {
    inner: Arc<dyn ClientCertVerifier>,
    depth: usize,
}

impl ClientCertVerifier for BoundedDepth {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }
    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        if intermediates.len() > self.depth {
            return Err(CertificateError::UnknownIssuer.into());
        }
        self.inner.verify_client_cert(end_entity, intermediates, now)
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
