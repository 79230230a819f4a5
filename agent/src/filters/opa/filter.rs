//! The filter of `opa`.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::super::asking::{Complaints, Names, stays};
use super::super::{BuildContext, Built, Filter, Flow, Phases, Resume, check};
use super::config::Config;
use super::decision::{self, Decision};
use super::input::Parts;
use crate::exchange::{Answer, Exchange, Reason};
use crate::http::{FieldName, Fields, Method, Name};
use crate::outbound::{Call, CallError, Remote, Reply};

struct Opa {
    inner: Arc<Inner>,
}

/// What outlives the call of a phase, because an answer is waited for.
struct Inner {
    remote: Remote,
    parts: Parts,
    upstream: Vec<FieldName>,
    degrades: bool,
    unavailable: Answer,
    unreadable: Answer,
    complaints: Complaints,
}

pub(super) fn build(value: &Value, context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let remote = config.reach(&config.url()).remote(context.outbound)?;
    Ok(Arc::new(Opa {
        inner: Arc::new(Inner {
            remote,
            parts: Parts::of(&config),
            upstream: Names::new(config.send_headers_upstream.as_deref().unwrap_or_default()).listed,
            degrades: config.allow_degradation,
            unavailable: Answer::empty(config.status_on_error, Reason::Plugin),
            unreadable: Answer::empty(503, Reason::PluginFailed),
            complaints: Complaints::default(),
        }),
    }))
}

impl Filter for Opa {
    fn phases(&self) -> Phases {
        Phases::ACCESS
    }

    fn access(&self, x: &mut Exchange) -> Flow {
        let mut fields = Fields::new();
        fields.append_known(Name::ContentType, "application/json");
        let body = Bytes::from(self.inner.parts.document(x).to_string());
        let call = Call { method: Method::Post, fields, body, ..Call::default() };
        let inner = self.inner.clone();
        Flow::Wait(Box::pin(async move {
            let answered = inner.remote.send(call).await;
            Box::new(move |x: &mut Exchange| inner.decide(x, answered)) as Resume
        }))
    }
}

impl Inner {
    fn decide(&self, x: &mut Exchange, answered: Result<Reply, CallError>) -> Flow {
        let reply = match answered {
            Ok(reply) if reply.head.status < 500 => reply,
            Ok(reply) => {
                self.complaints.say("opa", &self.remote, &format!("status {}", reply.head.status));
                return self.without_answer(x);
            }
            Err(error) => {
                self.complaints.failed("opa", &self.remote, &error);
                return self.without_answer(x);
            }
        };
        match decision::read(&reply.body) {
            Ok(decision) if decision.allow => {
                self.allow(x, &decision);
                Flow::Continue
            }
            Ok(decision) => Flow::Answer(Box::new(refusal(decision))),
            Err(why) => {
                self.complaints.say("opa", &self.remote, why);
                Flow::Answer(Box::new(self.unreadable.clone()))
            }
        }
    }

    fn without_answer(&self, x: &mut Exchange) -> Flow {
        if !self.degrades {
            return Flow::Answer(Box::new(self.unavailable.clone()));
        }
        // Nobody vouches for what the client says in the fields that the policy would have set.
        for name in &self.upstream {
            x.request.fields.remove_named(name);
        }
        Flow::Continue
    }

    /// The policy's fields replace those of the client, and what it does not say is not left to the client either.
    fn allow(&self, x: &mut Exchange, decision: &Decision) {
        for name in self.upstream.iter().filter(|name| !stays(name.id())) {
            x.request.fields.remove_named(name);
            let values = decision.headers.iter().filter(|(said, _)| said.eq_ignore_ascii_case(name.as_str()));
            values.for_each(|(_, value)| x.request.fields.append_named(name, value));
        }
    }
}

fn refusal(decision: Decision) -> Answer {
    let mut answer = Answer::empty(decision.status, Reason::Plugin);
    decision.set_headers(&mut answer.head.fields);
    let fields = &mut answer.head.fields;
    fields.retain(|field| !stays(field.id));
    if !decision.reason.is_empty() && !fields.contains_known(Name::ContentType) {
        fields.append_known(Name::ContentType, if decision.is_json { "application/json" } else { "text/plain; charset=utf-8" });
    }
    answer.body = decision.reason;
    answer
}
