//! Configuration of `ip-restriction`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::check::{self, Faults};
use super::super::ip_strategy::IpStrategyConfig;
use crate::exchange::expr::parse_net;

/// Configuration on a route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Only these addresses and networks pass. Excludes `blacklist`.
    #[schemars(length(min = 1))]
    pub whitelist: Option<Vec<String>>,
    /// These addresses and networks do not pass. Excludes `whitelist`.
    #[schemars(length(min = 1))]
    pub blacklist: Option<Vec<String>>,
    /// What a refused client reads.
    #[serde(default = "message")]
    #[schemars(length(min = 1, max = 1024))]
    pub message: String,
    /// Status that a refused client gets.
    #[serde(default = "response_code")]
    #[schemars(range(min = 400, max = 599))]
    pub response_code: u16,
    /// Which address counts behind proxies; the client address as the gateway knows it when absent.
    pub ip_strategy: Option<IpStrategyConfig>,
}

fn message() -> String {
    "Your IP address is not allowed".to_owned()
}

fn response_code() -> u16 {
    403
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        if self.whitelist.is_some() == self.blacklist.is_some() {
            faults.add("", "value should match only one schema: expected either whitelist or blacklist");
        }
        for (field, list) in [("whitelist", &self.whitelist), ("blacklist", &self.blacklist)] {
            let list = list.as_deref();
            if list.is_some_and(<[String]>::is_empty) {
                faults.add(field, "expect array to have at least 1 items");
            }
            for (index, text) in list.unwrap_or_default().iter().enumerate() {
                if parse_net(text).is_none() {
                    faults.add(format!("{field}[{index}]"), format!("expected an IP address or network, got \"{text}\""));
                }
            }
        }
        faults.range("message", self.message.chars().count(), 1, 1024);
        faults.range("response_code", self.response_code, 400, 599);
        if let Some(strategy) = &self.ip_strategy {
            strategy.validate("ip_strategy", faults);
        }
    }
}
