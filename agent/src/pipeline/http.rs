//! The life of an HTTP request, top to bottom: admitted, routed, filtered, forwarded, answered, finished.

use std::rc::Rc;
use std::sync::Arc;

use heddle_xds::model::{Listener, ListenerProtocol, PathPolicy};

use super::finish::{Finish, append_via};
use super::plan::Plan;
use super::worker::Worker;
use super::{edit, headers};
use crate::exchange::variable::SENT_FIELDS;
use crate::exchange::{
    Answer, Call, ConnectionInfo, Destination, Door, Exchange, Interim, OriginalTarget, Reading, Reason, Response, Service,
    Tunnel, path,
};
use crate::http::{Body, Fields, Heard, Method, Name, RequestHead, ResponseHead, Version, takes_trailers};

/// Answers requests on one worker.
pub struct Pipeline {
    pub(super) worker: Rc<Worker>,
}

/// What the middle of the pipeline gives back: an endpoint's answer, or one of ours with its reason.
pub(super) struct Served {
    pub head: ResponseHead,
    pub body: Body,
    pub upgrade: Option<Box<dyn Tunnel>>,
    pub reason: Reason,
    /// See [`Response::doubt`].
    pub doubt: Option<Arc<Heard>>,
}

impl From<Box<Answer>> for Served {
    fn from(answer: Box<Answer>) -> Served {
        Served { head: answer.head, body: Body::from(answer.body), upgrade: None, reason: answer.reason, doubt: None }
    }
}

impl Pipeline {
    /// A pipeline on this worker.
    pub fn new(worker: Rc<Worker>) -> Pipeline {
        Pipeline { worker }
    }
}

impl Service for Pipeline {
    async fn call(&self, connection: &Rc<ConnectionInfo>, call: Call) -> Response {
        if connection.door != Door::Gateway {
            return Box::pin(self.through_mesh(connection, call, None)).await;
        }
        let view = self.worker.view();
        let tables = view.clone();
        let listener = tables.tables.listeners.get(&connection.listener).map(|listener| &**listener);
        let mut x = Exchange::new(connection.clone(), call.head, call.started, call.started_ms, view.clone(), self.worker.dice());
        x.body = call.body;
        let mut finish = Finish::begin(x, Plan::new(view), self.worker.clone());
        let is_outdated = is_outdated(connection, listener);
        let served = match is_outdated {
            true => Err(refuse(Reason::Misdirected)),
            false => self.serve(&mut finish, listener, call.wants_upgrade, &call.interim).await,
        };
        let mut served = match served {
            Ok(served) => served,
            Err(answer) => {
                // What nobody will read any more is let go now: the connection must know before it answers.
                finish.x.body = Body::Empty;
                Served::from(answer)
            }
        };
        if finish.plan.acts_after_proxy() && served.upgrade.is_none() {
            served = Box::pin(after_proxy(&mut finish, served)).await;
        }
        Response { close: is_outdated, ..respond(finish, listener, served) }
    }

    async fn tunnel(&self, connection: &Rc<ConnectionInfo>, call: Call, far: Option<Box<dyn Tunnel>>) -> Response {
        match &connection.door {
            Door::Bytes(route) => Box::pin(self.lead(connection, call, route.as_ref())).await,
            _ => Box::pin(self.through_mesh(connection, call, far)).await,
        }
    }

    async fn reading(&self, destination: &Destination) -> (Destination, Reading) {
        self.read_as(destination).await
    }

    async fn leads(&self, authority: &str) -> bool {
        self.names_service(authority).await
    }

    async fn within(&self, authority: &str) -> Option<(Destination, Reading)> {
        self.connects_to(authority).await
    }

    async fn dial(&self, destination: &Destination) -> Option<Box<dyn Tunnel>> {
        self.dial_ahead(destination).await
    }

    fn listener(&self, name: &str) -> Option<Arc<Listener>> {
        self.worker.view().tables.listeners.get(name).cloned()
    }

    fn detected(&self, port: u16, protocol: &'static str) {
        self.worker.callees().stats.detected_outbound(port, protocol);
    }

