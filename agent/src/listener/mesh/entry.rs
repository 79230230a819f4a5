//! What a listener is used for besides what the configuration of listeners says. It accepts nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use heddle_node::identity::{ClientAuth, Identity};
use heddle_xds::model::{Listener, MeshProtocol, PeerMode};
use rustls::ServerConfig;
use tokio::sync::watch;

use crate::net::INBOUND_ALPN;
use crate::observe::MeshStats;
use crate::settings::InboundSettings;
use crate::tables::{PeerModes, Place};

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
    /// Where the application listens.
    pub application: SocketAddr,
    /// What the application speaks.
    pub protocol: MeshProtocol,
    /// Its further ports.
    pub further: Vec<Place>,
    /// What is counted.
    pub stats: Arc<MeshStats>,
    /// Whether its sockets take connections to any address, as TPROXY hands them over.
    pub is_transparent: bool,
    pub(super) tls: Arc<ServerConfig>,
    /// Who is let in, as the control plane says.
    pub(super) modes: watch::Sender<Arc<PeerModes>>,
    /// Whether an application that has not said what it speaks has answered in HTTP.
    pub(super) found_http: Arc<AtomicBool>,
}

impl Inbound {
    /// The door to an application that speaks `protocol` at `application`.
    pub fn new(
        identity: Identity,
        settings: InboundSettings,
        application: SocketAddr,
        protocol: MeshProtocol,
        stats: Arc<MeshStats>,
    ) -> Inbound {
        let tls = identity.server_config(ClientAuth::Required, INBOUND_ALPN);
        Inbound {
            identity,
            settings,
            application,
            protocol,
            further: Vec::new(),
            stats,
            is_transparent: false,
            tls,
            modes: watch::Sender::default(),
            found_http: Arc::default(),
        }
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
        let mode = self.mode(self.application.port());
        let is_spoken = self.further.iter().any(|place| self.mode(place.port) != PeerMode::Disable);
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

    /// The further port of this number.
    fn further(&self, port: u16) -> Option<&Place> {
        self.further.iter().find(|place| place.port == port)
    }

    /// Where the application listens for this port, to which a connection came at `local`.
    pub(super) fn address_at(&self, port: u16, local: SocketAddr) -> SocketAddr {
        match self.further(port) {
            Some(place) => place.address,
            None if port == self.application.port() => self.application,
            None => local,
        }
    }

    /// Whether the application may speak something else than HTTP.
    pub(super) fn may_be_opaque(&self, port: u16) -> bool {
        matches!(self.spoken_at(port), MeshProtocol::Tcp | MeshProtocol::Auto)
    }

    /// Where it is to be noted that the application speaks HTTP after all, of bytes that come for this port: whoever sends them, nothing was done to them that
    /// is done to requests.
    pub(super) fn doubt(&self, port: u16) -> Option<Arc<AtomicBool>> {
        (self.protocol == MeshProtocol::Auto && port == self.application.port()).then(|| self.found_http.clone())
    }

    /// What is spoken at this port, as far as it is known.
    pub(super) fn spoken_at(&self, port: u16) -> MeshProtocol {
        if let Some(place) = self.further(port) {
            return place.protocol;
        }
        match self.protocol {
            _ if port != self.application.port() => MeshProtocol::Tcp,
            MeshProtocol::Auto if self.found_http.load(Ordering::Relaxed) => MeshProtocol::Http,
            protocol => protocol,
        }
    }
}
