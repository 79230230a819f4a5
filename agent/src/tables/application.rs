//! The application beside which a sidecar stands, as upstreams of its own: made from settings, not from what the control plane tells. It knows no callers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use heddle_xds::model::{self, MeshProtocol, Resource, Scheme, Timeouts};

use super::Action;
use super::compile::Compiler;
use super::mesh;
use crate::filters::Chain;
use crate::http::Heard;
use crate::observe::RouteStats;
use crate::route::CompiledRoute;

/// Name of the application's upstream, and of what stands for a route to it.
const INBOUND: &str = "mesh/inbound";
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

/// A port of the application with what is known of it while the process runs.
#[derive(Debug)]
pub struct Port {
    /// What it is.
    pub place: Place,
    /// Its upstream; `None` is that of the route.
    pub upstream: Option<Arc<str>>,
    /// Where nobody has said what it speaks: what it has been heard to speak, and its upstream over HTTP/2.
    pub auto: Option<(Arc<Heard>, Arc<str>)>,
}

/// The ports of the application.
#[derive(Debug)]
pub struct Ports {
    /// The one that is called where nobody names any.
    pub first: Port,
    /// Those besides.
    pub further: Vec<Port>,
}

/// The application beside which this node stands.
pub struct Application {
    /// Its ports.
    pub ports: Arc<Ports>,
    /// What stands for a route to it: its upstream, its counters, the filters that the owner of its service has written for what comes in.
    pub route: Arc<CompiledRoute<Action>>,
}

impl Port {
    fn of(place: Place, upstream: Option<String>) -> Port {
        let auto = || (Arc::default(), format!("{}/http2", upstream.as_deref().unwrap_or(INBOUND)).into());
        let auto = (place.protocol == MeshProtocol::Auto).then(auto);
        Port { place, upstream: upstream.map(Arc::from), auto }
    }

    /// What it has been heard to speak, where nobody has said it.
    pub fn heard(&self) -> Option<&Arc<Heard>> {
        self.auto.as_ref().map(|(heard, _)| heard)
    }

    fn upstreams(&self) -> impl Iterator<Item = model::Upstream> {
        let over_http2 = self.auto.iter().map(|(_, name)| upstream(name, Scheme::Grpc));
        std::iter::once(upstream(self.upstream.as_deref().unwrap_or(INBOUND), scheme(self.place.protocol))).chain(over_http2)
    }
}

impl Ports {
    /// Those of an application that listens here, and speaks this where nobody names a port.
    pub fn new(address: SocketAddr, protocol: MeshProtocol, further: &[Place]) -> Ports {
        let of = |place: &Place| Port::of(*place, Some(format!("{INBOUND}:{}", place.port)));
        let first = Place { port: address.port(), address, protocol };
        Ports { first: Port::of(first, None), further: further.iter().map(of).collect() }
    }

    /// The further one of this number.
    pub fn further(&self, port: u16) -> Option<&Port> {
        self.further.iter().find(|further| further.place.port == port)
    }

    /// The one of this number.
    pub fn at(&self, port: u16) -> Option<&Port> {
        self.further(port).or_else(|| Some(&self.first).filter(|first| first.place.port == port))
    }
}

impl Compiler {
    /// Names the ports of the application beside which this node stands.
    #[must_use]
    pub fn beside(mut self, ports: Arc<Ports>) -> Compiler {
        for port in std::iter::once(&ports.first).chain(&ports.further) {
            for upstream in port.upstreams() {
                let endpoints = [endpoint(port.place.address)].into();
                let endpoints = model::Endpoints { upstream: upstream.name.clone(), endpoints };
                for resource in [Resource::Upstream(Arc::new(upstream)), Resource::Endpoints(endpoints)] {
                    // Neither has anything that could be wrong.
                    let taken = self.set(resource);
                    debug_assert!(taken.is_ok(), "{taken:?}");
                }
            }
        }
        let action = Action {
            chain: Arc::default(),
            upstream: Some(INBOUND.into()),
            timeouts: None,
            enable_websocket: true,
            max_duration: None,
            stats: Arc::new(RouteStats::new(self.workers)),
        };
        let route = CompiledRoute::compile(&mesh::route(INBOUND, ""), action);
        self.application = route.ok().map(|route| Arc::new(Application { ports, route: Arc::new(route) }));
        self
    }

    /// Runs these filters for requests to the application.
    pub(super) fn run_inbound(&mut self, chain: Arc<Chain>) {
        let Some(application) = &self.application else { return };
        let Application { ports, route } = &**application;
        let ports = ports.clone();
        // It has compiled before, with the same conditions.
        let Ok(route) = CompiledRoute::compile(&mesh::route(INBOUND, ""), Action { chain, ..route.target.clone() }) else {
            return;
        };
        self.application = Some(Arc::new(Application { ports, route: Arc::new(route) }));
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
