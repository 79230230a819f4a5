//! Configuration of `workflow`.

use heddle_xds::catalog::{ConfigFault, Place};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::super::check::{self, Faults};
use super::super::{limit_conn, limit_count};
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
    /// Pairs of name and configuration, of which the first acts: `["return", {"code": 403}]`, `["limit-count", {…}]` or `["limit-conn", {…}]`.
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
    }
}

impl Action {
    fn check(&self) -> Result<(), Vec<ConfigFault>> {
        match self.0.as_str() {
            "return" => check::read::<Return>(&self.1).map(drop),
            "limit-count" => (limit_count::PLUGIN.check)(Place::Route, &self.1),
            "limit-conn" => (limit_conn::PLUGIN.check)(Place::Route, &self.1),
            other => {
                Err(vec![check::fault_at("", format!("unsupported action {other}; known are return, limit-count, limit-conn"))])
            }
        }
    }
}
