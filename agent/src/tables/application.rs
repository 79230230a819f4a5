//! The application beside which a sidecar stands, as an upstream of its own: made from settings, not from what the control plane tells. It knows no callers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use heddle_xds::model::{self, MeshProtocol, Resource, Scheme, Timeouts};

use super::Action;
use super::compile::Compiler;
use super::mesh;
use crate::filters::Chain;
use crate::observe::RouteStats;
use crate::route::CompiledRoute;

/// Name of the application's upstream, and of what stands for a route to it.
const INBOUND: &str = "mesh/inbound";
/// Name of its upstream over HTTP/2, where it may speak both.
pub const INBOUND_H2: &str = "mesh/inbound/http2";
/// Until a connection to the application stands, which is on this machine.
const CONNECT: Duration = Duration::from_secs(5);
/// Connections to the application that rest are closed before it closes them itself: some of the most usual servers do after five seconds, and a request that
/// meets that moment and must not be sent twice would fail.
const REST: Duration = Duration::from_secs(4);

/// A port of the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// How callers and policies name it.
    pub port: u16,
    /// Where the application listens for it.
    pub address: SocketAddr,
    /// What it speaks there.
    pub protocol: MeshProtocol,
}

/// A port besides the one that is called where nobody names any.
#[derive(Clone)]
pub struct Further {
    /// What it is.
    pub place: Place,
    /// Its upstream.
    pub upstream: Arc<str>,
}

/// The application beside which this node stands.
pub struct Application {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it speaks.
    pub protocol: MeshProtocol,
    /// Its further ports; what they speak is always said.
    pub further: Vec<Further>,
    /// What stands for a route to it: its upstream, its counters, the filters that the owner of its service has written for what comes in.
    pub route: Arc<CompiledRoute<Action>>,
}

impl Application {
    /// Its further port of this number.
    pub fn further(&self, port: u16) -> Option<&Further> {
        self.further.iter().find(|further| further.place.port == port)
    }
}

impl Compiler {
    /// Names the application beside which this node stands, with its further ports.
    #[must_use]
    pub fn beside(mut self, address: SocketAddr, protocol: MeshProtocol, ports: &[Place]) -> Compiler {
        let mut upstreams = vec![(address, upstream(INBOUND, scheme(protocol)))];
        if protocol == MeshProtocol::Auto {
            upstreams.push((address, upstream(INBOUND_H2, Scheme::Grpc)));
        }
        let of = |place: &Place| Further { place: *place, upstream: format!("{INBOUND}:{}", place.port).into() };
        let further: Vec<Further> = ports.iter().map(of).collect();
        let of = |further: &Further| (further.place.address, upstream(&further.upstream, scheme(further.place.protocol)));
        upstreams.extend(further.iter().map(of));
        for (address, upstream) in upstreams {
            let endpoints = vec![endpoint(address)];
            let endpoints = model::Endpoints { upstream: upstream.name.clone(), endpoints };
            for resource in [Resource::Upstream(Arc::new(upstream)), Resource::Endpoints(endpoints)] {
                // Neither has anything that could be wrong.
                let taken = self.set(resource);
                debug_assert!(taken.is_ok(), "{taken:?}");
            }
        }
        let action = Action {
            chain: Arc::default(),
            upstream: Some(INBOUND.into()),
            timeouts: None,
            enable_websocket: true,
            stats: Arc::new(RouteStats::new(self.workers)),
        };
        let route = CompiledRoute::compile(&mesh::route(INBOUND, ""), action);
        self.application = route.ok().map(|route| Arc::new(Application { address, protocol, further, route: Arc::new(route) }));
        self
    }

    /// Runs these filters for requests to the application.
    pub(super) fn run_inbound(&mut self, chain: Arc<Chain>) {
        let Some(application) = &self.application else { return };
        let Application { address, protocol, ref further, ref route } = **application;
        let further = further.clone();
        // It has compiled before, with the same conditions.
        let Ok(route) = CompiledRoute::compile(&mesh::route(INBOUND, ""), Action { chain, ..route.target.clone() }) else {
            return;
        };
        self.application = Some(Arc::new(Application { address, protocol, further, route: Arc::new(route) }));
    }
}

fn scheme(protocol: MeshProtocol) -> Scheme {
    match protocol {
        MeshProtocol::Http2 | MeshProtocol::Grpc => Scheme::Grpc,
        MeshProtocol::Http | MeshProtocol::Tcp | MeshProtocol::Auto => Scheme::Http,
    }
}

fn endpoint(address: SocketAddr) -> model::Endpoint {
    model::Endpoint {
        host: address.ip().to_string().into(),
        port: address.port(),
        weight: 1,
        priority: 0,
        zone: "".into(),
        ..model::Endpoint::default()
    }
}

/// One try, without limits of time once it is connected: how long an answer may take is for the caller to say.
fn upstream(name: &str, scheme: Scheme) -> model::Upstream {
    model::Upstream {
        scheme,
        timeouts: Timeouts { connect: CONNECT, send: Duration::ZERO, read: Duration::ZERO },
        keepalive: model::KeepalivePool { idle_timeout: REST, requests: u32::MAX, ..model::KeepalivePool::default() },
        ..model::Upstream::new(name)
    }
}
