//! The filter of `mocking`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::super::check::Faults;
use super::super::fields::HeaderEdits;
use super::super::{BuildContext, Built, Filter, Flow, Phases, Resume, check};
use super::config::Config;
use super::example::example;
use super::openapi::{Document, Found};
use super::xml;
use crate::exchange::{Answer, Exchange, Reason, Template};
use crate::http::{Fields, Name};

struct Mocking {
    delay: Duration,
    status: u16,
    /// `Content-Type` and the mark of what is mocked.
    fields: Fields,
    headers: HeaderEdits,
    content: Content,
}

enum Content {
    /// Made for each request.
    Text(Template),
    /// Always the same.
    Fixed(Bytes),
    Document(Document),
}

pub(super) fn build(value: &Value, _context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let mut faults = Faults::default();
    let headers = HeaderEdits::compile(&config.response_headers, "response_headers", &mut faults);
    faults.into_result()?;
    let document = config.document().map_err(|error| vec![check::fault_at("openapi", error)])?;
    let mut fields = Fields::new();
    if document.is_none() && !config.content_type.is_empty() {
        fields.append_known(Name::ContentType, &config.content_type);
    }
    if config.with_mock_header {
        fields.append("X-Mock-By", "Heddle");
    }
    let content = match (document, &config.response_schema) {
        (Some(document), _) => Content::Document(document),
        (None, Some(schema)) => {
            let sample = example(schema, schema);
            let is_xml = config.content_type.split(';').next().is_some_and(|media| media.contains("xml"));
            Content::Fixed(Bytes::from(if is_xml { xml::document(&sample) } else { sample.to_string() }))
        }
        (None, None) => {
            let template = Template::new(config.response_example.as_deref().unwrap_or_default());
            match template.literal() {
                Some(text) => Content::Fixed(Bytes::from(text.to_owned())),
                None => Content::Text(template),
            }
        }
    };
    let (delay, status) = (config.pause(), config.response_status.unwrap_or(200));
    Ok(Arc::new(Mocking { delay, status, fields: fields.laid_out(), headers, content }))
}

impl Filter for Mocking {
    fn phases(&self) -> Phases {
        Phases::ACCESS
    }

    fn access(&self, x: &mut Exchange) -> Flow {
        let answer = Box::new(self.answer(x));
        if self.delay.is_zero() {
            return Flow::Answer(answer);
        }
        let delay = self.delay;
        Flow::Wait(Box::pin(async move {
            tokio::time::sleep(delay).await;
            Box::new(move |_: &mut Exchange| Flow::Answer(answer)) as Resume
        }))
    }
}

impl Mocking {
    fn answer(&self, x: &Exchange) -> Answer {
        let mut answer = Answer::empty(self.status, Reason::Answered);
        answer.head.fields = self.fields.clone();
        match &self.content {
            Content::Text(template) => answer.body = Bytes::from(template.render(x)),
            Content::Fixed(body) => answer.body = body.clone(),
            Content::Document(document) => match document.find(x.request.method.as_str(), &x.request.path) {
                Found::Answer(prepared) => {
                    answer.head.status = prepared.status;
                    answer.head.fields.append_all(&prepared.fields);
                    answer.body = prepared.body.clone();
                }
                Found::OtherMethods(methods) => {
                    answer = refusal(405, "the OpenAPI document has no such operation of this path");
                    answer.head.fields.append("Allow", methods);
                }
                Found::Nothing => answer = refusal(404, "the OpenAPI document has no such path"),
            },
        }
        self.headers.apply_to_response(x, &mut answer.head.fields);
        answer
    }
}

fn refusal(status: u16, message: &str) -> Answer {
    Answer::json(status, &json!({ "error_msg": message }), Reason::Answered)
}
