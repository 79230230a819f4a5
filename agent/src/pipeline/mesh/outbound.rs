//! From the application beside this node to services of the mesh: which one is called, its filters, and the way to it. What is no service's passes as it is,
//! where that is wanted.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use heddle_node::clock;
use heddle_xds::model::{MeshProtocol, instance_of_name};

use super::super::edit;
use super::super::finish::Finish;
use super::super::forward::{Campaign, Unserved};
use super::super::headers;
use super::super::http::{Pipeline, Served, refuse, strip_request};
use super::super::plan::Plan;
use super::super::view::View;
use super::Asked;
use super::callees::Meant;
use super::inbound::admit;
use super::tcp::connect;
use crate::exchange::{Answer, Attempt, Destination, EndpointName, Exchange, Reading, Reason, Tunnel};
use crate::http::{Body, Method, ResponseHead};
use crate::tables::{Called, Ending, host_of};
use crate::upstream::Dial;

/// How long the name of a host outside of the mesh may be looked up.
const LOOK_UP: Duration = Duration::from_secs(5);

/// Where a request or a connection of the application goes.
pub(super) enum Way {
    /// To the service of this number.
    Service(u32),
    /// To nobody that the mesh knows.
    Outside(SocketAddr),
}

/// Where it goes, or why nowhere; with the name of the service as far as there is one.
pub(super) struct Found {
    pub(super) view: Rc<View>,
    pub(super) way: Result<Way, Box<Answer>>,
}

impl Pipeline {
    /// Finds out where a request with this authority goes; `leaves` is whether it may ask others than services.
    pub(super) async fn way(&self, destination: &Destination, authority: &str, leaves: bool) -> Found {
        let callees = self.worker.callees();
        let found = match destination {
            Destination::Service(service, port) => self.service(service, *port, Meant::Service).await,
            Destination::Host => self.named(authority, leaves && callees.lets_others_pass).await,
            Destination::Captured(address) => match self.by_address(*address).await {
                Some(service) => self.service(&service, Some(address.port()), Meant::Service).await,
                None => self.captured(*address, authority, callees.lets_others_pass).await,
            },
        };
        match found {
            Ok((view, way)) => Found { view, way: Ok(way) },
            Err(answer) => Found { view: self.worker.view(), way: Err(answer) },
        }
    }

    /// A service, or the one that stands for a port of it.
    async fn service(&self, service: &str, port: Option<u16>, meant: Meant) -> Result<(Rc<View>, Way), Box<Answer>> {
        let found = self.callee_at(service, port, meant).await;
        found.map(|(view, number, _)| (view, Way::Service(number))).map_err(|reason| of_service(refuse(reason), service))
    }

    async fn callee_at(
        &self,
        service: &str,
        port: Option<u16>,
        meant: Meant,
    ) -> Result<(Rc<View>, u32, std::sync::Arc<str>), Reason> {
        let (view, number) = self.worker.callee(service, meant).await?;
        let known = view.tables.mesh.get(service).ok_or(Reason::UnknownService)?;
        if port.is_some_and(|port| !known.is_called_on(port)) {
            return Err(Reason::UnknownService);
        }
        match port.and_then(|port| known.own_port(port)) {
            None => Ok((view.clone(), number, known.name.clone())),
            Some(own) => self.worker.callee(&own, Meant::Service).await.map(|(view, number)| (view, number, own)),
        }
    }

    /// Whom a request to a proxy names: a service, or somebody else where it may.
    async fn named(&self, authority: &str, leaves: bool) -> Result<(Rc<View>, Way), Box<Answer>> {
        let called = Called::of(authority, &self.worker.callees().namespace);
        let is_sure = called.as_ref().is_some_and(Called::is_sure);
        let found = match called {
            Some(called) => self.called(&called, if leaves { Meant::by(&called) } else { Meant::Service }).await,
            None => Err(unknown(authority)),
        };
        match found {
            Err(answer) if leaves && !is_sure => {
                let address = look_up(authority).await.ok_or(answer)?;
                Ok((self.worker.view(), Way::Outside(address)))
            }
            found => found,
        }
    }

    /// The service of a host, on a port on which it is called.
    async fn called(&self, called: &Called, meant: Meant) -> Result<(Rc<View>, Way), Box<Answer>> {
        self.service(&called.service, called.port, meant).await
    }

    /// A captured connection to no address of a service: its requests may name one all the same.
    async fn captured(&self, address: SocketAddr, authority: &str, lets_pass: bool) -> Result<(Rc<View>, Way), Box<Answer>> {
        let callees = self.worker.callees();
        if let Some(called) = Called::of(authority, &callees.namespace).filter(|_| authority.parse::<SocketAddr>().is_err()) {
            match self.called(&called, Meant::by(&called)).await {
                Err(answer) if may_be_outside(&called, answer.reason) => {}
                found => return found,
            }
        }
        if lets_pass { Ok((self.worker.view(), Way::Outside(address))) } else { Err(unknown(authority)) }
    }

