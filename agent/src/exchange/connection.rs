//! What is known of the client's connection.

use std::net::SocketAddr;
use std::sync::Arc;

use heddle_xds::model::TcpRoute;

use crate::http::digits::AddressText;

/// What is known of the client's connection; the same for all its requests.
#[derive(Debug, Clone)]
pub struct ConnectionInfo {
    /// Unique on this node.
    pub id: u64,
    /// Name of the listener that accepted it.
    pub listener: Arc<str>,
    /// Client address: the socket's peer, or what a PROXY header said.
    pub peer: SocketAddr,
    /// The same as text.
    pub peer_text: AddressText,
    /// The socket's peer.
    pub transport_peer: SocketAddr,
    /// Address the client connected to (the PROXY header's destination when there was one).
    pub local: SocketAddr,
    /// TLS facts, `None` in clear.
    pub tls: Option<TlsInfo>,
    /// Which way its requests go.
    pub door: Door,
    /// Whether its requests are made by filters ([`super::Exchange::dispatch`]) on behalf of a request of the client's.
    pub inner: bool,
}

/// Which way the requests of a connection go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Door {
    /// By the routes of the gateway.
    #[default]
    Gateway,
    /// From the mesh, or in clear where that is permitted, to the application beside which this node stands.
    Inbound {
        /// The SPIFFE id that the caller has proven, `None` in clear.
        peer: Option<Arc<str>>,
        /// Port of the application that is called.
        port: u16,
        /// What the application is told of the caller in `X-Forwarded-Client-Cert`; `None` where nothing is known or nothing is to be told.
        forwarded: Option<Arc<str>>,
    },
    /// From that application to services of the mesh.
    Outbound(Destination),
    /// Through the gateway as bytes that nobody looks into, by this route; `None` where none fits.
    Bytes(Option<Arc<TcpRoute>>),
}

impl Door {
    /// The SPIFFE id that the caller has proven.
    pub fn peer(&self) -> Option<&Arc<str>> {
        match self {
            Door::Inbound { peer, .. } => peer.as_ref(),
            _ => None,
        }
    }
}

/// How it is known which service of the mesh an application calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// The listener is that of one service, `<namespace>/<service>`, or of a port of it.
    Service(Arc<str>, Option<u16>),
    /// The host of the request names it (an HTTP proxy).
    Host,
    /// The connection was on its way to this address when it was captured.
    Captured(SocketAddr),
}

/// Facts of a TLS session.
#[derive(Debug, Clone)]
pub struct TlsInfo {
    /// Server name the client asked for, lower-case.
    pub server_name: Option<Arc<str>>,
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// Cipher suite name.
    pub cipher: &'static str,
    /// Verified client certificate.
    pub client: Option<ClientCertificate>,
    /// Paths (regex) for which the route demands no client certificate though the handshake carried none.
    pub client_required_unless: Option<Arc<[regex::Regex]>>,
}

/// A verified client certificate.
#[derive(Debug, Clone)]
pub struct ClientCertificate {
    /// Subject, RFC 4514.
    pub subject: String,
    /// Issuer, RFC 4514.
    pub issuer: String,
    /// Serial number, hexadecimal.
    pub serial: String,
    /// SHA-256 of the DER, hexadecimal.
    pub fingerprint: String,
    /// Whom it names: URIs and DNS names of the subject's alternative names, and last the subject as RFC 2253 writes it.
    pub principals: Arc<[Box<str>]>,
    /// The chain that was shown, as DER, the certificate itself first.
    pub chain: Arc<[Box<[u8]>]>,
}
