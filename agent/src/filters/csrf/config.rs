//! Configuration of `csrf`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::check::{self, Faults};
use super::super::fields::is_name;
use crate::exchange::pattern;

/// Configuration on a route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Secret that tokens are signed with. Required without `by_origin`.
    #[schemars(length(min = 1))]
    pub key: Option<String>,
    /// Seconds for which a token is good; 0 for ever.
    #[serde(default = "expires")]
    pub expires: u32,
    /// Name of the cookie that brings the token to the browser, and of the header that brings it back.
    #[serde(default = "name")]
    #[schemars(length(min = 1))]
    pub name: String,
    /// Instead of tokens: what changes something must come from a page of the host that is asked, as `Origin` or `Referer` says.
    pub by_origin: Option<ByOrigin>,
}

/// Which origins may change something.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ByOrigin {
    /// Further origins, as patterns of `host` or `host:port`.
    #[serde(default)]
    pub additional: Vec<String>,
}

fn expires() -> u32 {
    7200
}

fn name() -> String {
    "apisix-csrf-token".to_owned()
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        match (&self.key, &self.by_origin) {
            (None, None) => faults.add("", "expected key, or by_origin: what requests are judged by"),
            (Some(_), Some(_)) => faults.add("by_origin", "expected without key: requests are judged by one of both"),
            (Some(key), None) if key.is_empty() => faults.add("key", "string too short, expected at least 1, got 0"),
            _ => {}
        }
        for (index, regex) in self.by_origin.iter().flat_map(|by| &by.additional).enumerate() {
            if let Err(error) = pattern::compile(regex, "") {
                faults.add(format!("by_origin.additional[{index}]"), error);
            }
        }
        if !is_name(&self.name) {
            faults.add("name", format!("expected the name of a header field, got \"{}\"", self.name));
        }
    }
}
