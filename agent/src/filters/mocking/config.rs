//! Configuration of `mocking`.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::check::{self, Faults};
use super::super::fields::HeaderEdits;
use super::openapi::Document;
use crate::http::chars::is_value;

/// Configuration on a route: exactly one of `response_example`, `response_schema` and `openapi`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Seconds before the answer, with fractions.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub delay: f64,
    /// Status of the answer; with `openapi`, which of an operation's responses is given when there is one of this status.
    #[schemars(range(min = 200, max = 599))]
    pub response_status: Option<u16>,
    /// `Content-Type` of the answer, none when empty, except with `openapi`, which has its own.
    #[serde(default = "content_type")]
    pub content_type: String,
    /// Body of the answer, with variables.
    pub response_example: Option<String>,
    /// JSON Schema of which the body is an example: what the schema gives as example, default or first choice, and values that fit otherwise.
    pub response_schema: Option<Value>,
    /// OpenAPI 3 document in JSON, as an object, a text or base64: the operation of the request's method and path answers with its example.
    pub openapi: Option<Value>,
    /// Whether the answer says that it is mocked (`X-Mock-By`).
    #[serde(default = "yes")]
    pub with_mock_header: bool,
    /// Further fields of the answer, with variables.
    #[serde(default)]
    pub response_headers: Map<String, Value>,
}

fn content_type() -> String {
    "application/json;charset=utf8".to_owned()
}

fn yes() -> bool {
    true
}

/// Longest delay in seconds.
const MAX_DELAY: f64 = 3600.0;

impl Config {
    /// How long the client waits.
    pub(super) fn pause(&self) -> Duration {
        Duration::try_from_secs_f64(self.delay).unwrap_or_default()
    }

    /// The document of `openapi`.
    pub(super) fn document(&self) -> Result<Option<Document>, String> {
        match &self.openapi {
            None => Ok(None),
            Some(Value::String(text)) => Document::read(&parsed(text)?, self.response_status).map(Some),
            Some(document) => Document::read(document, self.response_status).map(Some),
        }
    }
}

/// JSON as it is or in base64.
fn parsed(text: &str) -> Result<Value, String> {
    let bytes = match STANDARD.decode(text.trim()) {
        Ok(bytes) => bytes,
        Err(_) => text.as_bytes().to_vec(),
    };
    serde_json::from_slice(&bytes).map_err(|error| format!("expected JSON, plain or in base64: {error}"))
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        let ways = [self.response_example.is_some(), self.response_schema.is_some(), self.openapi.is_some()];
        if ways.iter().filter(|way| **way).count() != 1 {
            faults.add("", "value should match only one schema: expected one of response_example, response_schema and openapi");
        }
        if !(0.0..=MAX_DELAY).contains(&self.delay) {
            faults.add("delay", format!("expected 0 to {MAX_DELAY} seconds"));
        }
        faults.range("response_status", self.response_status.unwrap_or(200), 200, 599);
        if !is_value(self.content_type.as_bytes()) {
            faults.add("content_type", "expected a value without control characters");
        }
        if self.response_schema.as_ref().is_some_and(|schema| !schema.is_object()) {
            faults.add("response_schema", "wrong type: expected object");
        }
        if let Err(error) = self.document() {
            faults.add("openapi", error);
        }
        HeaderEdits::compile(&self.response_headers, "response_headers", faults);
    }
}
