//! The filter of `ext-authz`.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use super::super::asking::{Complaints, stays};
use super::super::check::fault_at;
use super::super::fields::FieldValue;
use super::super::{BuildContext, Built, Filter, Flow, Phases, Resume, check};
use super::config::{Config, Protocol};
use super::grpc::{self, Telling, Told};
use super::names::Matching;
use super::verdict::{FOR_CLIENT, Verdict};
use super::wire::{self, Decision, Denied};
use crate::exchange::{Answer, Exchange, Inner as Errand, Reason};
use crate::http::fields::FieldRef;
use crate::http::{FieldName, Fields, Method, Name, RequestHead, ResponseHead};

/// Most bytes that are read of an answer; a longer body is left out.
const MAX_ANSWER: u64 = 1 << 20;
/// Whether the body that it is told is only the beginning.
const PARTIAL: FieldName = FieldName::of("x-envoy-auth-partial-body");

struct ExtAuthz(Arc<Inner>);

/// What outlives the call of a phase, because an answer is waited for.
struct Inner {
    upstream: Arc<str>,
    prefix: String,
    timeout: Duration,
    told: Matching,
    untold: Matching,
    added: Vec<(FieldName, FieldValue)>,
    /// Most bytes of the body, where it is told that.
    body: Option<u64>,
    /// It is told the beginning of longer ones.
    partial: bool,
    /// It is asked by gRPC.
    telling: Option<Telling>,
    verdict: Verdict,
    complaints: Complaints,
}

pub(super) fn build(value: &Value, _: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let names = |field: &str, list: &[String]| Matching::new(list).map_err(|(_, error)| vec![fault_at(field, error)]);
    let added =
        |(name, value): (&String, &Value)| (FieldName::new(name.clone()), FieldValue::new(value.as_str().unwrap_or_default()));
    let upstream: Arc<str> = match &config.upstream_id {
        Some(Value::String(name)) => name.as_str().into(),
        Some(other) => other.to_string().into(),
        None => {
            let why = "an upstream written in place must be named by the control plane".to_owned();
            return Err(vec![fault_at("upstream", why)]);
        }
    };
    let telling = (config.protocol == Protocol::Grpc).then(|| Telling {
        authority: config.authority.clone().unwrap_or_else(|| grpc::authority_of(&upstream)),
        context: config.context_extensions.clone(),
        certificate: config.include_peer_certificate,
        server_name: config.include_tls_session,
        bytes: config.with_request_body.as_ref().is_some_and(|body| body.pack_as_bytes),
    });
    Ok(Arc::new(ExtAuthz(Arc::new(Inner {
        upstream,
        telling,
        timeout: Duration::from_millis(config.timeout),
        told: names("allowed_headers", &config.allowed_headers)?,
        untold: names("disallowed_headers", &config.disallowed_headers)?,
        added: config.headers_to_add.iter().map(added).collect(),
        body: config.with_request_body.as_ref().map(|body| body.max_request_bytes),
        partial: config.with_request_body.as_ref().is_some_and(|body| body.allow_partial_message),
        verdict: Verdict::new(&config)?,
        prefix: config.path_prefix,
        complaints: Complaints::default(),
    }))))
}

impl Filter for ExtAuthz {
    fn phases(&self) -> Phases {
        let silent = self.0.telling.is_none() && self.0.verdict.client_on_success.is_empty();
        if silent { Phases::REWRITE } else { Phases::REWRITE.and(Phases::RESPONSE_HEAD) }
    }

    fn rewrite(&self, x: &mut Exchange) -> Flow {
        let inner = self.0.clone();
        match inner.body {
            None => inner.ask(x, None),
            Some(limit) if inner.partial => inner.read(x, limit),
            Some(limit) => Flow::Body { limit, then: Box::new(move |x, body| inner.ask(x, Some((body, false)))) },
        }
    }

    fn response_head(&self, x: &mut Exchange, head: &mut ResponseHead) {
        grpc::tell_client(x, head);
        if let Some(fields) = x.slot_mut::<Fields>(FOR_CLIENT) {
            head.fields.append_all(&std::mem::take(fields));
        }
    }
}

impl Inner {
    /// Asks once the beginning of the body has come.
    fn read(self: Arc<Inner>, x: &mut Exchange, limit: u64) -> Flow {
        let body = std::mem::take(&mut x.body);
        Flow::Wait(Box::pin(async move {
            let read = body.beginning(limit).await;
            Box::new(move |x: &mut Exchange| match read {
                Ok(read) => {
                    x.body = read.body;
                    self.ask(x, Some((read.told, read.partial)))
                }
                Err(error) => Flow::Answer(Box::new(Answer::of(Reason::of_request_body(&error)))),
            }) as Resume
        }))
    }

