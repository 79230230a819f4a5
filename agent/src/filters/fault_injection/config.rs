//! Configuration of `fault-injection`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::check::{self, Faults};
use super::super::fields::HeaderEdits;
use crate::exchange::Expr;

/// Configuration on a route: `abort`, `delay` or both; the delay comes first.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Ends requests.
    pub abort: Option<Abort>,
    /// Holds requests up.
    pub delay: Option<Delay>,
}

/// Ends requests.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Abort {
    /// Status of the answer.
    #[schemars(range(min = 200, max = 599))]
    pub http_status: u16,
    /// Body of the answer, with variables.
    #[serde(default)]
    pub body: String,
    /// Fields of the answer, with variables.
    #[serde(default)]
    pub headers: Map<String, Value>,
    /// Share of requests; all when absent.
    #[schemars(range(min = 0, max = 100))]
    pub percentage: Option<u32>,
    /// Expressions of which one must hold.
    #[schemars(length(max = 20))]
    pub vars: Option<Vec<Value>>,
}

/// Holds requests up.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Delay {
    /// Seconds, with fractions.
    #[schemars(range(min = 0))]
    pub duration: f64,
    /// Share of requests; all when absent.
    #[schemars(range(min = 0, max = 100))]
    pub percentage: Option<u32>,
    /// Expressions of which one must hold.
    #[schemars(length(max = 20))]
    pub vars: Option<Vec<Value>>,
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        if self.abort.is_none() && self.delay.is_none() {
            faults.add("", "expected abort or delay");
        }
        if let Some(abort) = &self.abort {
            faults.range("abort.http_status", abort.http_status, 200, 599);
            HeaderEdits::compile(&abort.headers, "abort.headers", faults);
            check_share("abort", abort.percentage, abort.vars.as_deref(), faults);
        }
        if let Some(delay) = &self.delay {
            if Duration::try_from_secs_f64(delay.duration).is_err() {
                faults.add("delay.duration", format!("expected {} to be at least 0", delay.duration));
            }
            check_share("delay", delay.percentage, delay.vars.as_deref(), faults);
        }
    }
}

fn check_share(path: &str, percentage: Option<u32>, vars: Option<&[Value]>, faults: &mut Faults) {
    faults.range(&format!("{path}.percentage"), percentage.unwrap_or(100), 0, 100);
    let vars = vars.unwrap_or_default();
    faults.range(&format!("{path}.vars"), vars.len(), 0, 20);
    for (index, source) in vars.iter().enumerate() {
        if let Err(error) = Expr::compile(source) {
            faults.add(format!("{path}.vars[{index}]{}", error.path), error.message);
        }
    }
}
