//! The filter of `body-transformer`.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use super::super::fields::ask_for_plain;
use super::super::{BuildContext, Built, Filter, Flow, Phases, Resume, check};
use super::config::{Config, Format, Transformation};
use super::decode::{decode, format_of};
use super::template::{Scene, Template};
use crate::exchange::{Answer, Exchange, Reason, Variable};
use crate::http::{Body, BodyError, FieldName, Fields, Method, Name, ResponseHead};

struct BodyTransformer {
    request: Option<Arc<Side>>,
    response: Option<Arc<Side>>,
}

/// What becomes of the bodies of one side.
struct Side {
    format: Option<Format>,
    template: Template,
    limit: u64,
}

/// Most bytes that a template makes.
const MAX_OUTPUT: usize = 64 * 1024 * 1024;

/// Fields that speak of the body as it was.
const STALE: [FieldName; 6] = [
    FieldName::of("ETag"),
    FieldName::of("Last-Modified"),
    FieldName::of("Accept-Ranges"),
    FieldName::of("Content-MD5"),
    FieldName::of("Content-Digest"),
    FieldName::of("Repr-Digest"),
];

pub(super) fn build(value: &Value, _context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let request = config.request.map(|side| Side::new(&side, "request.template", config.max_req_body_size)).transpose()?;
    let response = config.response.map(|side| Side::new(&side, "response.template", config.max_resp_body_size)).transpose()?;
    Ok(Arc::new(BodyTransformer { request: request.map(Arc::new), response: response.map(Arc::new) }))
}

impl Side {
    fn new(config: &Transformation, path: &str, limit: u64) -> Result<Side, Vec<heddle_xds::catalog::ConfigFault>> {
        let template = config.source().and_then(|source| Template::compile(&source));
        let template = template.map_err(|error| vec![check::fault_at(path, error)])?;
        Ok(Side { format: config.input_format, template, limit })
    }
}

impl Filter for BodyTransformer {
    fn phases(&self) -> Phases {
        match &self.response {
            // The request phase asks the upstream for a body that can be read.
            Some(_) => Phases::REWRITE.and(Phases::AFTER_PROXY),
            None => Phases::REWRITE,
        }
    }

    fn rewrite(&self, x: &mut Exchange) -> Flow {
        if self.response.is_some() {
            ask_for_plain(x);
        }
        let Some(side) = self.request.clone() else { return Flow::Continue };
        let by_method = || (x.request.method == Method::Get).then_some(Format::Args);
        let by_type = format_of(content_type(&x.request.fields));
        let format = side.format.or(by_type).or_else(by_method).unwrap_or(Format::Plain);
        Flow::Body { limit: side.limit, then: Box::new(move |x, body| side.transform_request(format, x, &body)) }
    }

    fn after_proxy(&self, x: &mut Exchange, head: &mut ResponseHead, body: &mut Body) -> Flow {
        let Some(side) = &self.response else { return Flow::Continue };
        let has_none = matches!(head.status, 204 | 205 | 304) || x.request.method == Method::Head;
        if has_none || x.answer.reason != Reason::None {
            return Flow::Continue;
        }
        let format = side.format.or_else(|| format_of(content_type(&head.fields))).unwrap_or(Format::Plain);
        let (side, head, body) = (side.clone(), std::mem::take(head), std::mem::take(body));
        Flow::Wait(Box::pin(async move {
            let body = body.collect(side.limit).await;
            Box::new(move |x: &mut Exchange| Flow::Answer(Box::new(side.transform_response(format, x, head, body)))) as Resume
        }))
    }
}

impl Side {
    fn transform_request(&self, format: Format, x: &mut Exchange, body: &[u8]) -> Flow {
        let query = x.request.query.as_deref();
        match self.transformed(format, x, body, content_type(&x.request.fields), query) {
            Ok(text) => {
                x.body = Body::from(Bytes::from(text));
                Flow::Continue
            }
            Err(failure) => Flow::Answer(Box::new(failure.answer(400))),
        }
    }

    fn transform_response(
        &self,
        format: Format,
        x: &mut Exchange,
        mut head: ResponseHead,
        body: Result<Bytes, BodyError>,
    ) -> Answer {
        x.answer.status = head.status;
        let body = match body {
            Ok(body) => body,
            Err(BodyError::TooLarge(limit)) => {
                return Failure::Input(format!("the upstream's body is longer than {limit} bytes")).answer(502);
            }
            Err(BodyError::Timeout) => return Answer::of(Reason::UpstreamTimeout),
            Err(_) => return Answer::of(Reason::UpstreamReset),
        };
        if head.fields.contains_known(Name::ContentEncoding) {
            let message = "the upstream has compressed the body although it was asked not to";
            return Failure::Input(message.to_owned()).answer(502);
        }
        match self.transformed(format, x, &body, content_type(&head.fields), x.request.query.as_deref()) {
            Ok(text) => {
                head.fields.remove_known(Name::ContentLength);
                for name in &STALE {
                    head.fields.remove_named(name);
                }
                Answer { head, body: Bytes::from(text), reason: Reason::None }
            }
            Err(failure) => failure.answer(502),
        }
    }

    fn transformed(
        &self,
        format: Format,
        x: &Exchange,
        body: &[u8],
        content_type: &str,
        query: Option<&str>,
    ) -> Result<String, Failure> {
        let input = decode(format, body, content_type, query).map_err(Failure::Input)?;
        let look = |variable: &Variable| variable.get(x).map(std::borrow::Cow::into_owned);
        let scene = Scene { root: &input.root, body: &input.body, parts: &input.parts, look: &look, limit: MAX_OUTPUT };
        self.template.render(&scene).map_err(Failure::Template)
    }
}

/// Why there is no new body.
enum Failure {
    /// The old one cannot be read.
    Input(String),
    /// The template cannot be rendered with it.
    Template(String),
}

impl Failure {
    /// The answer; `input` is the status where the old body is to blame.
    fn answer(self, input: u16) -> Answer {
        let (status, message) = match self {
            Failure::Input(message) => (input, message),
            Failure::Template(message) => (500, message),
        };
        let reason = if status == 400 { Reason::Plugin } else { Reason::PluginFailed };
        Answer::json(status, &json!({ "error_msg": format!("body-transformer: {message}") }), reason)
    }
}

fn content_type(fields: &Fields) -> &str {
    let value = fields.get_known(Name::ContentType).unwrap_or_default();
    std::str::from_utf8(value).unwrap_or_default()
}
