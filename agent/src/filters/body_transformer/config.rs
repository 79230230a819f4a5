//! Configuration of `body-transformer`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::Deserialize;

use super::super::check::{self, Faults};
use super::template::Template;

/// Configuration on a route: `request`, `response` or both.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// What becomes of the bodies of requests.
    pub request: Option<Transformation>,
    /// What becomes of the bodies of responses.
    pub response: Option<Transformation>,
    /// Longest request body in bytes that is read; longer ones are answered with 413.
    #[serde(default = "max_size")]
    #[schemars(range(min = 1))]
    pub max_req_body_size: u64,
    /// Longest response body in bytes that is read; longer ones are answered with 502.
    #[serde(default = "max_size")]
    #[schemars(range(min = 1))]
    pub max_resp_body_size: u64,
}

/// What becomes of a body.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Transformation {
    /// How the body is read; by its `Content-Type` when absent, and GET requests by their query.
    pub input_format: Option<Format>,
    /// Makes the new body.
    pub template: String,
    /// Whether `template` is base64.
    #[serde(default)]
    pub template_is_base64: bool,
}

/// How a body is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    /// Elements by their names without prefixes, repeated ones as a list, attributes under `_attr`.
    Xml,
    /// As it is.
    Json,
    /// A form.
    Encoded,
    /// The query of the request; the body is not looked at.
    Args,
    /// Only as `_body`.
    Plain,
    /// A form of parts, by their names.
    Multipart,
}

fn max_size() -> u64 {
    64 * 1024 * 1024
}

impl Transformation {
    /// The text of the template.
    pub(super) fn source(&self) -> Result<String, String> {
        if !self.template_is_base64 {
            return Ok(self.template.clone());
        }
        let bytes = STANDARD.decode(&self.template).map_err(|error| format!("expected base64: {error}"))?;
        String::from_utf8(bytes).map_err(|_| "expected UTF-8 in base64".to_owned())
    }
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        if self.request.is_none() && self.response.is_none() {
            faults.add("", "expected request or response");
        }
        for (path, side) in [("request.template", &self.request), ("response.template", &self.response)] {
            let Some(side) = side else { continue };
            if let Err(error) = side.source().and_then(|source| Template::compile(&source).map(drop)) {
                faults.add(path, error);
            }
        }
        faults.range("max_req_body_size", self.max_req_body_size, 1, u64::MAX);
        faults.range("max_resp_body_size", self.max_resp_body_size, 1, u64::MAX);
    }
}
