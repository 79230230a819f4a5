//! Configuration of `limit-req`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::check::{self, Faults};
use super::super::ip_strategy::IpStrategyConfig;
use super::super::limits::{KeyType, Policy, with_redis};

with_redis! {
    /// Configuration on a route: a leaky bucket with `rate`, or a token bucket with `average`.
    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Config {
        /// Requests per second of the leaky bucket, above 0, with fractions: what comes faster waits, and beyond `burst` is refused.
        pub rate: Option<f64>,
        /// With `rate`: requests that may come too early. With `average`: requests that may come at once, 1 when absent.
        #[schemars(range(min = 0))]
        pub burst: Option<f64>,
        /// Requests per `period` of a token bucket, as `average` of Traefik's `rateLimit`; stands instead of `rate`.
        pub average: Option<f64>,
        /// Seconds that `average` is meant for.
        #[serde(default = "period")]
        pub period: f64,
        /// What requests are counted by; must be given with `rate` unless there is `ip_strategy`, with `average` it is `remote_addr`.
        #[schemars(length(min = 1))]
        pub key: Option<String>,
        /// How `key` is read: `var` (the name of a variable), `var_combination` (a text with variables) or `constant` (all together).
        #[serde(default)]
        pub key_type: KeyType,
        /// Counts by an address of `X-Forwarded-For` instead of `key` where a trusted proxy is the peer: `depth`, `excluded_ips`, `ipv6_subnet`.
        pub ip_strategy: Option<IpStrategyConfig>,
        /// With `rate`: lets requests within `burst` through at once instead of holding them up.
        #[serde(default)]
        pub nodelay: bool,
        /// Status of refusals; 503 with `rate`, 429 with `average` when absent.
        #[schemars(range(min = 200, max = 599))]
        pub rejected_code: Option<u16>,
        /// What a refused client reads as `error_msg`.
        #[schemars(length(min = 1))]
        pub rejected_msg: Option<String>,
        /// What a refused client reads as it stands, as `text/plain`; excludes `rejected_msg`.
        #[schemars(length(min = 1))]
        pub rejected_body: Option<String>,
        /// Lets requests through at once when too many wait already (10,000 for one limit) or its Redis is away, instead of refusing them.
        #[serde(default)]
        pub allow_degradation: bool,
        /// With `policy: local`: responses carry how many may come at once, how many still may, and the seconds until the next one may, in `X-RateLimit-Limit`, `-Remaining` and `-Reset`.
        #[serde(default)]
        pub show_limit_quota_header: bool,
    }
}

fn period() -> f64 {
    1.0
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        match (self.rate, self.average) {
            (None, None) => faults.add("", "property \"rate\" is required"),
            (Some(_), Some(_)) => faults.add("", "value should match only one schema: expected either rate or average"),
            (Some(_), None) => {
                if self.burst.is_none() {
                    faults.add("", "property \"burst\" is required");
                }
                if self.key.is_none() && self.ip_strategy.is_none() {
                    faults.add("", "property \"key\" is required");
                }
            }
            (None, Some(_)) if self.nodelay => faults.add("nodelay", "has no meaning with average"),
            (None, Some(_)) => {}
        }
        for (field, number) in [("rate", self.rate), ("average", self.average), ("period", Some(self.period))] {
            if number.is_some_and(|number| number <= 0.0) {
                faults.add(field, format!("expected {} to be greater than 0", number.unwrap_or_default()));
            }
        }
        if self.burst.is_some_and(|burst| burst < 0.0) {
            faults.add("burst", format!("expected {} to be at least 0", self.burst.unwrap_or_default()));
        }
        if self.rejected_msg.is_some() && self.rejected_body.is_some() {
            faults.add("rejected_body", "excludes rejected_msg");
        }
        for (field, text) in [("key", &self.key), ("rejected_msg", &self.rejected_msg), ("rejected_body", &self.rejected_body)] {
            if text.as_ref().is_some_and(String::is_empty) {
                faults.add(field, "string too short, expected at least 1, got 0");
            }
        }
        faults.range("rejected_code", self.rejected_code.unwrap_or(200), 200, 599);
        self.ip_strategy.iter().for_each(|strategy| strategy.validate("ip_strategy", faults));
        self.policy.must_be_exact(faults);
        if self.show_limit_quota_header && self.policy != Policy::Local {
            faults.add("show_limit_quota_header", "needs policy local: a Redis says no more than whether a request may go on");
        }
        self.redis().validate(faults);
    }
}
