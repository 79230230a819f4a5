//! Configuration of `limit-count`.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::super::check::{self, Faults};
use super::super::fields::is_name;
use super::super::ip_strategy::IpStrategyConfig;
use super::super::limits::{KeyType, Policy, with_redis};
use crate::exchange::Template;

with_redis! {
    /// Configuration on a route: either `count` and `time_window`, or `rules`.
    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Config {
        /// Requests allowed in a window: a number or a text with variables.
        pub count: Option<Amount>,
        /// Length of a window in seconds: a number or a text with variables.
        pub time_window: Option<Amount>,
        /// Several limits instead of `count` and `time_window`, all of which must hold.
        #[schemars(length(min = 1))]
        pub rules: Option<Vec<Rule>>,
        /// `fixed`: a window starts with its first request and ends at once. `sliding`: the window before counts in proportion to how much of it is still within reach.
        #[serde(default)]
        pub window_type: WindowType,
        /// What requests are counted by; the client address where it is empty.
        #[serde(default = "key")]
        #[schemars(length(min = 1))]
        pub key: String,
        /// How `key` is read: `var` (the name of a variable), `var_combination` (a text with variables) or `constant` (all together).
        #[serde(default)]
        pub key_type: KeyType,
        /// Counts by an address of `X-Forwarded-For` instead of `key` where a trusted proxy is the peer: `depth`, `excluded_ips`, `ipv6_subnet`.
        pub ip_strategy: Option<IpStrategyConfig>,
        /// Status of refusals.
        #[serde(default = "rejected_code")]
        #[schemars(range(min = 200, max = 599))]
        pub rejected_code: u16,
        /// What a refused client reads as `error_msg`.
        #[schemars(length(min = 1))]
        pub rejected_msg: Option<String>,
        /// Lets requests through when the limit cannot be told, as when its Redis is away, instead of answering 500.
        #[serde(default)]
        pub allow_degradation: bool,
        /// Whether responses carry limit, remainder and seconds until reset in `X-RateLimit-Limit`, `-Remaining` and `-Reset`.
        #[serde(default = "yes")]
        pub show_limit_quota_header: bool,
        /// Whether responses carry `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers), also without the fields above.
        #[serde(default)]
        pub ietf_headers: bool,
        /// Routes with the same group share their counters; their limits should be the same.
        #[schemars(length(min = 1))]
        pub group: Option<String>,
        /// Has no meaning: every request is counted at once.
        #[serde(default = "never")]
        pub sync_interval: f64,
    }
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
        self.ip_strategy.iter().for_each(|strategy| strategy.validate("ip_strategy", faults));
        if self.policy == Policy::Gossip && self.window_type == WindowType::Sliding {
            faults.add("window_type", "gossip counts in fixed windows; use fixed, or another policy");
        }
        self.redis().validate(faults);
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
