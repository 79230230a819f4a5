//! The TLS client of all loads: TLS 1.3, X25519, no resumption, and the one certificate that the benchmark made. It knows no protocol above.
//!
//! It does not check the server's signature over the handshake, which would cost the load's core as much as the server's costs the proxy; no server can tell.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, HandshakeKind, ProtocolVersion, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::options::Options;

/// Accepts exactly one certificate.
#[derive(Debug)]
struct Pinned(CertificateDer<'static>);

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *end_entity == self.0 {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::General("not the certificate of the benchmark".to_owned()))
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not measured".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// A connector that trusts the certificate of `certificate=PEM` and speaks `protocol`.
pub fn connector(options: &Options, protocol: &[u8]) -> Result<TlsConnector, String> {
    let path = options.text("certificate").ok_or("certificate=PEM is missing")?;
    let certificate = CertificateDer::from_pem_file(path).map_err(|error| format!("{path}: {error}"))?;
    let provider = Arc::new(CryptoProvider { kx_groups: vec![aws_lc_rs::kx_group::X25519], ..aws_lc_rs::default_provider() });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned(certificate)))
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Connects; whatever is not a full handshake of TLS 1.3 is an error, so no ticket can make a connection cheaper.
pub async fn connect(connector: &TlsConnector, stream: TcpStream) -> Result<TlsStream<TcpStream>, String> {
    let name = ServerName::try_from("localhost").map_err(|error| error.to_string())?;
    let stream = connector.connect(name, stream).await.map_err(|error| format!("handshake: {error}"))?;
    let session = stream.get_ref().1;
    match (session.protocol_version(), session.handshake_kind()) {
        (Some(ProtocolVersion::TLSv1_3), Some(HandshakeKind::Full)) => Ok(stream),
        other => Err(format!("not a full handshake of TLS 1.3: {other:?}")),
    }
}