    /// The service whose address this is, the one that it has on every node or one that its owner has told, and that is called on this port.
    async fn by_address(&self, address: SocketAddr) -> Option<std::sync::Arc<str>> {
        let view = self.worker.view();
        let mut services = view.tables.mesh.values();
        if let Some(known) = services.find(|service| service.vip == Some(address.ip())) {
            return known.is_called_on(address.port()).then(|| known.name.clone());
        }
        let service = self.worker.service_at(address).await?;
        // It is the mesh's: what cannot be told yet is refused, and never sent there in clear.
        let Ok((view, _)) = self.worker.callee(&service, Meant::Service).await else { return Some(service) };
        view.tables.mesh.get(&service).filter(|known| known.is_called_on(address.port())).map(|known| known.name.clone())
    }

    /// How a connection of the application is to be read.
    pub(in super::super) async fn read_as(&self, destination: &Destination) -> (Destination, Reading) {
        let (service, port) = match destination {
            Destination::Host => return (Destination::Host, Reading::Http),
            Destination::Service(service, port) => (service.clone(), *port),
            Destination::Captured(address) => match self.by_address(*address).await {
                Some(service) => (service, Some(address.port())),
                None => return (destination.clone(), Reading::First),
            },
        };
        let (service, protocol) = match self.callee_at(&service, port, Meant::Service).await {
            Ok((view, _, service)) => {
                let protocol = view.tables.mesh.get(&service).map(|known| known.protocol);
                ((service, None), protocol)
            }
            Err(_) => ((service, port), None),
        };
        let reading = match protocol {
            Some(MeshProtocol::Http | MeshProtocol::Http2 | MeshProtocol::Grpc) => Reading::Http,
            Some(MeshProtocol::Tcp) => Reading::Bytes,
            // Whoever speaks HTTP is told why nothing comes of it.
            Some(MeshProtocol::Auto) | None => Reading::First,
        };
        (Destination::Service(service.0, service.1), reading)
    }

    /// Whether the authority of a captured request names a service, or what may be one as far as it is known by now.
    pub(in super::super) async fn names_service(&self, authority: &str) -> bool {
        let Some(called) = Called::of(authority, &self.worker.callees().namespace) else { return false };
        if called.ending == Ending::Mesh {
            return true;
        }
        let found = self.called(&called, Meant::by(&called)).await;
        found.map_or_else(|answer| !may_be_outside(&called, answer.reason), |_| true)
    }

    /// The service that a CONNECT to the proxy names, where it can be called, and how what comes within is to be read.
    pub(in super::super) async fn connects_to(&self, authority: &str) -> Option<(Destination, Reading)> {
        let called = Called::of(authority, &self.worker.callees().namespace)?;
        self.called(&called, Meant::by(&called)).await.ok()?;
        Some(self.read_as(&Destination::Service(called.service, called.port)).await)
    }

    /// A connection for opaque bytes, before it is known whether it is needed.
    pub(in super::super) async fn dial_ahead(&self, destination: &Destination) -> Option<Box<dyn Tunnel>> {
        let Found { view, way } = self.way(destination, "", false).await;
        match way.ok()? {
            Way::Outside(address) => connect(address).await.ok(),
            Way::Service(number) => {
                let seen = view.seen(number)?;
                let target = self.settled(seen.cluster.as_ref()).await.ok()?;
                let timeouts = seen.timeouts().unwrap_or(target.config().timeouts);
                let authority = authority_of(&view, &seen.route.info.name, destination);
                let opened = self.worker.pools.tunnel(&target, Dial::to(&authority, &timeouts), &mut self.worker.dice()).await;
                opened.ok().map(|opened| opened.io)
            }
        }
    }

    /// Answers a request of the application.
    pub(super) async fn outbound(
        &self,
        finish: &mut Finish,
        asked: Asked<'_>,
        destination: &Destination,
        way: Result<Way, Box<Answer>>,
    ) -> Result<Served, Box<Answer>> {
        let Finish { x, plan, .. } = finish;
        admit(x)?;
        let opaque = x.request.method == Method::Connect && x.request.protocol.is_none();
        let number = match way? {
            Way::Service(number) => number,
            Way::Outside(address) if opaque => return outside(x, address, asked.far).await,
            Way::Outside(address) if *destination == Destination::Host => return self.pass_on(x, plan, address, &asked).await,
            Way::Outside(_) => return Err(unknown(&x.request.authority)),
        };
        x.route = Some(number);
        plan.take_route(number);
        let service = plan.route().map(|seen| seen.route.info.name.clone()).unwrap_or_default();
        let served = if opaque {
            self.tunnel_to_service(x, plan, &service, destination, asked.far).await
        } else {
            self.request(x, plan, &service, destination, &asked).await
        };
        served.map_err(|answer| of_service(answer, &service))
    }

