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
use super::config::Config;
use super::names::Matching;
use super::verdict::{FOR_CLIENT, Verdict};
use crate::exchange::{Exchange, Inner as Errand, Reason};
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
    verdict: Verdict,
    complaints: Complaints,
}

pub(super) fn build(value: &Value, _: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let names = |field: &str, list: &[String]| Matching::new(list).map_err(|(_, error)| vec![fault_at(field, error)]);
    let added =
        |(name, value): (&String, &Value)| (FieldName::new(name.clone()), FieldValue::new(value.as_str().unwrap_or_default()));
    let upstream = match &config.upstream_id {
        Some(Value::String(name)) => name.as_str().into(),
        Some(other) => other.to_string().into(),
        None => {
            let why = "an upstream written in place must be named by the control plane".to_owned();
            return Err(vec![fault_at("upstream", why)]);
        }
    };
    Ok(Arc::new(ExtAuthz(Arc::new(Inner {
        upstream,
        timeout: Duration::from_millis(config.timeout),
        told: names("allowed_headers", &config.allowed_headers)?,
        untold: names("disallowed_headers", &config.disallowed_headers)?,
        added: config.headers_to_add.iter().map(added).collect(),
        body: config.with_request_body.as_ref().map(|body| body.max_request_bytes),
        verdict: Verdict::new(&config)?,
        prefix: config.path_prefix,
        complaints: Complaints::default(),
    }))))
}

impl Filter for ExtAuthz {
    fn phases(&self) -> Phases {
        if self.0.verdict.client_on_success.is_empty() { Phases::REWRITE } else { Phases::REWRITE.and(Phases::RESPONSE_HEAD) }
    }

    fn rewrite(&self, x: &mut Exchange) -> Flow {
        let inner = self.0.clone();
        match inner.body {
            None => inner.ask(x, Bytes::new()),
            Some(limit) => Flow::Body { limit, then: Box::new(move |x, body| inner.ask(x, body)) },
        }
    }

    fn response_head(&self, x: &mut Exchange, head: &mut ResponseHead) {
        if let Some(fields) = x.slot_mut::<Fields>(FOR_CLIENT) {
            head.fields.append_all(&std::mem::take(fields));
        }
    }
}

impl Inner {
    fn ask(self: Arc<Inner>, x: &mut Exchange, body: Bytes) -> Flow {
        let head = self.question(x, &body);
        let errand = Errand { head, body, limit: MAX_ANSWER, upstream: Some(self.upstream.clone()) };
        let answer = x.directory.dispatch(Rc::clone(&x.connection), errand);
        Flow::Wait(Box::pin(async move {
            let answered = tokio::time::timeout(self.timeout, answer).await.unwrap_or(Err(Reason::UpstreamTimeout));
            Box::new(move |x: &mut Exchange| {
                let refused = match answered {
                    Ok((head, body)) => self.verdict.decide(x, &head, body),
                    Err(reason) => {
                        if self.complaints.may_speak() {
                            let (upstream, reason) = (&*self.upstream, reason.flag());
                            tracing::warn!(plugin = "ext-authz", upstream, reason, "the upstream that decides gives no answer");
                        }
                        self.verdict.unanswered(x)
                    }
                };
                refused.map_or(Flow::Continue, |answer| Flow::Answer(Box::new(answer)))
            }) as Resume
        }))
    }

    /// The request that is asked about, with the fields that may be told.
    fn question(&self, x: &Exchange, body: &Bytes) -> Box<RequestHead> {
        let from = &x.request;
        let mut fields = Fields::new();
        for field in from.fields.iter().filter(|field| !stays(field.id) && !of_the_client(field.id)) {
            let told = field.id == Name::Authorization || self.told.has(field.name);
            if told && !self.untold.has(field.name) {
                fields.push(field.id, field.name, field.value);
            }
        }
        fields.set_known(Name::XForwardedFor, x.remote.ip().to_canonical().to_string());
        fields.set_known(Name::XForwardedProto, x.scheme());
        if !body.is_empty() {
            fields.set_named(&PARTIAL, "false");
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

/// Whether a field says who the client is. At this point it is what the client itself says, and whoever decides would believe it.
fn of_the_client(id: Name) -> bool {
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
