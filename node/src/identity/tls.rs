//! TLS between identities: 1.3 only, post-quantum key exchange first, no resumption, and certificates and bundles read at every handshake. It knows no
//! sockets.

use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerIncompatible, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, IpAddr, Ipv4Addr, ServerName, UnixTime};

use super::verify::{Rejection, Usage};
use super::{Identity, SpiffeId};
use crate::clock;

/// Whether clients must show who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// Without a certificate there is no connection.
    Required,
    /// Clients without a certificate are let in as nobody; one that is shown must be good.
    Optional,
}

/// Whom a client expects to find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// One of these, of our trust domain or of a federated one.
    AnyOf(Vec<SpiffeId>),
    /// Anybody of our own trust domain.
    TrustDomain,
}

impl Identity {
    /// TLS for those who accept connections. It lets in every identity of our trust domain and of the federated ones: who may do what is decided
    /// above it.
    #[must_use]
    pub fn server_config(&self, clients: ClientAuth, alpn: &[&[u8]]) -> Arc<ServerConfig> {
        #[expect(clippy::expect_used, reason = "the provider made here has suites and groups of TLS 1.3")]
        let builder = ServerConfig::builder_with_details(provider(), Arc::new(WallClock))
            .with_protocol_versions(&[&TLS13])
            .expect("the provider speaks TLS 1.3");
        let doorman = Doorman { identity: self.clone(), mandatory: clients == ClientAuth::Required };
        let mut config = builder.with_client_cert_verifier(Arc::new(doorman)).with_cert_resolver(Arc::new(Present(self.clone())));
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        // A resumed session would outlive the check of an identity.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Arc::new(config)
    }

    /// TLS for those who open connections. The server is judged by its identity, never by a name: hand [`nameless`] to the connector.
    #[must_use]
    pub fn client_config(&self, expect: Expect, alpn: &[&[u8]]) -> Arc<ClientConfig> {
        #[expect(clippy::expect_used, reason = "the provider made here has suites and groups of TLS 1.3")]
        let builder = ClientConfig::builder_with_details(provider(), Arc::new(WallClock))
            .with_protocol_versions(&[&TLS13])
            .expect("the provider speaks TLS 1.3");
        let mut config = builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Caller { identity: self.clone(), expect }))
            .with_client_cert_resolver(Arc::new(Present(self.clone())));
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config.resumption = Resumption::disabled();
        Arc::new(config)
    }
}

/// The server name for connections whose server is judged by its identity: an address, so that no name goes over the wire.
#[must_use]
pub fn nameless() -> ServerName<'static> {
    ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([0, 0, 0, 0])))
}

/// What connections between identities are encrypted with. X25519MLKEM768 is first, so that what is recorded today stays closed to the quantum computers
/// of tomorrow; AES-128 is first, since it costs least and is as strong as the exchange of its key.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    let make = || CryptoProvider {
        kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1],
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        ..aws_lc_rs::default_provider()
    };
    PROVIDER.get_or_init(|| Arc::new(make())).clone()
}

/// The node's clock, for handshakes.
#[derive(Debug)]
struct WallClock;

impl TimeProvider for WallClock {
    fn current_time(&self) -> Option<UnixTime> {
        clock::wall().duration_since(UNIX_EPOCH).ok().map(UnixTime::since_unix_epoch)
    }
}

/// Shows the identity of the moment.
#[derive(Debug)]
struct Present(Identity);

impl Present {
    fn certified(&self) -> Option<Arc<CertifiedKey>> {
        self.0.svid().map(|svid| svid.certified().clone())
    }
}

impl ResolvesServerCert for Present {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.certified()
    }
}

impl ResolvesClientCert for Present {
    fn resolve(&self, _issuers: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.certified()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Judges clients.
#[derive(Debug)]
struct Doorman {
    identity: Identity,
    mandatory: bool,
}

impl ClientCertVerifier for Doorman {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    /// None: clients have one identity, and need no help to choose.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        authorities: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        judge(&self.identity, leaf, authorities, Usage::Client, now).map_err(refusal)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Judges servers.
#[derive(Debug)]
struct Caller {
    identity: Identity,
    expect: Expect,
}

impl Caller {
    fn judge(&self, leaf: &CertificateDer<'_>, authorities: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Rejection> {
        let id = judge(&self.identity, leaf, authorities, Usage::Server, now)?;
        let expected = match &self.expect {
            Expect::AnyOf(ids) if ids.contains(&id) => return Ok(()),
            Expect::AnyOf(ids) => ids.iter().map(SpiffeId::as_str).collect::<Vec<_>>().join(" or "),
            Expect::TrustDomain => {
                let bundles = self.identity.bundles();
                if bundles.own_domain() == Some(id.trust_domain()) {
                    return Ok(());
                }
                bundles.own_domain().map_or_else(String::new, |own| format!("an identity of {own}"))
            }
        };
        Err(Rejection::Unexpected { id, expected })
    }
}

impl ServerCertVerifier for Caller {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        authorities: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let refused = |rejection: &Rejection| self.identity.note_refused(None, rejection);
        self.judge(leaf, authorities, now).inspect_err(refused).map_err(refusal)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

fn judge(
    identity: &Identity,
    leaf: &CertificateDer<'_>,
    authorities: &[CertificateDer<'_>],
    usage: Usage,
    now: UnixTime,
) -> Result<SpiffeId, Rejection> {
    let chain: Vec<CertificateDer<'_>> =
        std::iter::once(leaf).chain(authorities).map(|der| CertificateDer::from(der.as_ref())).collect();
    identity.bundles().verify(&chain, usage, moment(now))
}

fn moment(now: UnixTime) -> SystemTime {
    UNIX_EPOCH + std::time::Duration::from_secs(now.as_secs())
}

/// The rejection travels through rustls as it is; the peer is told only that its certificate was not accepted.
fn refusal(rejection: Rejection) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(rejection))))
}