    /// Asks, with this body, which may be the beginning alone.
    fn ask(self: Arc<Inner>, x: &mut Exchange, body: Option<(Bytes, bool)>) -> Flow {
        let errand = match &self.telling {
            Some(telling) => self.call(x, telling, body.as_ref()),
            None => {
                let (body, partial) = body.unwrap_or_default();
                Errand { head: self.question(x, &body, partial), body, limit: MAX_ANSWER, upstream: Some(self.upstream.clone()) }
            }
        };
        let answer = x.directory.dispatch(Rc::clone(&x.connection), errand);
        Flow::Wait(Box::pin(async move {
            let answered = tokio::time::timeout(self.timeout, answer).await.unwrap_or(Err(Reason::UpstreamTimeout));
            Box::new(move |x: &mut Exchange| {
                let refused = match answered {
                    Ok((head, body)) if self.telling.is_some() => self.decided(x, &head, &body),
                    Ok((head, body)) => self.verdict.decide(x, &head, body),
                    Err(reason) => self.unanswered(x, reason.flag()),
                };
                refused.map_or(Flow::Continue, |answer| Flow::Answer(Box::new(answer)))
            }) as Resume
        }))
    }

    /// The call that asks about a request.
    fn call(&self, x: &Exchange, telling: &Telling, body: Option<&(Bytes, bool)>) -> Errand {
        let mut head = telling.head(self.timeout.as_millis());
        for (name, value) in &self.added {
            head.fields.set_named(name, value.get(x, &[]));
        }
        let body = telling.question(x, &Told { allowed: &self.told, refused: &self.untold }, body);
        Errand { head: Box::new(head), body, limit: MAX_ANSWER, upstream: Some(self.upstream.clone()) }
    }

    /// What the answer to a call says: only one whose status of gRPC is 0 says something.
    fn decided(&self, x: &mut Exchange, head: &ResponseHead, body: &[u8]) -> Option<Answer> {
        let status = head.fields.get_known(Name::GrpcStatus).unwrap_or(b"none");
        if head.status != 200 || status != b"0" {
            return self.unanswered(x, &format!("HTTP {}, grpc-status {}", head.status, String::from_utf8_lossy(status)));
        }
        match wire::decision(body) {
            Ok(Decision::Allowed(said)) => {
                grpc::consent(x, said);
                None
            }
            Ok(Decision::Denied(said)) => Some(grpc::refusal(said)),
            Ok(Decision::Failed(said)) => {
                let refused = self.verdict.unanswered(x)?;
                let status = said.status.or(Some(refused.head.status));
                Some(grpc::refusal(Denied { status, ..said }))
            }
            Err(error) => self.unanswered(x, &error),
        }
    }

    fn unanswered(&self, x: &mut Exchange, reason: &str) -> Option<Answer> {
        if self.complaints.may_speak() {
            let upstream = &*self.upstream;
            tracing::warn!(plugin = "ext-authz", upstream, reason, "the upstream that decides gives no answer");
        }
        self.verdict.unanswered(x)
    }

    /// The request that is asked about, with the fields that may be told.
    fn question(&self, x: &Exchange, body: &Bytes, partial: bool) -> Box<RequestHead> {
        let from = &x.request;
        let mut fields = Fields::new();
        for field in from.fields.iter().filter(|field| !stays(field.id) && !of_the_client(field.id)) {
            let told = field.id == Name::Authorization || self.told.has(field.name);
            if told && !self.untold.has(field.name) {
                tell(&mut fields, &field);
            }
        }
        fields.set_known(Name::XForwardedFor, x.remote.ip().to_canonical().to_string());
        fields.set_known(Name::XForwardedProto, x.scheme());
        if !body.is_empty() {
            fields.set_named(&PARTIAL, if partial { "true" } else { "false" });
        }
        for (name, value) in &self.added {
            fields.set_named(name, value.get(x, &[]));
        }
        let path = if self.prefix.is_empty() { from.path.clone() } else { [&self.prefix, from.path.as_str()].concat() };
        // A WebSocket over HTTP/2 is a GET over HTTP/1.1.
        let method = if from.method == Method::Connect { Method::Get } else { from.method.clone() };
        Box::new(RequestHead {
            method,
            asks_tls: from.asks_tls,
            authority: from.authority.clone(),
            path,
            query: from.query.clone(),
            fields,
            ..RequestHead::default()
        })
    }
}

/// Puts a line of a field behind those that are told, on one line: who reads the first of several alone would let in what the upstream reads in another.
fn tell(fields: &mut Fields, line: &FieldRef<'_>) {
    let there = fields.iter().find(|field| field.name.eq_ignore_ascii_case(line.name));
    let joined = there.map(|field| [field.value, line.value].join(separator(line.id).as_bytes()));
    match joined {
        Some(all) => fields.set(line.name, all),
        None => fields.push(line.id, line.name, line.value),
    }
}

/// What stands between the lines of a field that are told as one; cookies are put together as RFC 9113 section 8.2.3 has it.
pub(super) fn separator(id: Name) -> &'static str {
    if id == Name::Cookie { "; " } else { "," }
}

/// Whether a field says who the client is. At this point it is what the client itself says, and whoever decides would believe it.
pub(super) fn of_the_client(id: Name) -> bool {
    matches!(
        id,
        Name::XForwardedFor
            | Name::XForwardedProto
            | Name::XForwardedHost
            | Name::XForwardedPort
            | Name::XForwardedClientCert
            | Name::XRealIp
            | Name::Forwarded
    )
}