    fn refused(&self, connection: &Rc<ConnectionInfo>, head: &RequestHead, reason: Reason) {
        let view = self.worker.view();
        let now = heddle_node::clock::now();
        let mut x = Exchange::new(
            connection.clone(),
            Box::new(head.clone()),
            now,
            heddle_node::clock::unix_ms(),
            view.clone(),
            self.worker.dice(),
        );
        x.original = OriginalTarget { method: head.method.clone(), path: head.path.clone(), query: head.query.clone() };
        x.answer.reason = reason;
        x.answer.status = reason.status();
        let finish = Finish::begin(x, Plan::new(view), self.worker.clone());
        crate::exchange::Ending::ended(finish, crate::exchange::Sent::default());
    }
}

impl Pipeline {
    async fn serve(
        &self,
        finish: &mut Finish,
        listener: Option<&Listener>,
        wants_upgrade: bool,
        interim: &Interim,
    ) -> Result<Served, Box<Answer>> {
        let Finish { x, plan, .. } = finish;
        if let Some(tracer) = self.worker.tracer() {
            tracer.begin(x);
        }
        // Before anybody looks: neither routes nor plugins may believe it, and it is told of whatever the answer is.
        x.trusted = is_trusted(x, listener);
        let sanitizes = listener.is_some_and(|listener| listener.forwarded.sanitizes);
        let believed = x.trusted && listener.is_some() && !sanitizes;
        if !believed && headers::remove_client_cert(&mut x.request.fields) {
            self.worker.note_spoofed(&x.connection, None);
        }
        if sanitizes {
            headers::remove_of_envoy(&mut x.request.fields, x.trusted);
        }
        admit(x, listener)?;
        route(x, plan);
        let websocket = wants_upgrade && headers::asks_for_websocket(&x.request);
        if x.request.method == Method::Connect && !websocket {
            return Err(refuse(Reason::NotImplemented));
        }
        strip_request(&mut x.request.fields, websocket);
        if let Some(answer) = plan.rewrite(x).await {
            return Err(answer);
        }
        if let Some(answer) = plan.access(x).await {
            return Err(answer);
        }
        if plan.route().is_none() {
            return Err(refuse(Reason::NoRoute));
        }
        let upgrade = websocket && plan.lets_websocket_pass();
        if x.request.method == Method::Connect && !upgrade {
            return Err(refuse(Reason::NotImplemented));
        }
        let body = plan.request_body(x).into_iter().fold(std::mem::take(&mut x.body), edit::edited);
        prepare_fields(x, listener);
        match plan.max_duration() {
            None => self.forward(x, plan, body, upgrade, interim).await,
            Some(limit) => Box::pin(self.forward_within(limit, x, plan, (body, upgrade), interim)).await,
        }
    }
}

/// Whether a connection came in clear before its listener began to end TLS: its routes may count on what is demanded there.
fn is_outdated(connection: &ConnectionInfo, listener: Option<&Listener>) -> bool {
    connection.tls.is_none() && listener.is_some_and(|listener| listener.protocol == ListenerProtocol::Https)
}

pub(super) fn refuse(reason: Reason) -> Box<Answer> {
    Box::new(Answer::of(reason))
}

/// Normalises what the request is matched and forwarded by, once, and finds out who the client is.
fn admit(x: &mut Exchange, listener: Option<&Listener>) -> Result<(), Box<Answer>> {
    if matches!(x.request.method, Method::Trace) || (x.request.method == Method::Connect && x.request.protocol.is_none()) {
        return Err(refuse(Reason::MethodNotAllowed));
    }
    // The connections of a listener that has been removed are still read as strictly as by default.
    let paths = listener.map_or_else(PathPolicy::default, |listener| listener.paths);
    if let Some(path) = path::normalise(&x.request.path, &paths).map_err(refuse)? {
        x.request.path = path;
    }
    if needs_certificate(x) {
        return Err(refuse(Reason::ClientCertificate));
    }
    if paths.drop_underscore_headers {
        x.request.fields.remove_underscored();
    }
    if let Some(listener) = listener {
        let (fields, peer) = (&x.request.fields, x.connection.peer);
        x.remote = match listener.forwarded.sanitizes && x.trusted {
            true => headers::nearest_address(fields, peer),
            false => headers::client_address(fields, peer, &listener.forwarded.trusted),
        };
    }
    x.original.method.clone_from(&x.request.method);
    x.original.path.clone_from(&x.request.path);
    x.original.query.clone_from(&x.request.query);
    Ok(())
}

