//! The filter of `echo`.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};
use subtle::ConstantTimeEq;

use super::super::check::Faults;
use super::super::fields::{HeaderEdits, ask_for_plain};
use super::super::{BodyEdit, BuildContext, Built, Filter, Flow, Phases, check};
use super::config::Config;
use crate::exchange::{Answer, Exchange, Reason};
use crate::http::{FieldName, Name, ResponseHead};

struct Echo {
    before: Bytes,
    after: Bytes,
    /// The whole body, with what stands around it.
    whole: Option<Bytes>,
    headers: Option<HeaderEdits>,
    auth: Option<(String, Box<Answer>)>,
}

const ETAG: FieldName = FieldName::of("ETag");

pub(super) fn build(value: &Value, _context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let mut faults = Faults::default();
    let headers = config.headers.map(|headers| HeaderEdits::compile(&headers, "headers", &mut faults));
    faults.into_result()?;
    let before = config.before_body.unwrap_or_default();
    let after = config.after_body.unwrap_or_default();
    let refusal = || Box::new(Answer::json(401, &json!({ "message": "unauthorized body" }), Reason::Plugin));
    Ok(Arc::new(Echo {
        whole: config.body.map(|body| Bytes::from([before.as_str(), &body, &after].concat())),
        before: Bytes::from(before),
        after: Bytes::from(after),
        headers,
        auth: config.auth_value.map(|value| (value, refusal())),
    }))
}

impl Filter for Echo {
    fn phases(&self) -> Phases {
        let mut phases = Phases::ACCESS;
        if self.edits_body() {
            phases = phases.and(Phases::RESPONSE_BODY);
        }
        if self.edits_body() || self.headers.is_some() {
            phases = phases.and(Phases::RESPONSE_HEAD);
        }
        phases
    }

    fn access(&self, x: &mut Exchange) -> Flow {
        if self.edits_body() {
            // Nothing can be put around a body that is compressed.
            ask_for_plain(x);
        }
        let given = x.request.fields.get_known(Name::Authorization).unwrap_or_default();
        match &self.auth {
            Some((value, refusal)) if !bool::from(value.as_bytes().ct_eq(given)) => Flow::Answer(refusal.clone()),
            _ => Flow::Continue,
        }
    }

    fn response_head(&self, x: &mut Exchange, head: &mut ResponseHead) {
        if self.edits_body() {
            head.fields.remove_known(Name::ContentLength);
            head.fields.remove_named(&ETAG);
        }
        if self.whole.is_some() {
            head.fields.remove_known(Name::ContentEncoding);
        }
        if let Some(headers) = &self.headers {
            headers.apply_to_response(x, &mut head.fields);
        }
    }

    fn response_body(&self, _x: &mut Exchange, head: &mut ResponseHead) -> Option<BodyEdit> {
        if let Some(whole) = &self.whole {
            return Some(BodyEdit::Replace(whole.clone()));
        }
        if head.fields.contains_known(Name::ContentEncoding) {
            tracing::debug!("echo: the upstream has compressed the body although it was asked not to; it is left as it is");
            return None;
        }
        let (mut before, after) = (Some(self.before.clone()), self.after.clone());
        Some(BodyEdit::Stream(Box::new(move |piece| {
            let start = before.take().unwrap_or_default();
            Ok(match piece {
                Some(piece) if start.is_empty() => piece,
                Some(piece) => Bytes::from([start, piece].concat()),
                None => Bytes::from([start, after.clone()].concat()),
            })
        })))
    }
}

impl Echo {
    fn edits_body(&self) -> bool {
        self.whole.is_some() || !self.before.is_empty() || !self.after.is_empty()
    }
}
