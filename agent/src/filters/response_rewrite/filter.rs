//! The filter of `response-rewrite`.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::super::check::Faults;
use super::super::fields::{HeaderEdits, ask_for_plain};
use super::super::{BodyEdit, BuildContext, Built, Filter, Flow, Phases, check};
use super::body::{Replacement, replace_all};
use super::config::Config;
use crate::exchange::{Exchange, Expr};
use crate::http::{FieldName, Name, ResponseHead};

struct ResponseRewrite {
    status: Option<u16>,
    headers: HeaderEdits,
    condition: Option<Expr>,
    body: Option<Bytes>,
    replacements: Arc<[Replacement]>,
    limit: u64,
}

/// Whether the condition held when the head came; kept, since this filter changes what the condition may look at.
struct Held(usize, bool);

const NAME: &str = "response-rewrite";
const ETAG: FieldName = FieldName::of("ETag");

pub(super) fn build(value: &Value, _context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let mut faults = Faults::default();
    let headers = HeaderEdits::compile(&config.headers, "headers", &mut faults);
    let mut replacements = Vec::new();
    for (index, filter) in config.filters.iter().flatten().enumerate() {
        match Replacement::new(filter) {
            Ok(replacement) => replacements.push(replacement),
            Err(error) => faults.add(format!("filters[{index}].regex"), error),
        }
    }
    faults.into_result()?;
    let body = config.new_body().map_err(|error| vec![check::fault_at("body", error.to_string())])?;
    Ok(Arc::new(ResponseRewrite {
        status: config.status_code,
        headers,
        condition: config.vars.as_ref().and_then(|source| Expr::compile(source).ok()),
        body: body.map(Bytes::from),
        replacements: replacements.into(),
        limit: config.max_resp_body_size,
    }))
}

impl Filter for ResponseRewrite {
    fn phases(&self) -> Phases {
        let head = Phases::RESPONSE_HEAD;
        match (&self.body, &*self.replacements) {
            (None, []) => head,
            (Some(_), _) => head.and(Phases::RESPONSE_BODY),
            // The request phase asks upstream for a body that can be read.
            (None, _) => head.and(Phases::RESPONSE_BODY).and(Phases::REWRITE),
        }
    }

    fn rewrite(&self, x: &mut Exchange) -> Flow {
        ask_for_plain(x);
        Flow::Continue
    }

    fn response_head(&self, x: &mut Exchange, head: &mut ResponseHead) {
        if let Some(condition) = &self.condition {
            x.answer.status = head.status;
            let holds = condition.matches(x);
            x.put(NAME, Held(self.id(), holds));
            if !holds {
                return;
            }
        }
        if let Some(status) = self.status {
            head.status = status;
        }
        if self.body.is_some() {
            head.fields.remove_known(Name::ContentEncoding);
            head.fields.remove_known(Name::ContentLength);
            head.fields.remove_named(&ETAG);
        }
        self.headers.apply_to_response(x, &mut head.fields);
    }

    fn response_body(&self, x: &mut Exchange, head: &mut ResponseHead) -> Option<BodyEdit> {
        if self.condition.is_some() && !matches!(x.slot::<Held>(NAME), Some(Held(id, true)) if *id == self.id()) {
            return None;
        }
        if let Some(body) = &self.body {
            return Some(BodyEdit::Replace(body.clone()));
        }
        if head.fields.contains_known(Name::ContentEncoding) {
            tracing::debug!(
                "response-rewrite: the upstream has compressed the body although it was asked not to; it is left as it is"
            );
            return None;
        }
        let replacements = self.replacements.clone();
        Some(BodyEdit::Buffer { limit: self.limit, edit: Box::new(move |body| Ok(replace_all(&replacements, body))) })
    }
}

impl ResponseRewrite {
    /// Tells this configuration from another one that runs for the same request.
    fn id(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}