/// Whether the host demands a client certificate for this path and none was shown.
fn needs_certificate(x: &Exchange) -> bool {
    let unless = x.connection.tls.as_ref().and_then(|tls| tls.client_required_unless.as_ref());
    unless.is_some_and(|paths| !paths.iter().any(|pattern| pattern.is_match(&x.request.path)))
}

/// Finds the route and notes what it captured.
fn route(x: &mut Exchange, plan: &mut Plan) {
    let view = plan.view().clone();
    let Some(found) = view.tables.routes.find(x) else { return };
    let number = found.number as u32;
    x.params = found.params;
    x.route = Some(number);
    plan.take_route(number);
}

/// Takes off what speaks to us alone, before the filters: what they set is theirs, and no client may name it away in `Connection`. A client that reads trailers
/// does so behind us, too: many servers send some only to those who say it.
pub(super) fn strip_request(fields: &mut Fields, tunnel: bool) {
    let takes_trailers = !tunnel && takes_trailers(fields);
    strip_hop_by_hop(fields, tunnel);
    if takes_trailers {
        fields.append_known(Name::Te, "trailers");
    }
}

/// Takes off what speaks to the next hop alone.
/// `Upgrade` of a tunnel stays; it goes out only with one.
fn strip_hop_by_hop(fields: &mut Fields, tunnel: bool) {
    let upgrade = if tunnel { fields.get_known(Name::Upgrade).map(<[u8]>::to_vec) } else { None };
    headers::strip_hop_by_hop(fields);
    if let Some(protocol) = upgrade {
        fields.append_known(Name::Upgrade, protocol);
    }
}

/// Whether the peer is a proxy of ours.
fn is_trusted(x: &Exchange, listener: Option<&Listener>) -> bool {
    listener.is_some_and(|listener| headers::is_trusted(x.connection.peer.ip(), &listener.forwarded.trusted))
}

/// Puts on what proxies put on.
fn prepare_fields(x: &mut Exchange, listener: Option<&Listener>) {
    let connection = x.connection.clone();
    let hop = headers::Forwarded {
        scheme: x.scheme(),
        peer: &connection.peer_text,
        client: (x.remote != connection.peer).then_some(x.remote),
        local_port: connection.local.port(),
        trusted: x.trusted,
        as_envoy: listener.is_some_and(|listener| listener.forwarded.sanitizes),
    };
    headers::set_forwarded(&mut x.request, &hop);
    if let Some(via) = listener.and_then(|listener| listener.server_header.via.as_deref()) {
        append_via(&mut x.request.fields, x.request.version.as_str(), via);
    }
}

/// Shows whole answers to the filters that want to see them, which may put others in their place.
pub(super) async fn after_proxy(finish: &mut Finish, mut served: Served) -> Served {
    let Finish { x, plan, .. } = finish;
    x.answer.reason = served.reason;
    match plan.after_proxy(x, &mut served.head, &mut served.body).await {
        Some(answer) => Served::from(answer),
        None => served,
    }
}

