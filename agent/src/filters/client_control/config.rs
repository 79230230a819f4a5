//! Configuration of `client-control`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::check::{self, Faults};

/// Configuration on a route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Most bytes of a request body, however it is framed; 0 or absent for what the listener allows, which is never more.
    #[serde(default)]
    pub max_body_size: u64,
}

impl check::Config for Config {
    fn validate(&self, _faults: &mut Faults) {}
}
