//! What requests are counted by: a variable, a text with variables, nothing, or an address out of `X-Forwarded-For`. It counts nothing.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Deserialize;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::super::ip_strategy::{IpStrategy, IpStrategyConfig};
use crate::exchange::variable::Value;
use crate::exchange::{Exchange, Template, Variable};

/// How `key` is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum KeyType {
    /// The name of a variable.
    #[default]
    Var,
    /// A text with variables.
    VarCombination,
    /// The same for all requests.
    Constant,
}

/// What requests are counted by.
#[derive(Debug)]
pub(crate) enum Key {
    /// A variable; the client address where it is empty.
    Variable(Variable),
    /// A text with variables; the client address where none is there.
    Combination(Template),
    /// All together.
    Constant,
    /// Of a rule: without any variable that can be resolved the rule is skipped.
    Rule(Template),
    /// An address of the chain of proxies.
    Address(Strategy),
}

/// Where an address is taken from.
#[derive(Debug)]
pub(crate) struct Strategy {
    chain: IpStrategy,
    /// For requests whose chain nobody trusted has written, or holds no such address.
    client: IpStrategy,
}

impl Key {
    /// Compiles `key`, or the strategy where there is one.
    pub(crate) fn new(key: &str, kind: KeyType, strategy: Option<&IpStrategyConfig>) -> Key {
        match (strategy, kind) {
            (Some(strategy), _) => Key::Address(Strategy::new(strategy)),
            (None, KeyType::Var) => Key::Variable(Variable::new(key)),
            (None, KeyType::VarCombination) => Key::Combination(Template::new(key)),
            (None, KeyType::Constant) => Key::Constant,
        }
    }

    /// The hash of the key of this request, `None` when the limit does not concern it. `seed` keeps the keys of several limits apart.
    pub(crate) fn hash(&self, x: &Exchange, seed: u64) -> Option<u128> {
        match self {
            Key::Constant => Some(0),
            Key::Variable(variable) => Some(match variable.value(x) {
                Some(Value::Ip(ip)) => hash_ip(ip, seed),
                Some(value) => match value.into_text() {
                    text if text.is_empty() => hash_ip(x.remote.ip(), seed),
                    text => xxh3_128_with_seed(text.as_bytes(), seed),
                },
                None => hash_ip(x.remote.ip(), seed),
            }),
            Key::Combination(template) => Some(hash_template(template, x, seed).unwrap_or_else(|| hash_ip(x.remote.ip(), seed))),
            // A key without variables is one counter for all.
            Key::Rule(template) if template.literal().is_some() => Some(seed.into()),
            Key::Rule(template) => hash_template(template, x, seed),
            Key::Address(strategy) => Some(hash_ip(strategy.address(x), seed)),
        }
    }
}

impl Strategy {
    fn new(config: &IpStrategyConfig) -> Strategy {
        let client = IpStrategyConfig { ipv6_subnet: config.ipv6_subnet, ..IpStrategyConfig::default() };
        Strategy { chain: config.compile(), client: client.compile() }
    }

    fn address(&self, x: &Exchange) -> IpAddr {
        // Where the client is not the peer, somebody trusted has said so, and the chain is his.
        let believed = x.remote.ip() != x.connection.peer.ip();
        let chosen = if believed { self.chain.address(x) } else { None };
        chosen.or_else(|| self.client.address(x)).unwrap_or_else(|| x.remote.ip())
    }
}

fn hash_ip(ip: IpAddr, seed: u64) -> u128 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => xxh3_128_with_seed(&ip.octets(), seed),
        IpAddr::V6(ip) => xxh3_128_with_seed(&ip.octets(), seed),
    }
}

/// `None` when no variable could be resolved.
fn hash_template(template: &Template, x: &Exchange, seed: u64) -> Option<u128> {
    let mut text = String::with_capacity(64);
    (template.render_into(x, &mut text) > 0).then(|| xxh3_128_with_seed(text.as_bytes(), seed))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::SocketAddr;

    use super::*;
    use crate::exchange::testing::request;

    fn address(strategy: &IpStrategyConfig, chain: &str, remote: &str) -> String {
        let mut x = request("GET", "h", "/", &[("X-Forwarded-For", chain)]);
        x.remote = SocketAddr::new(remote.parse().unwrap(), 0);
        Strategy::new(strategy).address(&x).to_string()
    }

    #[test]
    fn the_chain_of_proxies_names_the_client_where_it_is_believed() {
        let depth = |depth| IpStrategyConfig { depth, ..IpStrategyConfig::default() };
        let chain = "10.0.0.1, 11.0.0.1,12.0.0.1, 13.0.0.1";
        assert_eq!(address(&depth(1), chain, "9.9.9.9"), "13.0.0.1");
        assert_eq!(address(&depth(3), chain, "9.9.9.9"), "11.0.0.1");
        assert_eq!(address(&depth(5), chain, "9.9.9.9"), "9.9.9.9", "a chain that is too short");
        assert_eq!(address(&depth(1), chain, "192.0.2.7"), "192.0.2.7", "nobody trusted has said so");
        let subnet = IpStrategyConfig { depth: 1, ipv6_subnet: Some(64), ..IpStrategyConfig::default() };
        assert_eq!(address(&subnet, "2001:db8:1:2:3::4", "9.9.9.9"), "2001:db8:1:2::");
        assert_eq!(address(&subnet, "nonsense", "2001:db8:1:2:3::4"), "2001:db8:1:2::");
    }
}
