//! Configuration of `uri-blocker`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::check::{self, Faults};
use crate::exchange::pattern::Patterns;

/// Configuration on a route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Patterns; a request in whose path and query one of them is found is refused.
    pub block_rules: Vec<String>,
    /// Status that a refused client gets.
    #[serde(default = "rejected_code")]
    #[schemars(range(min = 200, max = 599))]
    pub rejected_code: u16,
    /// What a refused client reads, as `error_msg`; nothing when absent.
    #[schemars(length(min = 1))]
    pub rejected_msg: Option<String>,
    /// Whether the patterns ignore case.
    #[serde(default)]
    pub case_insensitive: bool,
}

fn rejected_code() -> u16 {
    403
}

impl Config {
    /// The options of the patterns.
    pub(super) fn options(&self) -> &'static str {
        if self.case_insensitive { "i" } else { "" }
    }
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        for (index, _) in self.block_rules.iter().enumerate().filter(|(_, rule)| rule.is_empty()) {
            faults.add(format!("block_rules[{index}]"), "string too short, expected at least 1, got 0");
        }
        if let Err((index, error)) = Patterns::new(&self.block_rules, self.options()) {
            faults.add(index.map_or_else(|| "block_rules".to_owned(), |index| format!("block_rules[{index}]")), error);
        }
        faults.range("rejected_code", self.rejected_code, 200, 599);
        if self.rejected_msg.as_deref() == Some("") {
            faults.add("rejected_msg", "string too short, expected at least 1, got 0");
        }
    }
}
