//! Configuration of `limit-conn`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::check::{self, Faults};
use super::super::ip_strategy::IpStrategyConfig;
use super::super::limits::{KeyType, with_redis};
use crate::exchange::Template;

with_redis! {
    /// Configuration on a route: either `conn`, `burst` and `key`, or `rules`.
    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Config {
        /// Requests that may be under way at the same time without delay.
        #[schemars(range(min = 1))]
        pub conn: Option<u64>,
        /// Requests beyond `conn` that are held up instead of refused.
        #[schemars(range(min = 0))]
        pub burst: Option<u64>,
        /// Seconds, with fractions, that one request usually takes: what is beyond `conn` waits this long, what is beyond twice `conn` twice as long.
        pub default_conn_delay: f64,
        /// Several limits, all of which must hold.
        #[schemars(length(min = 1))]
        pub rules: Option<Vec<Rule>>,
        /// Always waits `default_conn_delay` instead of what requests really take.
        #[serde(default)]
        pub only_use_default_delay: bool,
        /// What requests are counted by; must be given without `rules` and `ip_strategy`.
        #[schemars(length(min = 1))]
        pub key: Option<String>,
        /// How `key` is read: `var` (the name of a variable), `var_combination` (a text with variables) or `constant` (all together).
        #[serde(default)]
        pub key_type: KeyType,
        /// Counts by an address of `X-Forwarded-For` instead of `key` where a trusted proxy is the peer: `depth`, `excluded_ips`, `ipv6_subnet`.
        pub ip_strategy: Option<IpStrategyConfig>,
        /// With `policy: redis`, seconds after which a request counts no more though nobody has heard of its end, since its gateway may have died.
        #[serde(default = "key_ttl")]
        #[schemars(range(min = 1, max = 86_400))]
        pub key_ttl: u64,
        /// Status of refusals.
        #[serde(default = "rejected_code")]
        #[schemars(range(min = 200, max = 599))]
        pub rejected_code: u16,
        /// What a refused client reads as `error_msg`.
        #[schemars(length(min = 1))]
        pub rejected_msg: Option<String>,
        /// Lets requests through at once when too many wait already (10,000 for one limit) or its Redis is away, instead of refusing them.
        #[serde(default)]
        pub allow_degradation: bool,
    }
}

/// One limit of several.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    /// Requests that may be under way at the same time without delay.
    #[schemars(range(min = 1))]
    pub conn: u64,
    /// Requests beyond `conn` that are held up instead of refused.
    #[schemars(range(min = 0))]
    pub burst: u64,
    /// What requests are counted by: a text with variables. A request for which none can be resolved is not counted.
    #[schemars(length(min = 1))]
    pub key: String,
}

fn key_ttl() -> u64 {
    3600
}

fn rejected_code() -> u16 {
    503
}

/// Longest unit of delay in seconds, a day.
const MAX_DELAY: f64 = 86_400.0;

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        match (&self.rules, self.conn, self.burst) {
            (None, Some(_), Some(_)) | (Some(_), None, None) => {}
            (None, None, _) => faults.add("", "property \"conn\" is required"),
            (None, Some(_), None) => faults.add("", "property \"burst\" is required"),
            (Some(_), ..) => faults.add("", "value should match only one schema: expected either rules or conn and burst"),
        }
        if self.rules.is_none() && self.key.is_none() && self.ip_strategy.is_none() {
            faults.add("", "property \"key\" is required");
        }
        if self.conn == Some(0) {
            faults.add("conn", "expected 0 to be greater than 0");
        }
        if self.rules.as_ref().is_some_and(Vec::is_empty) {
            faults.add("rules", "expect array to have at least 1 items");
        }
        for (index, rule) in self.rules.iter().flatten().enumerate() {
            if rule.conn == 0 {
                faults.add(format!("rules[{index}].conn"), "expected 0 to be greater than 0");
            }
            if Template::new(&rule.key).literal() == Some("") {
                faults.add(format!("rules[{index}].key"), "string too short, expected at least 1, got 0");
            }
        }
        if self.default_conn_delay <= 0.0 {
            faults.add("default_conn_delay", format!("expected {} to be greater than 0", self.default_conn_delay));
        } else {
            faults.range("default_conn_delay", self.default_conn_delay, 0.0, MAX_DELAY);
        }
        for (field, text) in [("key", &self.key), ("rejected_msg", &self.rejected_msg)] {
            if text.as_ref().is_some_and(String::is_empty) {
                faults.add(field, "string too short, expected at least 1, got 0");
            }
        }
        faults.range("key_ttl", self.key_ttl, 1, 86_400);
        faults.range("rejected_code", self.rejected_code, 200, 599);
        self.ip_strategy.iter().for_each(|strategy| strategy.validate("ip_strategy", faults));
        self.policy.must_be_exact(faults);
        self.redis().validate(faults);
    }
}
