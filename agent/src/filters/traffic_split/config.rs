//! Configuration of `traffic-split`.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::super::check::{self, Faults};
use super::super::set_cookie::Cookie;
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
    /// Conditions of which one must hold; a rule without any always fits.
    #[serde(default, rename = "match")]
    pub matches: Vec<Match>,
    /// Where to, by weight.
    #[schemars(length(min = 1, max = 20))]
    pub weighted_upstreams: Vec<WeightedUpstream>,
    /// Sends the same client the same way; when weights change, only those clients go elsewhere that must. Without it requests are shared out in turns.
    pub sticky: Option<Sticky>,
}

/// What a client is known by; one of both.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Sticky {
    /// A cookie, which is given to clients that have none.
    pub cookie: Option<Cookie>,
    /// A variable (`consumer_name`), or a text with variables (`$host $http_x_user`); the client address where it is empty.
    pub key: Option<String>,
}

/// A condition.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Match {
    /// An expression; one that is absent holds.
    pub vars: Option<Value>,
}

/// An upstream and its share.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WeightedUpstream {
    /// Id of an upstream. Without it and without `upstream`, the route's own.
    #[schemars(with = "Option<String>")]
    pub upstream_id: Option<Value>,
    /// An upstream written here, with the fields of any upstream.
    pub upstream: Option<Value>,
    /// Share; an entry with 0 gets nothing.
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
            if let Some(sticky) = &rule.sticky {
                sticky.validate(&format!("{path}.sticky"), faults);
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

impl Sticky {
    fn validate(&self, path: &str, faults: &mut Faults) {
        if self.cookie.is_some() == self.key.is_some() {
            faults.add(path, "expected either cookie or key");
        }
        if let Some(cookie) = &self.cookie {
            cookie.validate(&format!("{path}.cookie"), faults);
        }
        if self.key.as_ref().is_some_and(String::is_empty) {
            faults.add(format!("{path}.key"), "expected a variable");
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
