//! The filter of `buffering`.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::{BuildContext, Built, Filter, Flow, Phases, Resume, check};
use super::config::Config;
use crate::exchange::{Answer, Exchange, Reason};
use crate::http::{Body, BodyError, ResponseHead};

struct Buffering {
    request: Option<u64>,
    response: Option<u64>,
}

pub(super) fn build(value: &Value, _context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    Ok(Arc::new(Buffering {
        request: config.request.then_some(config.max_request_body_bytes),
        response: config.response.then_some(config.max_response_body_bytes),
    }))
}

impl Filter for Buffering {
    fn phases(&self) -> Phases {
        match (self.request, self.response) {
            (Some(_), Some(_)) => Phases::ACCESS.and(Phases::AFTER_PROXY),
            (Some(_), None) => Phases::ACCESS,
            (None, _) => Phases::AFTER_PROXY,
        }
    }

    fn access(&self, x: &mut Exchange) -> Flow {
        match self.request {
            Some(limit) if !x.body.is_empty() => Flow::Body { limit, then: Box::new(|_, _| Flow::Continue) },
            _ => Flow::Continue,
        }
    }

    fn after_proxy(&self, x: &mut Exchange, head: &mut ResponseHead, body: &mut Body) -> Flow {
        let Some(limit) = self.response.filter(|_| matches!(body, Body::Stream(_))) else { return Flow::Continue };
        if body.remaining().is_some_and(|length| length > limit) {
            return Flow::Answer(Box::new(too_large()));
        }
        let (head, body, reason) = (std::mem::take(head), std::mem::take(body), x.answer.reason);
        Flow::Wait(Box::pin(async move {
            let answer = match body.collect(limit).await {
                Ok(body) => Answer { head, body, reason },
                Err(error) => broken(&error),
            };
            Box::new(move |_: &mut Exchange| Flow::Answer(Box::new(answer))) as Resume
        }))
    }
}

fn too_large() -> Answer {
    Answer::json(500, &json!({"error_msg": "the answer is larger than max_response_body_bytes"}), Reason::PluginFailed)
}

fn broken(error: &BodyError) -> Answer {
    match error {
        BodyError::TooLarge(_) => too_large(),
        BodyError::Timeout => Answer::of(Reason::UpstreamTimeout),
        BodyError::Malformed(_) => Answer::of(Reason::UpstreamProtocol),
        BodyError::Aborted => Answer::of(Reason::UpstreamReset),
        BodyError::Refused => Answer::of(Reason::Policy),
        BodyError::Request(error) => Answer::of(Reason::of_request_body(error)),
    }
}
