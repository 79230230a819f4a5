//! From the mesh to the application beside this node: who calls is judged, what the application should know of the caller is put on, everything else goes
//! through as it is.

use std::rc::Rc;
use std::sync::Arc;

use heddle_xds::model::{MeshProtocol, PathPolicy};

use super::super::finish::Finish;
use super::super::headers;
use super::super::http::{Pipeline, Served, refuse, strip_request};
use super::super::view::INBOUND;
use super::super::{edit, plan::Plan};
use super::Asked;
use super::judge::{Judge, Kept, WatchedTunnel, watched};
use super::version::Asking;
use crate::authorize::{Called, Caller, Refusal, RequestFacts, Verdict};
use crate::exchange::variable::POLICY;
use crate::exchange::{Answer, Door, Exchange, Reason, Tunnel, path};
use crate::http::{Body, CASE_FIELD, Method, Name, PORT_FIELD, note_case, restore_case};
use crate::tables::{Application, Port};

/// How paths are read: as little is changed as policies that name paths can bear, since the application has its own mind about them.
const PATHS: PathPolicy = PathPolicy { reject_encoded_slashes: false, merge_slashes: false, drop_underscore_headers: false };

impl Pipeline {
    /// Answers a request to the application.
    pub(super) async fn inbound(&self, finish: &mut Finish, asked: Asked<'_>) -> Result<Served, Box<Answer>> {
        let Finish { x, plan, .. } = finish;
        let connection = x.connection.clone();
        let Door::Inbound { peer, port, forwarded } = &connection.door else { return Err(refuse(Reason::Internal)) };
        let view = plan.view().clone();
        let Some(application) = view.tables.application.as_deref() else { return Err(refuse(Reason::NoUpstream)) };
        admit(x)?;
        x.route = Some(INBOUND);
        plan.take_route(INBOUND);
        let named = named_port(x, peer.is_some());
        // Whoever names none, or for a tunnel none that is one of its own, means the port by which it came.
        let ports = &application.ports;
        let further = named.and_then(|port| ports.further(port)).or_else(|| ports.further(*port));
        let at = further.or_else(|| ports.at(*port));
        let port = at.map_or(*port, |at| at.place.port);
        if x.request.method == Method::Connect && x.request.protocol.is_none() {
            // Within a tunnel nobody would see what is asked of an application that speaks HTTP, or who asks.
            if at.is_some_and(|at| reads(at, application)) {
                return Err(refuse(Reason::MethodNotAllowed));
            }
            authorize(x, plan, peer.as_deref(), port, None)?;
            return self.tunnel_to(x, (application, &view.tables.authorization), port, asked.far).await;
        }
        let websocket = asked.wants_upgrade && headers::asks_for_websocket(&x.request);
        if x.request.method == Method::Connect && !websocket {
            return Err(refuse(Reason::NotImplemented));
        }
        // The handshake of a WebSocket is a GET, however it comes (RFC 8441 section 5).
        let method = if websocket { Method::Get } else { x.request.method.clone() };
        authorize(x, plan, peer.as_deref(), port, Some(&method))?;
        let is_here = named.is_none_or(|named| named == port || named == ports.first.place.port);
        // Opaque bytes are for tunnels.
        let takes_requests = |at: &&Port| further.is_none() || at.place.protocol != MeshProtocol::Tcp;
        let Some(at) = at.filter(takes_requests).filter(|_| is_here) else { return Err(refuse(Reason::Misdirected)) };
        // Only a member of the mesh takes the field off again that would tell it.
        let cased = restore_case(&mut x.request.fields) && peer.is_some();
        self.tell_of_caller(x, peer.as_deref(), forwarded.as_ref());
        strip_request(&mut x.request.fields, websocket);
        if let Some(answer) = plan.rewrite(x).await {
            return Err(answer);
        }
        if let Some(answer) = plan.access(x).await {
            return Err(answer);
        }
        let asking = Asking { plan, port: at, is_member: peer.is_some(), websocket, interim: asked.interim };
        let mut served = self.to_application(x, &asking, &method).await?;
        if cased {
            note_case(&mut served.head.fields);
        } else {
            served.head.fields.remove(CASE_FIELD);
        }
        Ok(served)
    }

    /// What the application is told of the caller; nobody else can tell it, and who tries stands in the audit.
    fn tell_of_caller(&self, x: &mut Exchange, peer: Option<&str>, forwarded: Option<&Arc<str>>) {
        if headers::remove_client_cert(&mut x.request.fields) {
            self.worker.note_spoofed(&x.connection, peer);
        }
        if let Some(forwarded) = forwarded {
            x.request.fields.set_own(Name::XForwardedClientCert, forwarded.as_bytes());
        }
    }

    /// Sends a request to the application, and lets what goes on for long be judged again when the policies change.
    async fn to_application(&self, x: &mut Exchange, asking: &Asking<'_>, method: &Method) -> Result<Served, Box<Answer>> {
        let Asking { plan, websocket, .. } = *asking;
        let port = asking.port.place.port;
        let (connection, view) = (x.connection.clone(), plan.view().clone());
        let body = plan.request_body(x).into_iter().fold(std::mem::take(&mut x.body), edit::edited);
        let mut kept = (websocket || matches!(body, Body::Stream(_))).then(|| Kept::of(x, method.as_str()));
        let policies = &view.tables.authorization;
        let judge = |kept: &Rc<Kept>| Judge::new(&self.worker, (&connection, port), Some(kept.clone()), policies);
        let body = match &kept {
            Some(kept) => watched(body, || judge(kept)),
            None => body,
        };
        let mut served = self.ask(x, asking, body).await?;
        if served.upgrade.is_some() || matches!(served.body, Body::Stream(_)) || self.worker.other_policies(policies).is_some() {
            let kept = kept.get_or_insert_with(|| Kept::of(x, method.as_str()));
            // The answer may have been long in coming.
            if judge(kept).refuses() {
                return Err(refuse(Reason::Policy));
            }
            served.body = watched(served.body, || judge(kept));
            served.upgrade = served.upgrade.map(|far| Box::new(WatchedTunnel { far, judge: judge(kept) }) as Box<dyn Tunnel>);
        }
        Ok(served)
    }
}