/// Runs the response filters over whatever was served or answered, and dresses the head.
pub(super) fn respond(mut finish: Box<Finish>, listener: Option<&Listener>, served: Served) -> Response {
    let Finish { x, plan, .. } = &mut *finish;
    let served = if is_no_tunnel(&x.request, &served) { Served::from(refuse(Reason::NotImplemented)) } else { served };
    let Served { mut head, mut body, upgrade, reason, doubt } = served;
    if reason == Reason::None {
        strip_hop_by_hop(&mut head.fields, upgrade.is_some());
    }
    x.answer.reason = reason;
    plan.response_head(x, &mut head);
    for edit in plan.response_body(x, &mut head) {
        head.fields.remove_known(Name::ContentLength);
        body = edit::edited(body, edit);
    }
    // What will be told in a field is not encoded.
    let is_told = x.calls_grpc && reason != Reason::None;
    if upgrade.is_none() && !is_told && plan.encodes() {
        body = plan.encode(x, &mut head, body);
    }
    if let Some(listener) = listener {
        dress(&mut head, x.request.version, listener, reason);
    }
    if upgrade.is_some() && x.request.version == Version::Http2 {
        // RFC 8441 section 5: over HTTP/2 a tunnel begins with 200, and the HTTP/1 handshake fields mean nothing.
        head.status = 200;
        head.fields.remove_known(Name::Upgrade);
        head.fields.remove("sec-websocket-accept");
    }
    x.record(&head);
    let mut response = Response { head, body, upgrade, doubt, reason, ..Response::default() };
    if is_told {
        response.tell_grpc();
    }
    if finish.worker().wants_sent_fields() {
        finish.x.put(SENT_FIELDS, response.head.fields.clone());
    }
    response.ending = Some(finish);
    response
}

/// Whether a WebSocket was asked for over HTTP/2 and answered with success, but not begun: there each success begins one (RFC 8441 section 5), so that what is
/// said instead of it would be taken for its bytes.
fn is_no_tunnel(request: &RequestHead, served: &Served) -> bool {
    let is_success = (200..300).contains(&served.head.status) && served.upgrade.is_none();
    is_success && request.version == Version::Http2 && headers::asks_for_websocket(request)
}

/// `Server`, `Via` and, where configured, the reason.
fn dress(head: &mut ResponseHead, version: Version, listener: &Listener, reason: Reason) {
    if let Some(server) = &listener.server_header.server {
        head.fields.set_known(Name::Server, &**server);
    }
    if let Some(via) = &listener.server_header.via {
        append_via(&mut head.fields, version.as_str(), via);
    }
    if listener.expose_reason && reason != Reason::None {
        head.fields.set("x-heddle-reason", reason.flag());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use heddle_node::clock;
    use heddle_xds::model::{EdgeLimits, ForwardedTrust, ProxyProtocol, ServerHeader};
    use tokio::sync::watch;

    use super::*;
    use crate::exchange::testing::get;
    use crate::exchange::{Sent, TlsInfo};
    use crate::pipeline::worker::tests::worker;
    use crate::tables::Tables;

    fn tables(protocol: ListenerProtocol) -> Arc<Tables> {
        let listener = Listener {
            name: "l".into(),
            address: "127.0.0.1:0".parse().unwrap(),
            protocol,
            proxy_protocol: ProxyProtocol::Off,
            forwarded: ForwardedTrust::default(),
            limits: EdgeLimits::default(),
            paths: PathPolicy::default(),
            server_header: ServerHeader::default(),
            expose_reason: false,
            nodes: Vec::new(),
            tcp: Vec::new(),
        };
        Arc::new(Tables { listeners: BTreeMap::from([("l".into(), Arc::new(listener))]), ..Tables::default() })
    }

    #[tokio::test]
    async fn who_came_in_clear_is_served_no_more_once_the_listener_ends_tls() {
        let (publisher, newest) = watch::channel(tables(ListenerProtocol::Http));
        let worker = worker();
        worker.follow(newest);
        let pipeline = Pipeline::new(worker);
        let ask = async |tls: Option<TlsInfo>| {
            let x = get("a", "/");
            let connection = ConnectionInfo { listener: "l".into(), tls, ..ConnectionInfo::clone(&x.connection) };
            let (started, interim) = (clock::now(), Interim::none());
            let call = Call { head: x.request, body: Body::Empty, wants_upgrade: false, interim, started, started_ms: 0 };
            let mut response = pipeline.call(&Rc::new(connection), call).await;
            response.ending.take().unwrap().ended(Sent::default());
            (response.head.status, response.close)
        };
        assert_eq!(ask(None).await, (404, false), "there is no route, but it was looked for");
        publisher.send_replace(tables(ListenerProtocol::Https));
        assert_eq!(ask(None).await, (421, true), "a connection from before");
        let tls = TlsInfo { server_name: None, version: "TLSv1.3", cipher: "", client: None, client_required_unless: None };
        assert_eq!(ask(Some(tls)).await, (404, false));
    }
}
