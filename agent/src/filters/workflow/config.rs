//! Configuration of `workflow`.

use heddle_xds::catalog::{ConfigFault, Place};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::super::check::{self, Faults};
use super::super::{jwt_auth, limit_conn, limit_count};
use crate::exchange::Expr;

/// Configuration on a route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Looked at in order; the first whose case holds acts, and no other.
    #[schemars(length(min = 1))]
    pub rules: Vec<Rule>,
}

/// A case and what is done then.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    /// Expression that must hold; always when absent.
    pub case: Option<Value>,
    /// Pairs of name and configuration, of which the first acts: `["return", {"code": 403}]`, `["pass"]`, `["limit-count", {…}]`, `["limit-conn", {…}]` or
    /// `["jwt-auth", {…}]`.
    #[schemars(length(min = 1))]
    pub actions: Vec<Action>,
}

/// Name and configuration.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Action(pub String, #[serde(default)] pub Value);

/// Configuration of the action `return`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Return {
    /// Status of the answer.
    #[schemars(range(min = 100, max = 599))]
    pub code: u16,
}

impl check::Config for Return {
    fn validate(&self, faults: &mut Faults) {
        // What is below 200 is no answer.
        faults.range("code", self.code, 200, 599);
    }
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        if self.rules.is_empty() {
            faults.add("rules", "expect array to have at least 1 items");
        }
        for (index, rule) in self.rules.iter().enumerate() {
            if let Some(Err(error)) = rule.case.as_ref().map(Expr::compile) {
                faults.add(format!("rules[{index}].case{}", error.path), error.message);
            }
            if rule.actions.is_empty() {
                faults.add(format!("rules[{index}].actions"), "expect array to have at least 1 items");
            }
            for (number, action) in rule.actions.iter().enumerate() {
                let path = format!("rules[{index}].actions[{number}]");
                for fault in action.check().err().unwrap_or_default() {
                    let inner = if fault.path.is_empty() { path.clone() } else { format!("{path}.{}", fault.path) };
                    faults.add(inner, fault.message);
                }
            }
        }
        if self.acts(Action::identifies) && self.acts(Action::limits) {
            faults.add("rules", "jwt-auth acts before any limit, so that they cannot take turns: put the limits on the route");
        }
    }
}

impl Config {
    /// Whether one of the actions that act is of this sort.
    pub(super) fn acts(&self, sort: fn(&Action) -> bool) -> bool {
        self.rules.iter().filter_map(|rule| rule.actions.first()).any(sort)
    }
}

impl Action {
    /// Whether it says who asks.
    pub(super) fn identifies(&self) -> bool {
        self.0 == "jwt-auth"
    }

    fn limits(&self) -> bool {
        self.0.starts_with("limit-")
    }

    fn check(&self) -> Result<(), Vec<ConfigFault>> {
        match self.0.as_str() {
            "return" => check::read::<Return>(&self.1).map(drop),
            "pass" if self.1.is_null() => Ok(()),
            "pass" => Err(vec![check::fault_at("", "pass has no configuration".to_owned())]),
            "jwt-auth" => (jwt_auth::PLUGIN.check)(Place::Route, &self.1),
            "limit-count" => (limit_count::PLUGIN.check)(Place::Route, &self.1),
            "limit-conn" => (limit_conn::PLUGIN.check)(Place::Route, &self.1),
            other => {
                let known = "return, pass, limit-count, limit-conn, jwt-auth";
                Err(vec![check::fault_at("", format!("unsupported action {other}; known are {known}"))])
            }
        }
    }
}