/// The port that a member of the mesh names: in a field of ours, or where it asks for a tunnel. Nobody else names one, and the application sees none.
fn named_port(x: &mut Exchange, is_member: bool) -> Option<u16> {
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.parse().ok();
    let said = x.request.fields.get(PORT_FIELD).map(text);
    if said.is_some() {
        x.request.fields.remove(PORT_FIELD);
    }
    let opaque = x.request.method == Method::Connect && x.request.protocol.is_none();
    let named =
        if opaque { x.request.authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok()) } else { said.flatten() };
    named.filter(|_| is_member)
}

/// Normalises the path once, so that policies see what the application will see.
pub(super) fn admit(x: &mut Exchange) -> Result<(), Box<Answer>> {
    if !x.request.path.is_empty()
        && let Some(path) = path::normalise(&x.request.path, &PATHS).map_err(refuse)?
    {
        x.request.path = path;
    }
    x.original.method.clone_from(&x.request.method);
    x.original.path.clone_from(&x.request.path);
    x.original.query.clone_from(&x.request.query);
    Ok(())
}

fn speaks_http(protocol: MeshProtocol) -> bool {
    matches!(protocol, MeshProtocol::Http | MeshProtocol::Http2 | MeshProtocol::Grpc)
}

/// Whether what comes for this port is read as requests, and nothing as bytes: where HTTP is declared or was heard, or plugins run that bytes would get past.
fn reads(at: &Port, application: &Application) -> bool {
    let heard = || at.heard().is_some_and(|heard| heard.is_read());
    let runs_plugins = || !application.route.target.chain.is_empty();
    speaks_http(at.place.protocol) || (at.place.protocol == MeshProtocol::Auto && (heard() || runs_plugins()))
}

/// The path as an application reads it that decodes slashes and takes several for one; `None` where that changes nothing.
pub(super) fn plainer(path: &str) -> Option<String> {
    let bytes = path.as_bytes();
    let encoded = bytes.windows(3).any(|three| matches!(three, b"%2f" | b"%2F" | b"%5c" | b"%5C"));
    if !encoded && !path.contains("//") && !path.contains('\\') {
        return None;
    }
    let slashes = path.replace("%2f", "/").replace("%2F", "/").replace("%5c", "/").replace("%5C", "/").replace('\\', "/");
    let mut kept: Vec<&str> = Vec::new();
    for segment in slashes.split('/').filter(|segment| !segment.is_empty() && *segment != ".") {
        if segment == ".." {
            kept.pop();
        } else {
            kept.push(segment);
        }
    }
    let end = if slashes.ends_with('/') && !kept.is_empty() { "/" } else { "" };
    Some(format!("/{}{end}", kept.join("/")))
}

/// Asks the policies of the service; `method` is `None` for bytes that nobody looks into.
fn authorize(x: &mut Exchange, plan: &Plan, peer: Option<&str>, port: u16, method: Option<&Method>) -> Result<(), Box<Answer>> {
    let policies = &plan.view().tables.authorization;
    if policies.is_empty() {
        return Ok(());
    }
    let request = method.map(|method| RequestFacts {
        method: method.as_str(),
        path: &x.request.path,
        host: &x.request.authority,
        fields: &x.request.fields,
    });
    let caller = Caller { peer, address: x.connection.transport_peer.ip() };
    let judge = |request| policies.judge(&caller, &Called { port, request });
    let mut verdict = judge(request);
    // The application may read more into a path than stands there: it must be allowed in either sense.
    if let (Verdict::Allowed { .. }, Some(request)) = (&verdict, request)
        && let Some(path) = plainer(request.path)
    {
        verdict = judge(Some(RequestFacts { path: &path, ..request }));
    }
    match verdict {
        Verdict::Allowed { would_refuse: None } => Ok(()),
        Verdict::Allowed { would_refuse: Some(refusal) } => {
            x.put(POLICY, format!("dry run: {}", named(&refusal)));
            Ok(())
        }
        Verdict::Refused(refusal) => {
            x.put(POLICY, named(&refusal));
            Err(refuse(Reason::Policy))
        }
    }
}

/// Policy and rule, as logs show them.
fn named(refusal: &Refusal) -> String {
    match refusal.rule {
        Some(rule) => format!("{}[{rule}]", refusal.policy),
        None => refusal.policy.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::plainer;

    #[test]
    fn policies_see_paths_as_the_laxest_application_does() {
        let plain = [
            ("//admin", "/admin"),
            ("/a//b/", "/a/b/"),
            ("/x%2F..%2Fadmin", "/admin"),
            ("/x%2f%2E%2E", "/x/%2E%2E"),
            ("/a\\..\\admin", "/admin"),
            ("/%5cadmin", "/admin"),
        ];
        for (path, seen) in plain {
            assert_eq!(plainer(path).as_deref(), Some(seen));
        }
        assert_eq!(plainer("/admin/keys"), None);
    }
}
