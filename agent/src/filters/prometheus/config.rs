//! Configuration of `prometheus`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::check::{self, Faults};

/// Configuration on a route or global rule.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Labels carry names instead of ids, where there are names.
    #[serde(default)]
    pub prefer_name: bool,
}

impl check::Config for Config {
    fn validate(&self, _faults: &mut Faults) {}
}
