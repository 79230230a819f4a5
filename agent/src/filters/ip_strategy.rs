//! Which address of a request counts behind proxies: the peer's, or one of `X-Forwarded-For` (Traefik's `ipStrategy`). It decides nothing about it.

use std::net::IpAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Deserialize;

use super::check::Faults;
use crate::exchange::Exchange;
use crate::exchange::client::{forwarded_for, parse_hop};
use crate::exchange::expr::parse_net;
use crate::exchange::ranges::Ranges;

/// Which address counts.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct IpStrategyConfig {
    /// Place in `X-Forwarded-For` of the address that counts, from the right and from 1; 0 is the client address as the gateway knows it.
    #[serde(default)]
    pub depth: u32,
    /// Addresses and networks that are passed over in `X-Forwarded-For` from the right; the first other one counts. Excludes `depth`.
    #[serde(default)]
    pub excluded_ips: Vec<String>,
    /// Prefix length to which an IPv6 address is cut before it counts, 0 to 128.
    #[schemars(range(min = 0, max = 128))]
    pub ipv6_subnet: Option<u8>,
}

impl IpStrategyConfig {
    /// Adds the faults that the types cannot express; they stand under `path`.
    pub(crate) fn validate(&self, path: &str, faults: &mut Faults) {
        if self.depth > 0 && !self.excluded_ips.is_empty() {
            faults.add(path, "value should match only one schema: expected either depth or excluded_ips");
        }
        for (index, text) in self.excluded_ips.iter().enumerate() {
            if parse_net(text).is_none() {
                let path = format!("{path}.excluded_ips[{index}]");
                faults.add(path, format!("expected an IP address or network, got \"{text}\""));
            }
        }
        if let Some(length) = self.ipv6_subnet {
            faults.range(&format!("{path}.ipv6_subnet"), length, 0, 128);
        }
    }

    /// The compiled strategy.
    pub(crate) fn compile(&self) -> IpStrategy {
        let choice = if self.depth > 0 {
            Choice::Depth(self.depth as usize)
        } else if self.excluded_ips.is_empty() {
            Choice::Client
        } else {
            Choice::Excluding(Ranges::new(self.excluded_ips.iter().filter_map(|text| parse_net(text))))
        };
        IpStrategy { choice, ipv6_subnet: self.ipv6_subnet }
    }
}

/// Which address counts, compiled once.
#[derive(Debug, Default)]
pub(crate) struct IpStrategy {
    choice: Choice,
    ipv6_subnet: Option<u8>,
}

#[derive(Debug, Default)]
enum Choice {
    #[default]
    Client,
    Depth(usize),
    Excluding(Ranges),
}

impl IpStrategy {
    /// The address that counts; `None` when there is none at that place or it is no address.
    pub(crate) fn address(&self, x: &Exchange) -> Option<IpAddr> {
        let hops = || forwarded_for(&x.request.fields).map(|hop| parse_hop(hop).map(|address| address.ip().to_canonical()));
        let address = match &self.choice {
            Choice::Client => x.remote.ip().to_canonical(),
            Choice::Depth(depth) => hops().nth(depth - 1).flatten()?,
            Choice::Excluding(ranges) => hops().find(|hop| hop.is_none_or(|address| !ranges.contains(address))).flatten()?,
        };
        Some(match (address, self.ipv6_subnet) {
            (IpAddr::V6(_), Some(length)) => IpNet::new(address, length).map_or(address, |net| net.network()),
            _ => address,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;
    use crate::exchange::testing::request;

    fn counts(config: Value, forwarded: &[&str]) -> Option<String> {
        let config: IpStrategyConfig = serde_json::from_value(config).unwrap();
        let fields: Vec<_> = forwarded.iter().map(|value| ("X-Forwarded-For", *value)).collect();
        config.compile().address(&request("GET", "h", "/", &fields)).map(|ip| ip.to_string())
    }

    #[test]
    fn a_depth_counts_from_the_right() {
        let list = &["10.0.0.1,11.0.0.1,12.0.0.1", "13.0.0.1"];
        for (depth, expected) in
            [(0, Some("192.0.2.7")), (1, Some("13.0.0.1")), (3, Some("11.0.0.1")), (4, Some("10.0.0.1")), (5, None)]
        {
            assert_eq!(counts(json!({"depth": depth}), list).as_deref(), expected, "{depth}");
        }
        assert_eq!(counts(json!({"depth": 1}), &["10.0.0.1, junk"]), None);
        assert_eq!(counts(json!({"depth": 1}), &[]), None);
    }

    #[test]
    fn what_is_excluded_is_passed_over() {
        let list = &["10.0.0.1,11.0.0.1,12.0.0.1,13.0.0.1"];
        for (excluded, expected) in [
            (&["12.0.0.1", "13.0.0.0/8"][..], Some("11.0.0.1")),
            (&["15.0.0.1", "13.0.0.1"], Some("12.0.0.1")),
            (&["10.0.0.1"], Some("13.0.0.1")),
            (&["0.0.0.0/0"], None),
        ] {
            assert_eq!(counts(json!({"excluded_ips": excluded}), list).as_deref(), expected, "{excluded:?}");
        }
        assert_eq!(counts(json!({"excluded_ips": ["13.0.0.1"]}), &["1.1.1.1, junk, 13.0.0.1"]), None);
    }

    #[test]
    fn an_ipv6_address_is_cut_to_its_network() {
        let cut = json!({"depth": 1, "ipv6_subnet": 64});
        assert_eq!(counts(cut.clone(), &["2001:db8:1:2:3::4"]).as_deref(), Some("2001:db8:1:2::"));
        assert_eq!(counts(cut, &["1.2.3.4"]).as_deref(), Some("1.2.3.4"));
    }
}
