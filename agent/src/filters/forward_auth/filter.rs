//! The filter of `forward-auth`.

use std::sync::Arc;

use bytes::Bytes;

use super::super::asking::Complaints;
use super::super::check::fault_at;
use super::super::{BuildContext, Built, Filter, Flow, Phases, Resume, check};
use super::config::Config;
use super::cookies;
use super::question::Question;
use super::verdict::{COOKIES, Verdict};
use crate::exchange::{Answer, Exchange, Reason};
use crate::http::ResponseHead;
use crate::outbound::{CallError, Remote, Reply};

struct ForwardAuth {
    inner: Arc<Inner>,
}

/// What outlives the call of a phase, because an answer is waited for.
struct Inner {
    remote: Remote,
    question: Question,
    verdict: Verdict,
    max_body: u64,
    degrades: bool,
    unavailable: Answer,
    complaints: Complaints,
}

pub(super) fn build(value: &serde_json::Value, context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let remote = config.reach().remote(context.outbound)?;
    let verdict = Verdict::new(&config, &remote).map_err(|error| vec![fault_at("upstream_headers_regex", error)])?;
    Ok(Arc::new(ForwardAuth {
        inner: Arc::new(Inner {
            question: Question::new(&config),
            verdict,
            remote,
            max_body: config.max_req_body_size,
            degrades: config.allow_degradation,
            unavailable: Answer::empty(config.status_on_error, Reason::Plugin),
            complaints: Complaints::default(),
        }),
    }))
}

impl Filter for ForwardAuth {
    fn phases(&self) -> Phases {
        if self.inner.verdict.cookies.is_empty() { Phases::ACCESS } else { Phases::ACCESS.and(Phases::RESPONSE_HEAD) }
    }

    fn access(&self, x: &mut Exchange) -> Flow {
        let inner = self.inner.clone();
        if !inner.question.wants_body() {
            return inner.ask(x, Bytes::new());
        }
        Flow::Body { limit: inner.max_body, then: Box::new(move |x, body| inner.ask(x, body)) }
    }

    fn response_head(&self, x: &mut Exchange, head: &mut ResponseHead) {
        if let Some(lines) = x.slot_mut::<Vec<Vec<u8>>>(COOKIES) {
            cookies::add(&mut head.fields, &std::mem::take(lines));
        }
    }
}

impl Inner {
    fn ask(self: Arc<Inner>, x: &mut Exchange, body: Bytes) -> Flow {
        let call = self.question.ask(x, body);
        Flow::Wait(Box::pin(async move {
            let answered = self.remote.send(call).await;
            Box::new(move |x: &mut Exchange| self.decide(x, answered)) as Resume
        }))
    }

    fn decide(&self, x: &mut Exchange, answered: Result<Reply, CallError>) -> Flow {
        match answered {
            // Whoever stands before the service has refused, in words that a question gets with the media type of a call.
            Ok(reply) if reply.head.fails_call() => Flow::Answer(Box::new(self.unavailable.clone())),
            Ok(reply) if reply.head.status < 300 => {
                self.verdict.consent(x, &reply);
                Flow::Continue
            }
            Ok(reply) => Flow::Answer(Box::new(self.verdict.refusal(x, &reply))),
            Err(error) => {
                self.complaints.failed("forward-auth", &self.remote, &error);
                if !self.degrades {
                    return Flow::Answer(Box::new(self.unavailable.clone()));
                }
                // Nobody vouches for what the client says in the fields that the service would have set.
                self.verdict.consent(x, &Reply::default());
                Flow::Continue
            }
        }
    }
}
