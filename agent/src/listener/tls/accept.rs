//! One TLS handshake: the server name chooses the configuration. It ends with facts about the session.

use std::io;
use std::sync::Arc;

use heddle_node::hex;
use rustls::server::Acceptor;
use rustls::{CipherSuite, ProtocolVersion, ServerConnection};
use rustls_pki_types::CertificateDer;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::principals::principals;
use super::store::refusing;
use super::{Identity, SharedCertificates};
use crate::exchange::{ClientCertificate, TlsInfo};
use crate::net::{Rewind, Socket};

/// A session.
pub(crate) struct Accepted {
    pub(crate) stream: Box<TlsStream<Rewind<Socket>>>,
    pub(crate) info: TlsInfo,
    pub(crate) identity: Identity,
    /// Whether ALPN chose HTTP/2.
    pub(crate) is_h2: bool,
}

/// What is spoken inside TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// HTTP, whose version ALPN chooses.
    Http,
    /// Nobody knows: nothing is chosen.
    Bytes,
}

/// Shakes hands at the listener of this name. On an error the client has been told by an alert where TLS has one.
pub(crate) async fn accept(
    stream: Rewind<Socket>,
    certificates: &SharedCertificates,
    listener: &Arc<str>,
    speaks: Speaks,
) -> io::Result<Accepted> {
    let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let server_name = start.client_hello().server_name().map(str::to_ascii_lowercase);
    let entry = certificates.load().of(listener).find(server_name.as_deref()).cloned().flatten();
    let config = entry.as_ref().map(|entry| entry.config(start.client_hello().cipher_suites(), speaks));
    let (Some(entry), Some(config)) = (entry, config) else {
        // Fails in every case; what counts is the alert that it sends.
        start.into_stream(refusing().map_err(io::Error::other)?).await?;
        return Err(io::Error::other("no certificate for the server name"));
    };
    let stream = Box::new(start.into_stream(config).await?);
    let session = stream.get_ref().1;
    let mut info = facts(session, server_name.map(Arc::from));
    if info.client.is_none() {
        info.client_required_unless = entry.unless();
    }
    let is_h2 = session.alpn_protocol() == Some(b"h2");
    let identity = Identity { entry, certificates: certificates.clone(), listener: listener.clone() };
    Ok(Accepted { stream, info, identity, is_h2 })
}

/// What is known of a session.
pub(crate) fn facts(session: &ServerConnection, server_name: Option<Arc<str>>) -> TlsInfo {
    TlsInfo {
        server_name,
        version: if session.protocol_version() == Some(ProtocolVersion::TLSv1_2) { "TLSv1.2" } else { "TLSv1.3" },
        cipher: cipher(session),
        client: session.peer_certificates().and_then(client_certificate),
        client_required_unless: None,
    }
}

/// IANA name of the cipher suite.
fn cipher(session: &ServerConnection) -> &'static str {
    match session.negotiated_cipher_suite().map(|suite| suite.suite()) {
        Some(CipherSuite::TLS13_AES_128_GCM_SHA256) => "TLS_AES_128_GCM_SHA256",
        Some(CipherSuite::TLS13_AES_256_GCM_SHA384) => "TLS_AES_256_GCM_SHA384",
        Some(CipherSuite::TLS13_CHACHA20_POLY1305_SHA256) => "TLS_CHACHA20_POLY1305_SHA256",
        // Those of TLS 1.2 are called what IANA calls them.
        Some(other) => other.as_str().unwrap_or_default(),
        None => "",
    }
}

fn client_certificate(chain: &[CertificateDer<'_>]) -> Option<ClientCertificate> {
    let der = chain.first()?;
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
    Some(ClientCertificate {
        subject: certificate.subject().to_string(),
        issuer: certificate.issuer().to_string(),
        serial: hex::encode(certificate.raw_serial()),
        fingerprint: hex::encode(digest.as_ref()),
        principals: principals(&certificate),
        chain: chain.iter().map(|der| der.as_ref().into()).collect(),
    })
}
