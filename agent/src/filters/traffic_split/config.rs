//! Configuration of `traffic-split`.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::super::check::{self, Faults};
use crate::exchange::Expr;

/// Configuration on a route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// The first rule that fits decides; without one the route's own upstream is used.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

/// When and how requests are shared out.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    /// The rule fits when one of these does; always without any.
    #[serde(default, rename = "match")]
    pub matches: Vec<Match>,
    /// Where to, by weight.
    #[schemars(length(min = 1, max = 20))]
    pub weighted_upstreams: Vec<WeightedUpstream>,
}

/// A condition.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Match {
    /// Expression.
    pub vars: Option<Value>,
}

/// An upstream and its share.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WeightedUpstream {
    /// Id of an upstream. Without it and without `upstream`, the route's own.
    #[schemars(with = "Option<String>")]
    pub upstream_id: Option<Value>,
    /// An upstream written here.
    pub upstream: Option<Value>,
    /// Share.
    #[serde(default = "weight")]
    pub weight: u32,
}

fn weight() -> u32 {
    1
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        for (number, rule) in self.rules.iter().enumerate() {
            let path = format!("rules[{number}]");
            for (index, condition) in rule.matches.iter().enumerate() {
                if let Some(Err(error)) = condition.vars.as_ref().map(Expr::compile) {
                    faults.add(format!("{path}.match[{index}].vars{}", error.path), error.message);
                }
            }
            let list = format!("{path}.weighted_upstreams");
            if !(1..=20).contains(&rule.weighted_upstreams.len()) {
                faults.add(&*list, "expect array to have 1 to 20 items");
            }
            for (index, entry) in rule.weighted_upstreams.iter().enumerate() {
                entry.validate(&format!("{list}[{index}]"), faults);
            }
        }
    }
}

impl WeightedUpstream {
    fn validate(&self, path: &str, faults: &mut Faults) {
        if self.upstream_id.is_some() && self.upstream.is_some() {
            faults.add(path, "expected either upstream_id or upstream");
        }
        if self.upstream_id.as_ref().is_some_and(|id| !id.is_string() && !id.is_u64()) {
            faults.add(format!("{path}.upstream_id"), "wrong type: expected string or integer");
        }
        if self.upstream.as_ref().is_some_and(|upstream| !upstream.is_object()) {
            faults.add(format!("{path}.upstream"), "wrong type: expected object");
        }
    }
}
