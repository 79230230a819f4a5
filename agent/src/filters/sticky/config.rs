//! Configuration of `sticky`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::check::{self, Faults};
use super::super::set_cookie::Cookie;

/// Configuration on a route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// The cookie that a client is known by.
    #[serde(default)]
    pub cookie: Cookie,
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        self.cookie.validate("cookie", faults);
    }
}
