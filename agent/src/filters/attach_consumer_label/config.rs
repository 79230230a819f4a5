//! Configuration of `attach-consumer-label`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::check::{self, Faults};
use super::super::fields::is_name;

/// Configuration on a route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Header fields for the upstream, each with the label that it carries: `{"X-Team": "$team"}`. What the client sends in these fields is dropped.
    #[schemars(extend("minProperties" = 1))]
    pub headers: BTreeMap<String, String>,
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        if self.headers.is_empty() {
            faults.add("headers", "expect object to have at least 1 properties");
        }
        for (name, label) in &self.headers {
            if !is_name(name) {
                faults.add(format!("headers.{name}"), format!("expected the name of a header field, got \"{name}\""));
            }
            if label.strip_prefix('$').is_none_or(str::is_empty) {
                faults.add(
                    format!("headers.{name}"),
                    format!("expected a label behind a dollar sign, such as \"$team\", got \"{label}\""),
                );
            }
        }
    }
}
