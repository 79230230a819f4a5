//! Configuration of `csrf`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::check::{self, Faults};
use super::super::fields::is_name;

/// Configuration on a route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Secret that tokens are signed with.
    #[schemars(length(min = 1))]
    pub key: String,
    /// Seconds for which a token is good; 0 for ever.
    #[serde(default = "expires")]
    pub expires: u32,
    /// Name of the cookie that brings the token to the browser, and of the header that brings it back.
    #[serde(default = "name")]
    #[schemars(length(min = 1))]
    pub name: String,
}

fn expires() -> u32 {
    7200
}

fn name() -> String {
    "apisix-csrf-token".to_owned()
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        if self.key.is_empty() {
            faults.add("key", "string too short, expected at least 1, got 0");
        }
        if !is_name(&self.name) {
            faults.add("name", format!("expected the name of a header field, got \"{}\"", self.name));
        }
    }
}
