//! Configuration of `api-breaker`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::check::{self, Faults};
use super::super::fields::is_name;
use super::circuit::Condition;

/// Configuration on a route: by counts of statuses, or by an `expression` over what the upstream did in the last ten seconds.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Status of the answer while the breaker is open; must be given without `expression`, with it 503 when absent.
    #[schemars(range(min = 200, max = 599))]
    pub break_response_code: Option<u16>,
    /// Body of this answer.
    pub break_response_body: Option<String>,
    /// Fields of this answer, with variables in their values; only sent with a body.
    #[serde(default)]
    pub break_response_headers: Vec<Header>,
    /// Most seconds that the breaker stays open: it starts with 2 and doubles each time.
    #[serde(default = "max_breaker_sec")]
    #[schemars(range(min = 3))]
    pub max_breaker_sec: u64,
    /// What speaks against the upstream.
    #[serde(default)]
    pub unhealthy: Unhealthy,
    /// What speaks for it.
    #[serde(default)]
    pub healthy: Healthy,
    /// Condition under which the breaker opens, as `circuitBreaker.expression` of Traefik, for example `NetworkErrorRatio() > 0.3 || LatencyAtQuantileMS(50.0) > 100`.
    pub expression: Option<String>,
    /// With `expression`: seconds between two looks at the condition, with fractions.
    #[serde(default = "check_period")]
    pub check_period: f64,
    /// With `expression`: seconds that the breaker stays open, with fractions.
    #[serde(default = "ten_seconds")]
    pub fallback_duration: f64,
    /// With `expression`: seconds in which ever more requests are let through again, with fractions.
    #[serde(default = "ten_seconds")]
    pub recovery_duration: f64,
}

/// A field of the answer.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    /// Name.
    #[schemars(length(min = 1))]
    pub key: String,
    /// Value, with variables.
    #[schemars(length(min = 1))]
    pub value: String,
}

/// What speaks against the upstream.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Unhealthy {
    /// Statuses of the upstream that count as failures, 500 to 599; one that cannot be reached counts as 502 or 504.
    #[schemars(length(min = 1))]
    pub http_statuses: Vec<u16>,
    /// Failures that open the breaker.
    #[schemars(range(min = 1))]
    pub failures: u64,
}

/// What speaks for it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Healthy {
    /// Statuses of the upstream that count as successes, 200 to 499.
    #[schemars(length(min = 1))]
    pub http_statuses: Vec<u16>,
    /// Successes after which the failures are forgotten.
    #[schemars(range(min = 1))]
    pub successes: u64,
}

impl Default for Unhealthy {
    fn default() -> Self {
        Unhealthy { http_statuses: vec![500], failures: 3 }
    }
}

impl Default for Healthy {
    fn default() -> Self {
        Healthy { http_statuses: vec![200], successes: 3 }
    }
}

fn max_breaker_sec() -> u64 {
    300
}

fn check_period() -> f64 {
    0.1
}

fn ten_seconds() -> f64 {
    10.0
}

/// Longest span of the circuit in seconds, a day.
const LONGEST: f64 = 86_400.0;

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        if self.break_response_code.is_none() && self.expression.is_none() {
            faults.add("", "property \"break_response_code\" is required");
        }
        faults.range("break_response_code", self.break_response_code.unwrap_or(200), 200, 599);
        for (index, header) in self.break_response_headers.iter().enumerate() {
            if !is_name(&header.key) {
                faults.add(format!("break_response_headers[{index}].key"), "expected the name of a header field");
            }
            if header.value.is_empty() {
                faults.add(format!("break_response_headers[{index}].value"), "string too short, expected at least 1, got 0");
            }
        }
        faults.range("max_breaker_sec", self.max_breaker_sec, 3, u64::MAX);
        statuses("unhealthy.http_statuses", &self.unhealthy.http_statuses, 500, 599, faults);
        faults.range("unhealthy.failures", self.unhealthy.failures, 1, u64::MAX);
        statuses("healthy.http_statuses", &self.healthy.http_statuses, 200, 499, faults);
        faults.range("healthy.successes", self.healthy.successes, 1, u64::MAX);
        if let Some(Err(error)) = self.expression.as_deref().map(Condition::parse) {
            faults.add("expression", error);
        }
        for (field, seconds) in [
            ("check_period", self.check_period),
            ("fallback_duration", self.fallback_duration),
            ("recovery_duration", self.recovery_duration),
        ] {
            faults.range(field, seconds, 0.001, LONGEST);
        }
    }
}

fn statuses(path: &str, list: &[u16], low: u16, high: u16, faults: &mut Faults) {
    if list.is_empty() {
        faults.add(path, "expect array to have at least 1 items");
    }
    for (index, status) in list.iter().enumerate() {
        faults.range(&format!("{path}[{index}]"), *status, low, high);
    }
}
