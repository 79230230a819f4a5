//! Configuration of `real-ip`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::check::{self, Faults};
use crate::exchange::expr::parse_net;

/// Configuration on a route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Variable that holds the address, such as `http_x_forwarded_for` or `arg_realip`; a port may stand behind it.
    #[schemars(length(min = 1))]
    pub source: String,
    /// Addresses and networks of those who are believed; all are when absent.
    #[schemars(length(min = 1))]
    pub trusted_addresses: Option<Vec<String>>,
    /// Whether trusted hops of `http_x_forwarded_for` are passed over, from the last to the first.
    #[serde(default)]
    pub recursive: bool,
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        if self.source.is_empty() {
            faults.add("source", "string too short, expected at least 1, got 0");
        }
        let trusted = self.trusted_addresses.as_deref();
        if trusted.is_some_and(<[String]>::is_empty) {
            faults.add("trusted_addresses", "expect array to have at least 1 items");
        }
        for (index, text) in trusted.unwrap_or_default().iter().enumerate() {
            if parse_net(text).is_none() {
                faults.add(format!("trusted_addresses[{index}]"), format!("expected an IP address or network, got \"{text}\""));
            }
        }
    }
}
