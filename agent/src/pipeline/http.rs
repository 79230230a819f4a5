//! The life of an HTTP request, top to bottom: admitted, routed, filtered, forwarded, answered, finished.

use std::rc::Rc;

use heddle_xds::model::Listener;

use super::finish::{Finish, append_via};
use super::plan::Plan;
use super::worker::Worker;
use super::{edit, headers};
use crate::exchange::variable::SENT_FIELDS;
use crate::exchange::{Answer, Call, ConnectionInfo, Exchange, Interim, OriginalTarget, Reason, Response, Service, Tunnel, path};
use crate::http::{Body, Method, Name, RequestHead, ResponseHead, Version};

/// Answers requests on one worker.
pub struct Pipeline {
    pub(super) worker: Rc<Worker>,
}

/// What the middle of the pipeline gives back.
pub(super) struct Served {
    pub head: ResponseHead,
    pub body: Body,
    pub upgrade: Option<Box<dyn Tunnel>>,
}

impl Pipeline {
    /// A pipeline on this worker.
    pub fn new(worker: Rc<Worker>) -> Pipeline {
        Pipeline { worker }
    }
}

impl Service for Pipeline {
    async fn call(&self, connection: &Rc<ConnectionInfo>, call: Call) -> Response {
        let view = self.worker.view();
        let listener = view.tables.listeners.get(&connection.listener).cloned();
        let x = Exchange::new(connection.clone(), call.head, call.started, call.started_ms, view.clone(), self.worker.dice());
        let mut finish = Finish::begin(x, Plan::new(view, self.worker.shared().clone()), self.worker.clone());
        let served = self.serve(&mut finish, listener.as_deref(), call.body, call.wants_upgrade, &call.interim).await;
        respond(finish, listener.as_deref(), served)
    }

    fn refused(&self, connection: &Rc<ConnectionInfo>, head: &RequestHead, reason: Reason) {
        let view = self.worker.view();
        let now = heddle_node::clock::now();
        let mut x =
            Exchange::new(connection.clone(), head.clone(), now, heddle_node::clock::unix_ms(), view.clone(), self.worker.dice());
        x.original = OriginalTarget { method: head.method.clone(), path: head.path.clone(), query: head.query.clone() };
        x.answer.reason = reason;
        x.answer.status = reason.status();
        let finish = Finish::begin(x, Plan::new(view, self.worker.shared().clone()), self.worker.clone());
        crate::exchange::Ending::ended(finish, crate::exchange::Sent::default());
    }
}

impl Pipeline {
    async fn serve(
        &self,
        finish: &mut Finish,
        listener: Option<&Listener>,
        body: Body,
        wants_upgrade: bool,
        interim: &Interim,
    ) -> Result<Served, Box<Answer>> {
        let Finish { x, plan, .. } = finish;
        if let Some(tracer) = self.worker.tracer() {
            tracer.begin(x);
        }
        admit(x, listener)?;
        route(x, plan);
        if let Some(answer) = plan.rewrite(x).await {
            return Err(answer);
        }
        if let Some(answer) = plan.access(x).await {
            return Err(answer);
        }
        if plan.action().is_none() {
            return Err(refuse(Reason::NoRoute));
        }
        let body = plan.request_body(x).into_iter().fold(body, edit::edited);
        let upgrade = wants_upgrade
            && plan.action().is_some_and(|action| action.enable_websocket)
            && headers::asks_for_websocket(&x.request);
        prepare_fields(x, listener, upgrade);
        self.forward(x, plan, body, upgrade, interim).await
    }
}

fn refuse(reason: Reason) -> Box<Answer> {
    Box::new(Answer::of(reason))
}

/// Normalises what the request is matched and forwarded by, once, and finds out who the client is.
fn admit(x: &mut Exchange, listener: Option<&Listener>) -> Result<(), Box<Answer>> {
    if matches!(x.request.method, Method::Trace) || (x.request.method == Method::Connect && x.request.protocol.is_none()) {
        return Err(refuse(Reason::MethodNotAllowed));
    }
    if let Some(listener) = listener {
        if let Some(path) = path::normalise(&x.request.path, &listener.paths).map_err(refuse)? {
            x.request.path = path;
        }
        if listener.paths.drop_underscore_headers {
            x.request.fields.retain(|field| field.id != Name::Other || memchr::memchr(b'_', field.name).is_none());
        }
        x.remote = headers::client_address(&x.request.fields, x.connection.peer, &listener.forwarded.trusted);
    }
    x.original.method.clone_from(&x.request.method);
    x.original.path.clone_from(&x.request.path);
    x.original.query.clone_from(&x.request.query);
    Ok(())
}

/// Finds the route and notes what it captured.
fn route(x: &mut Exchange, plan: &mut Plan) {
    let view = plan.view().clone();
    let Some(found) = view.tables.routes.find(x) else { return };
    x.route = Some(found.route.info.clone());
    let params = found.params;
    plan.take_route(found.route.clone());
    x.params = params;
}

/// Takes off what speaks to us alone and puts on what proxies put on.
fn prepare_fields(x: &mut Exchange, listener: Option<&Listener>, upgrade: bool) {
    let websocket = if upgrade { x.request.fields.get_known(Name::Upgrade).map(<[u8]>::to_vec) } else { None };
    headers::strip_hop_by_hop(&mut x.request.fields);
    if let Some(protocol) = websocket {
        x.request.fields.append_known(Name::Upgrade, protocol);
    }
    let trusted = listener.is_some_and(|listener| headers::is_trusted(x.connection.peer.ip(), &listener.forwarded.trusted));
    let (scheme, peer, client, port) = (x.scheme(), x.connection.peer, x.remote, x.connection.local.port());
    headers::set_forwarded(&mut x.request, scheme, peer, client, port, trusted);
    if let Some(via) = listener.and_then(|listener| listener.server_header.via.as_deref()) {
        append_via(&mut x.request.fields, x.request.version.as_str(), via);
    }
}

/// Runs the response filters over whatever was served or answered, and dresses the head.
fn respond(mut finish: Box<Finish>, listener: Option<&Listener>, served: Result<Served, Box<Answer>>) -> Response {
    let Finish { x, plan, .. } = &mut *finish;
    let (mut head, mut body, upgrade, reason) = match served {
        Ok(served) => {
            let mut head = served.head;
            strip_response(&mut head, served.upgrade.is_some());
            (head, served.body, served.upgrade, Reason::None)
        }
        Err(answer) => (answer.head, Body::from(answer.body), None, answer.reason),
    };
    x.answer.reason = reason;
    plan.response_head(x, &mut head);
    for edit in plan.response_body(x, &mut head) {
        head.fields.remove_known(Name::ContentLength);
        body = edit::edited(body, edit);
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
    if finish.worker().wants_sent_fields() {
        finish.x.put(SENT_FIELDS, head.fields.clone());
    }
    Response { head, body, upgrade, reason, close: false, ending: Some(finish) }
}

fn strip_response(head: &mut ResponseHead, upgraded: bool) {
    let upgrade = if upgraded { head.fields.get_known(Name::Upgrade).map(<[u8]>::to_vec) } else { None };
    headers::strip_hop_by_hop(&mut head.fields);
    if let Some(protocol) = upgrade {
        head.fields.append_known(Name::Upgrade, protocol);
    }
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
