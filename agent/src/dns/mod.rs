//! Names to addresses, with the lifetime that the answer has. It knows no upstreams.

mod marked;
mod resolver;
#[cfg(test)]
pub(crate) mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

pub use resolver::{Resolver, ResolverSettings};

/// What a name stands for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Addresses, sorted, IPv4 before IPv6.
    pub addresses: Vec<IpAddr>,
    /// SRV records (RFC 2782), sorted; empty where none was asked for.
    pub services: Vec<Service>,
}

/// One SRV record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Service {
    /// Name of the host, without the trailing dot.
    pub target: Arc<str>,
    /// Port.
    pub port: u16,
    /// Share among records of one priority.
    pub weight: u16,
    /// Lower is used first.
    pub priority: u16,
}

/// An answer and how long it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The answer.
    pub answer: Answer,
    /// Ask again after this long: the TTL within the bounds of the settings.
    pub ttl: Duration,
}

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum DnsError {
    /// The name does not exist, or has no address.
    #[error("no address for `{0}`")]
    NoAddress(Box<str>),
    /// No name server answered usefully.
    #[error("cannot resolve `{name}`: {cause}")]
    Failed {
        /// The name.
        name: Box<str>,
        /// What the resolver says.
        cause: Box<str>,
    },
}
