//! Configuration of `ua-restriction`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::check::{self, Faults};
use crate::exchange::pattern::Patterns;

/// Configuration on a route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Only clients whose `User-Agent` matches one of these patterns pass. Excludes `denylist`.
    #[schemars(length(min = 1))]
    pub allowlist: Option<Vec<String>>,
    /// Clients whose `User-Agent` matches one of these patterns do not pass. Excludes `allowlist`.
    #[schemars(length(min = 1))]
    pub denylist: Option<Vec<String>>,
    /// Whether clients without `User-Agent` pass.
    #[serde(default)]
    pub bypass_missing: bool,
    /// What a refused client reads.
    #[serde(default = "message")]
    #[schemars(length(min = 1, max = 1024))]
    pub message: String,
}

fn message() -> String {
    "Not allowed".to_owned()
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        if self.allowlist.is_some() == self.denylist.is_some() {
            faults.add("", "value should match only one schema: expected either allowlist or denylist");
        }
        for (field, list) in [("allowlist", &self.allowlist), ("denylist", &self.denylist)] {
            let Some(list) = list else { continue };
            if list.is_empty() {
                faults.add(field, "expect array to have at least 1 items");
            }
            for (index, _) in list.iter().enumerate().filter(|(_, pattern)| pattern.is_empty()) {
                faults.add(format!("{field}[{index}]"), "string too short, expected at least 1, got 0");
            }
            if let Err((index, error)) = Patterns::new(list, "") {
                faults.add(index.map_or_else(|| field.to_owned(), |index| format!("{field}[{index}]")), error);
            }
        }
        faults.range("message", self.message.chars().count(), 1, 1024);
    }
}
