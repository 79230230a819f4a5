//! Configuration of `public-api`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::check::{self, Faults};

/// Configuration on a route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Own path of the plugin that answers; the path of the request when absent.
    pub uri: Option<String>,
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        if self.uri.as_ref().is_some_and(|uri| !uri.starts_with('/')) {
            faults.add("uri", "expected a path that starts with /");
        }
    }
}