    async fn request(
        &self,
        x: &mut Exchange,
        plan: &mut Plan,
        service: &str,
        destination: &Destination,
        asked: &Asked<'_>,
    ) -> Result<Served, Box<Answer>> {
        let websocket = asked.wants_upgrade && headers::asks_for_websocket(&x.request);
        if x.request.method == Method::Connect && !websocket {
            return Err(refuse(Reason::NotImplemented));
        }
        // Who calls is what the other side has verified, not what an application says.
        if headers::remove_client_cert(&mut x.request.fields) {
            self.worker.note_spoofed(&x.connection, None);
        }
        // Whoever calls a single instance by its address calls it so, and no listener of this node.
        let is_place = instance_of_name(service).is_some();
        if matches!(destination, Destination::Service(..)) && !is_place && names_this_node(&x.request.authority) {
            x.request.authority = host_of(service);
        }
        strip_request(&mut x.request.fields, websocket);
        if let Some(answer) = plan.rewrite(x).await {
            return Err(answer);
        }
        if let Some(answer) = plan.access(x).await {
            return Err(answer);
        }
        let body = plan.request_body(x).into_iter().fold(std::mem::take(&mut x.body), edit::edited);
        self.forward(x, plan, body, websocket, asked.interim).await
    }

    /// Passes a request of the HTTP proxy on to somebody outside of the mesh, as any proxy would.
    async fn pass_on(
        &self,
        x: &mut Exchange,
        plan: &Plan,
        address: SocketAddr,
        asked: &Asked<'_>,
    ) -> Result<Served, Box<Answer>> {
        let leads_here = leads_to(address, x.connection.local);
        let Some(outside) = self.worker.callees().outside.filter(|_| !leads_here) else {
            return Err(unknown(&x.request.authority));
        };
        if x.request.asks_tls {
            return Err(in_clear(&x.request.authority));
        }
        let websocket = asked.wants_upgrade && headers::asks_for_websocket(&x.request);
        if x.request.method == Method::Connect && !websocket {
            return Err(refuse(Reason::NotImplemented));
        }
        strip_request(&mut x.request.fields, websocket);
        let target = self.settled(Some(&outside.at(address))).await.map_err(refuse)?;
        let campaign = Campaign::new(plan, &target, websocket, asked.interim);
        let mut body = std::mem::take(&mut x.body);
        self.tries(x, plan, &campaign, &mut body, None).await.map_err(Unserved::into_answer)
    }

    async fn tunnel_to_service(
        &self,
        x: &mut Exchange,
        plan: &Plan,
        service: &str,
        destination: &Destination,
        far: Option<Box<dyn Tunnel>>,
    ) -> Result<Served, Box<Answer>> {
        if let Some(far) = far {
            return Ok(tunnelled(far));
        }
        let target = self.target(x, plan).await.map_err(refuse)?;
        let timeouts = plan.timeouts().unwrap_or(target.config().timeouts);
        let authority = authority_of(plan.view(), service, destination);
        let opened = self.worker.pools.tunnel(&target, Dial::to(&authority, &timeouts), &mut x.dice).await;
        let opened = opened.map_err(|error| refuse(error.reason))?;
        x.attempts.push(attempt(opened.endpoint.name().clone(), opened.connect, None));
        Ok(tunnelled(opened.io))
    }
}

/// Whether somebody outside of the mesh may be meant by a captured request, who cannot be called as a service for this reason: by a name of Kubernetes as soon as
/// it is known that no service is called so, and not a moment before.
fn may_be_outside(called: &Called, reason: Reason) -> bool {
    match called.ending {
        Ending::Mesh => false,
        Ending::Kubernetes => reason == Reason::UnknownService,
        Ending::Bare => true,
    }
}

/// Whether a connection to `address` ends at the socket that took one at `local`: by its own address, by any other one of this host's loopback, or by none.
fn leads_to(address: SocketAddr, local: SocketAddr) -> bool {
    let (to, own) = (address.ip().to_canonical(), local.ip().to_canonical());
    to.is_unspecified() || (address.port() == local.port() && (to.is_loopback() || to == own))
}

/// Bytes to where a captured connection was going, past the mesh.
async fn outside(x: &mut Exchange, address: SocketAddr, far: Option<Box<dyn Tunnel>>) -> Result<Served, Box<Answer>> {
    let began = clock::now();
    let connected = match far {
        Some(far) => Ok(far),
        None => connect(address).await,
    };
    let took = clock::now().saturating_duration_since(began);
    let name = EndpointName::new(address.ip().to_string().into(), address);
    x.attempts.push(attempt(name, took, connected.as_ref().err().copied()));
    connected.map(tunnelled).map_err(refuse)
}

