//! Configuration of `response-rewrite`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::super::check::{self, Faults};
use super::super::fields::HeaderEdits;
use crate::exchange::{Expr, pattern};

/// Configuration on a route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// New status.
    #[schemars(range(min = 200, max = 598))]
    pub status_code: Option<u16>,
    /// New body. Excludes `filters`.
    pub body: Option<String>,
    /// Whether `body` is base64.
    #[serde(default)]
    pub body_base64: bool,
    /// Fields: an object with `add` (lines), `set` (map) and `remove` (names), or a plain map, which sets. With variables.
    #[serde(default)]
    pub headers: Map<String, Value>,
    /// Expression; responses for which it does not hold stay as they are.
    pub vars: Option<Value>,
    /// Replacements in the body, one after the other. Excludes `body`.
    #[schemars(length(min = 1))]
    pub filters: Option<Vec<Replace>>,
    /// Longest body that `filters` look at, in bytes.
    #[serde(default = "max_resp_body_size")]
    #[schemars(range(min = 1))]
    pub max_resp_body_size: u64,
}

/// One replacement in the body.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Replace {
    /// Pattern.
    #[schemars(length(min = 1))]
    pub regex: String,
    /// Text with `$1` and so on.
    pub replace: String,
    /// The first match only, or all.
    #[serde(default)]
    pub scope: Scope,
    /// Options of the pattern, as `ngx.re` has them.
    #[serde(default = "options")]
    pub options: String,
}

/// Which matches are replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Scope {
    /// The first.
    #[default]
    Once,
    /// All.
    Global,
}

fn options() -> String {
    "jo".to_owned()
}

fn max_resp_body_size() -> u64 {
    64 * 1024 * 1024
}

impl Config {
    /// The new body as bytes.
    pub(super) fn new_body(&self) -> Result<Option<Vec<u8>>, base64::DecodeError> {
        match &self.body {
            Some(text) if self.body_base64 => STANDARD.decode(text).map(Some),
            Some(text) => Ok(Some(text.clone().into_bytes())),
            None => Ok(None),
        }
    }
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        faults.range("status_code", self.status_code.unwrap_or(200), 200, 598);
        if self.body.is_some() && self.filters.is_some() {
            faults.add("", "value should match only one schema: expected either body or filters");
        }
        if self.body_base64 && self.body.as_deref().is_none_or(str::is_empty) {
            faults.add("body", "expected a body, since body_base64 is set");
        }
        if let Err(error) = self.new_body() {
            faults.add("body", format!("expected base64: {error}"));
        }
        HeaderEdits::compile(&self.headers, "headers", faults);
        if let Some(Err(error)) = self.vars.as_ref().map(Expr::compile) {
            faults.add(format!("vars{}", error.path), error.message);
        }
        if self.filters.as_ref().is_some_and(Vec::is_empty) {
            faults.add("filters", "expect array to have at least 1 items");
        }
        for (index, filter) in self.filters.iter().flatten().enumerate() {
            if let Err(error) = pattern::compile_bytes(&filter.regex, &filter.options) {
                faults.add(format!("filters[{index}].regex"), error);
            }
        }
        faults.range("max_resp_body_size", self.max_resp_body_size, 1, u64::MAX);
    }
}
