//! Configuration of `echo`.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::check::{self, Faults};
use super::super::fields::HeaderEdits;

/// Configuration on a route; at least one field.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Put in front of the body.
    pub before_body: Option<String>,
    /// Put in place of the body.
    pub body: Option<String>,
    /// Put behind the body.
    pub after_body: Option<String>,
    /// Fields of the response, with variables.
    #[schemars(extend("minProperties" = 1))]
    pub headers: Option<Map<String, Value>>,
    /// What `Authorization` must hold; requests without it are answered with 401.
    pub auth_value: Option<String>,
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        let texts = [&self.before_body, &self.body, &self.after_body, &self.auth_value];
        if texts.iter().all(|text| text.is_none()) && self.headers.is_none() {
            faults.add("", "expected at least one of before_body, body, after_body, headers and auth_value");
        }
        if let Some(headers) = &self.headers {
            if headers.is_empty() {
                faults.add("headers", "expect object to have at least 1 properties");
            }
            HeaderEdits::compile(headers, "headers", faults);
        }
    }
}