fn tunnelled(far: Box<dyn Tunnel>) -> Served {
    Served { head: ResponseHead::new(200), body: Body::Empty, upgrade: Some(far), reason: Reason::None, doubt: None }
}

fn attempt(endpoint: Rc<EndpointName>, connect: std::time::Duration, failure: Option<Reason>) -> Attempt {
    Attempt { endpoint, status: None, outcome: None, connect, header: None, total: None, failure, broke: false }
}

/// What a peer is told that opaque bytes are for: the service, and the port on which it was called.
fn authority_of(view: &View, service: &str, destination: &Destination) -> String {
    if let Some(at) = instance_of_name(service) {
        return at.to_string();
    }
    let host = host_of(service);
    if service.contains(':') {
        // A port of a service: it stands there.
        return host;
    }
    let known = view.tables.mesh.get(service);
    let port = match destination {
        Destination::Captured(address) => address.port(),
        _ => known.and_then(|known| known.ports.first().copied()).unwrap_or(80),
    };
    // One that is a service of its own would lead there.
    let port = if known.is_some_and(|known| known.own_port(port).is_some()) { 0 } else { port };
    format!("{host}:{port}")
}

/// Whether an authority is that of a listener of this node rather than that of a service.
fn names_this_node(authority: &str) -> bool {
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.is_empty() || host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok()
}

/// The answer of a reason, which names the service that it is about.
fn of_service(mut answer: Box<Answer>, service: &str) -> Box<Answer> {
    if answer.reason == Reason::Plugin || answer.reason == Reason::Answered || answer.body.is_empty() {
        return answer;
    }
    if answer.body == Answer::of(answer.reason).body {
        // A name of a service has nothing in it that JSON would have to escape.
        answer.body = Bytes::from(format!("{{\"error_msg\":\"{}\",\"service\":\"{service}\"}}\n", answer.reason.text()));
    }
    answer
}

/// The address of somebody outside of the mesh; without a port it is the usual one.
async fn look_up(authority: &str) -> Option<SocketAddr> {
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let with_port = if has_port { authority.to_owned() } else { format!("{authority}:80") };
    let found = tokio::time::timeout(LOOK_UP, tokio::net::lookup_host(with_port)).await;
    match found {
        Ok(Ok(mut addresses)) => addresses.next(),
        Ok(Err(error)) => {
            tracing::debug!(authority, %error, "neither a service of the mesh nor a name that is known");
            None
        }
        Err(_) => None,
    }
}

/// Nobody in the mesh has this name.
fn unknown(authority: &str) -> Box<Answer> {
    tracing::debug!(authority, "no service of the mesh is called so");
    refuse(Reason::UnknownService)
}

/// What is asked for by `https` must not go out in clear, and whose certificate would do is the client's to say: it asks for a tunnel.
fn in_clear(authority: &str) -> Box<Answer> {
    tracing::debug!(authority, "a plain request for https is not passed on");
    let mut answer = refuse(Reason::NotImplemented);
    answer.body = Bytes::from_static(b"{\"error_msg\":\"501 Not Implemented: https goes through this proxy by CONNECT only\"}\n");
    answer
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn answers_name_the_service_and_those_of_plugins_stay() {
        let named = of_service(refuse(Reason::NoEndpoint), "shop/api");
        assert_eq!(named.body, "{\"error_msg\":\"503 Service Unavailable: no endpoint\",\"service\":\"shop/api\"}\n");
        let own = Answer { body: Bytes::from_static(b"mine"), ..Answer::of(Reason::Plugin) };
        assert_eq!(of_service(Box::new(own), "shop/api").body, "mine");
    }

    #[test]
    fn a_proxy_knows_itself_by_whatever_address_it_is_called() {
        let own = "127.0.0.1:15001".parse().unwrap();
        for same in [
            "127.0.0.1:15001",
            "127.0.0.2:15001",
            "0.0.0.0:15001",
            "[::]:15001",
            "[::1]:15001",
            "[::ffff:127.0.0.1]:15001",
            "0.0.0.0:80",
        ] {
            assert!(leads_to(same.parse().unwrap(), own), "{same}");
        }
        for other in ["127.0.0.1:15002", "10.0.0.1:15001"] {
            assert!(!leads_to(other.parse().unwrap(), own), "{other}");
        }
        assert!(leads_to("[::ffff:10.0.0.1]:15001".parse().unwrap(), "10.0.0.1:15001".parse().unwrap()));
    }

    #[test]
    fn an_address_of_this_node_is_no_name_of_a_service() {
        for (authority, is) in [
            ("127.0.0.1:9001", true),
            ("localhost:9001", true),
            ("[::1]:1", true),
            ("", true),
            ("api", false),
            ("api.shop:80", false),
        ] {
            assert_eq!(names_this_node(authority), is, "{authority}");
        }
    }
}
