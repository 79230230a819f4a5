//! Who is at the other end of a connection, as far as the connection itself shows it. Requests carry it as an extension. It knows no service.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use heddle_node::identity::SpiffeId;
use rustls::pki_types::CertificateDer;

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub enum Peer {
    /// A part of this process.
    Process,
    /// Whoever can reach the port; the connection is in clear.
    Clear(SocketAddr),
    /// A TLS connection.
    Tls {
        /// From where.
        address: SocketAddr,
        /// Who, when it showed a certificate; it was verified at the handshake.
        identity: Option<Arc<PeerIdentity>>,
    },
}

/// The certificate of a client.
#[derive(Debug, Clone)]
pub struct PeerIdentity {
    /// Whose it is.
    pub id: SpiffeId,
    /// The leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Until when it is believed.
    pub good_until: SystemTime,
}

impl Peer {
    /// Where it is; `None` within the process.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Peer::Process => None,
            Peer::Clear(address) | Peer::Tls { address, .. } => Some(*address),
        }
    }

    /// Until when the certificate that it showed is believed; `None` when it showed none.
    pub fn good_until(&self) -> Option<SystemTime> {
        match self {
            Peer::Tls { identity: Some(identity), .. } => Some(identity.good_until),
            _ => None,
        }
    }

    /// Who it is, when that was verified.
    pub fn id(&self) -> Option<&SpiffeId> {
        match self {
            Peer::Tls { identity: Some(identity), .. } => Some(&identity.id),
            _ => None,
        }
    }
}
