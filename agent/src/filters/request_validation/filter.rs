//! The filter of `request-validation`.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::super::{BuildContext, Built, Filter, Flow, Phases, check};
use super::config::Config;
use super::document;
use super::schema::Schema;
use crate::exchange::content::{Kind, form};
use crate::exchange::{Answer, Exchange, Reason};
use crate::http::{Body, Name, ResponseHead};

struct RequestValidation {
    header: Option<(Schema, BTreeMap<String, Vec<String>>)>,
    body: Option<Arc<BodyRule>>,
    refusal: Refusal,
}

struct BodyRule {
    schema: Schema,
    limit: u64,
    refusal: Refusal,
}

/// What a refused client gets.
#[derive(Clone)]
struct Refusal {
    code: u16,
    message: Option<Bytes>,
}

pub(super) fn build(value: &Value, _context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let refusal = Refusal { code: config.rejected_code, message: config.rejected_msg.map(Bytes::from) };
    let compile = |field: &str, source| Schema::compile(source).map_err(|error| vec![check::fault_at(field, error)]);
    let header = match &config.header_schema {
        Some(source) => Some((compile("header_schema", source)?, document::spellings(source))),
        None => None,
    };
    let body = match &config.body_schema {
        Some(source) => {
            let schema = compile("body_schema", source)?;
            Some(Arc::new(BodyRule { schema, limit: config.max_req_body_size, refusal: refusal.clone() }))
        }
        None => None,
    };
    Ok(Arc::new(RequestValidation { header, body, refusal }))
}

impl Filter for RequestValidation {
    fn phases(&self) -> Phases {
        Phases::REWRITE
    }

    fn rewrite(&self, x: &mut Exchange) -> Flow {
        if let Some((schema, spelled)) = &self.header
            && let Some(fault) = schema.fault(&document::header(&x.request, spelled))
        {
            return self.refusal.because(fault);
        }
        let Some(rule) = self.body.clone() else { return Flow::Continue };
        Flow::Body { limit: rule.limit, then: Box::new(move |x, body| rule.judge(x, &body)) }
    }
}

impl BodyRule {
    fn judge(&self, x: &mut Exchange, body: &[u8]) -> Flow {
        if body.is_empty() {
            return self.refusal.because("the request has no body".to_owned());
        }
        // Which of them the upstream believes nobody knows, and each means another document.
        if x.request.fields.get_all_known(Name::ContentType).count() > 1 {
            return self.refusal.because("the request has more than one Content-Type".to_owned());
        }
        let is_form = Kind::of(&x.request) == Kind::Form;
        let mut value = match if is_form { form(body) } else { document::json(body) } {
            Ok(value) => value,
            Err(error) => return self.refusal.because(error),
        };
        let completed = !is_form && self.schema.complete(&mut value);
        if let Some(fault) = self.schema.fault(&value) {
            return self.refusal.because(fault);
        }
        if completed {
            x.body = Body::from(Bytes::from(value.to_string()));
        }
        Flow::Continue
    }
}

impl Refusal {
    fn because(&self, fault: String) -> Flow {
        let mut head = ResponseHead::new(self.code);
        head.fields.append("content-type", "text/plain; charset=utf-8");
        let body = self.message.clone().unwrap_or_else(|| Bytes::from(fault));
        Flow::Answer(Box::new(Answer { head, body, reason: Reason::Plugin }))
    }
}
