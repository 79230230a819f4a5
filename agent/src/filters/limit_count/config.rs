//! Configuration of `limit-count`.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::super::check::{self, Faults};
use super::super::fields::is_name;
use crate::exchange::Template;

/// Configuration on a route: either `count` and `time_window`, or `rules`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Requests allowed in a window: a number or a text with variables.
    pub count: Option<Amount>,
    /// Length of a window in seconds: a number or a text with variables.
    pub time_window: Option<Amount>,
    /// Several limits, all of which must hold.
    #[schemars(length(min = 1))]
    pub rules: Option<Vec<Rule>>,
    /// Whether a window starts with its first request and ends at once, or slides.
    #[serde(default)]
    pub window_type: WindowType,
    /// What requests are counted by.
    #[serde(default = "key")]
    #[schemars(length(min = 1))]
    pub key: String,
    /// How `key` is read.
    #[serde(default)]
    pub key_type: KeyType,
    /// Status of refusals.
    #[serde(default = "rejected_code")]
    #[schemars(range(min = 200, max = 599))]
    pub rejected_code: u16,
    /// What a refused client reads.
    #[schemars(length(min = 1))]
    pub rejected_msg: Option<String>,
    /// Where counters are kept. Only `local` for now: on this node, exact over its workers.
    #[serde(default = "policy")]
    pub policy: String,
    /// Lets requests through when the limit cannot be told, instead of answering 500.
    #[serde(default)]
    pub allow_degradation: bool,
    /// Whether responses carry limit, remainder and time until reset.
    #[serde(default = "yes")]
    pub show_limit_quota_header: bool,
    /// Routes with the same group share their counters.
    #[schemars(length(min = 1))]
    pub group: Option<String>,
    /// Has no meaning for `local`.
    #[serde(default = "never")]
    pub sync_interval: f64,
}

/// One limit of several.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    /// Requests allowed in a window.
    pub count: Amount,
    /// Length of a window in seconds.
    pub time_window: Amount,
    /// What requests are counted by: a text with variables. A request for which none can be resolved is not counted.
    #[schemars(length(min = 1))]
    pub key: String,
    /// Part of the names of the response fields: `X-<prefix>-RateLimit-Limit`; the number of the rule when absent.
    pub header_prefix: Option<String>,
}

/// A number above 0, or a text with variables that gives one.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(untagged)]
pub(super) enum Amount {
    /// A number.
    Fixed(u64),
    /// A text with variables.
    Template(String),
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Amount, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Number(number) if number.as_u64().is_some_and(|number| number > 0) => {
                Ok(Amount::Fixed(number.as_u64().unwrap_or(1)))
            }
            Value::String(text) if !text.is_empty() => Ok(Amount::Template(text)),
            other => {
                Err(serde::de::Error::custom(format_args!("expected an integer above 0 or a text with variables, got {other}")))
            }
        }
    }
}

/// Kind of window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum WindowType {
    /// Starts with the first request and ends at once.
    #[default]
    Fixed,
    /// The last window counts in proportion to how much of it is still within reach.
    Sliding,
}

/// How `key` is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum KeyType {
    /// The name of a variable.
    #[default]
    Var,
    /// A text with variables.
    VarCombination,
    /// The same for all requests.
    Constant,
}

/// `plugin_metadata/limit-count`: names of response fields.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Metadata {
    /// Carries the limit.
    #[serde(default = "limit_header")]
    pub limit_header: String,
    /// Carries how many requests remain.
    #[serde(default = "remaining_header")]
    pub remaining_header: String,
    /// Carries the seconds until the window ends.
    #[serde(default = "reset_header")]
    pub reset_header: String,
}

impl Default for Metadata {
    fn default() -> Self {
        Metadata { limit_header: limit_header(), remaining_header: remaining_header(), reset_header: reset_header() }
    }
}

fn key() -> String {
    "remote_addr".to_owned()
}

fn rejected_code() -> u16 {
    503
}

fn policy() -> String {
    "local".to_owned()
}

fn yes() -> bool {
    true
}

fn never() -> f64 {
    -1.0
}

fn limit_header() -> String {
    "X-RateLimit-Limit".to_owned()
}

fn remaining_header() -> String {
    "X-RateLimit-Remaining".to_owned()
}

fn reset_header() -> String {
    "X-RateLimit-Reset".to_owned()
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        match (&self.rules, &self.count, &self.time_window) {
            (None, Some(_), Some(_)) | (Some(_), None, None) => {}
            (None, None, _) => faults.add("", "property \"count\" is required"),
            (None, Some(_), None) => faults.add("", "property \"time_window\" is required"),
            (Some(_), ..) => faults.add("", "value should match only one schema: expected either rules or count and time_window"),
        }
        for (index, rule) in self.rules.iter().flatten().enumerate() {
            if Template::new(&rule.key).literal() == Some("") {
                faults.add(format!("rules[{index}].key"), "string too short, expected at least 1, got 0");
            }
            if rule.header_prefix.as_deref().is_some_and(|prefix| !is_name(prefix)) {
                faults.add(format!("rules[{index}].header_prefix"), "expected part of the name of a header field");
            }
        }
        if self.rules.as_ref().is_some_and(Vec::is_empty) {
            faults.add("rules", "expect array to have at least 1 items");
        }
        for (field, text) in
            [("key", Some(&self.key)), ("rejected_msg", self.rejected_msg.as_ref()), ("group", self.group.as_ref())]
        {
            if text.is_some_and(String::is_empty) {
                faults.add(field, "string too short, expected at least 1, got 0");
            }
        }
        faults.range("rejected_code", self.rejected_code, 200, 599);
        if self.sync_interval != -1.0 && self.sync_interval < 0.1 {
            faults.add("sync_interval", format!("expected -1 or at least 0.1, got {}", self.sync_interval));
        }
        match self.policy.as_str() {
            "local" => {}
            "redis" | "redis-cluster" | "redis-sentinel" => {
                faults.add(
                    "policy",
                    format!("{} comes in a later version; use local, which counts on each node by itself", self.policy),
                );
            }
            other => faults.add("policy", format!("matches none of the enum values: got {other}, expected local")),
        }
    }
}

impl check::Config for Metadata {
    fn validate(&self, faults: &mut Faults) {
        for (field, name) in [
            ("limit_header", &self.limit_header),
            ("remaining_header", &self.remaining_header),
            ("reset_header", &self.reset_header),
        ] {
            if !is_name(name) {
                faults.add(field, format!("expected the name of a header field, got \"{name}\""));
            }
        }
    }
}
