//! What a listener is used for besides what the configuration of listeners says. It accepts nothing.

use std::net::SocketAddr;
use std::sync::Arc;

use heddle_node::identity::{ClientAuth, Identity};
use heddle_xds::model::{Listener, MeshProtocol, PeerMode};
use rustls::ServerConfig;
use tokio::sync::watch;

use crate::http::Version;
use crate::net::INBOUND_ALPN;
use crate::observe::MeshStats;
use crate::settings::InboundSettings;
use crate::tables::{PeerModes, Port, Ports};

/// A listener that should be open.
#[derive(Clone)]
pub struct Wanted {
    /// Its configuration.
    pub listener: Arc<Listener>,
    /// What it is used for.
    pub entry: Entry,
}

impl Wanted {
    /// A listener of a gateway.
    pub fn gateway(listener: Arc<Listener>) -> Wanted {
        Wanted { listener, entry: Entry::Gateway }
    }
}

/// What a listener is used for. Copying it costs a reference.
#[derive(Clone)]
pub enum Entry {
    /// Requests from outside, which go by routes.
    Gateway,
    /// What comes in for the application beside which this node stands.
    Inbound(Arc<Inbound>),
    /// What that application sends.
    Outbound(Leads),
}

/// How it is known where a connection of the application goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leads {
    /// To this service, `<namespace>/<service>`, by this port where one is named.
    To(Arc<str>, Option<u16>),
    /// Each request says so by its host: an HTTP proxy.
    ByHost,
    /// It was captured on its way.
    Captured {
        /// Whether the socket takes connections to any address, as TPROXY hands them over.
        is_transparent: bool,
    },
}

impl Entry {
    /// Whether its socket takes connections to any address.
    pub(in crate::listener) fn is_transparent(&self) -> bool {
        match self {
            Entry::Outbound(Leads::Captured { is_transparent }) => *is_transparent,
            Entry::Inbound(inbound) => inbound.is_transparent,
            Entry::Gateway | Entry::Outbound(_) => false,
        }
    }
}

impl PartialEq for Entry {
    /// Whether it is the very same: what it is made of is made once.
    fn eq(&self, other: &Entry) -> bool {
        match (self, other) {
            (Entry::Gateway, Entry::Gateway) => true,
            (Entry::Inbound(a), Entry::Inbound(b)) => Arc::ptr_eq(a, b),
            (Entry::Outbound(a), Entry::Outbound(b)) => a == b,
            _ => false,
        }
    }
}

/// The door to the application beside which this node stands; one for all workers.
pub struct Inbound {
    /// Who this node is and whom it trusts.
    pub identity: Identity,
    /// What it was told.
    pub settings: InboundSettings,
    /// Where the application listens, and what it speaks there.
    pub ports: Arc<Ports>,
    /// What is counted.
    pub stats: Arc<MeshStats>,
    /// Whether its sockets take connections to any address, as TPROXY hands them over.
    pub is_transparent: bool,
    pub(super) tls: Arc<ServerConfig>,
    /// Who is let in, as the control plane says.
    pub(super) modes: watch::Sender<Arc<PeerModes>>,
}

impl Inbound {
    /// The door to these ports of an application.
    pub fn new(identity: Identity, settings: InboundSettings, ports: Arc<Ports>, stats: Arc<MeshStats>) -> Inbound {
        let tls = identity.server_config(ClientAuth::Required, INBOUND_ALPN);
        Inbound { identity, settings, ports, stats, is_transparent: false, tls, modes: watch::Sender::default() }
    }

    /// Lets in whom the control plane says. Who came in in clear and may no more is asked to leave.
    pub fn obey(&self, modes: &Arc<PeerModes>) {
        self.modes.send_if_modified(|known| {
            let is_other = **known != **modes;
            known.clone_from(modes);
            is_other
        });
    }

    /// Who is let in to this port of the application.
    pub(super) fn mode(&self, port: u16) -> PeerMode {
        self.settings.let_in(port, self.modes.borrow().at(port))
    }

    /// Who is let in where others reach all ports of the application. Callers in clear reach only the first of them there; members name the port that they mean,
    /// so TLS is spoken as long as one of them demands it or allows it.
    pub(super) fn mode_at_door(&self) -> PeerMode {
        let mode = self.mode(self.first_port());
        let is_spoken = self.ports.further.iter().any(|port| self.mode(port.place.port) != PeerMode::Disable);
        if mode == PeerMode::Disable && is_spoken { PeerMode::Permissive } else { mode }
    }

    /// What says that only members of the mesh are let in to this port.
    pub(super) fn strict_by(&self, port: u16) -> &'static str {
        let (own, told) = (self.settings.own_mode(port), self.modes.borrow().at(port));
        match (own, told) {
            (Some(PeerMode::Strict), _) => "inbound.mode is strict",
            (_, Some(PeerMode::Strict)) => "a peer_authentication says strict",
            _ => "nothing says another mode than strict",
        }
    }

    /// The port that is called where nobody names any.
    pub(super) fn first_port(&self) -> u16 {
        self.ports.first.place.port
    }

    /// Where the application listens for this port, to which a connection came at `local`.
    pub(super) fn address_at(&self, port: u16, local: SocketAddr) -> SocketAddr {
        self.ports.at(port).map_or(local, |port| port.place.address)
    }

    /// Whether the application may speak something else than HTTP.
    pub(super) fn may_be_opaque(&self, port: u16) -> bool {
        matches!(self.spoken_at(port), MeshProtocol::Tcp | MeshProtocol::Auto)
    }

    /// Takes note that the application speaks HTTP, of itself, where nobody has said what it speaks.
    pub(super) fn greets(&self, port: u16, version: Version) {
        if let Some(heard) = self.ports.at(port).and_then(Port::heard) {
            heard.answers_bytes(version);
        }
    }

    /// What is spoken at this port, as far as it is known.
    pub(super) fn spoken_at(&self, port: u16) -> MeshProtocol {
        match self.ports.at(port) {
            None => MeshProtocol::Tcp,
            Some(port) if port.heard().is_some_and(|heard| heard.is_read()) => MeshProtocol::Http,
            Some(port) => port.place.protocol,
        }
    }
}
