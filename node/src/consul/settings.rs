//! How Consul is reached: servers, credentials, consistency. It opens nothing.

use std::path::PathBuf;
use std::time::Duration;

use http::Uri;

use crate::config::{Secret, Section};

/// Where an agent of Consul listens on every host that has one.
const DEFAULT_ADDRESS: &str = "http://127.0.0.1:8500";
/// How long a blocking query waits for a change: Consul's own default. An agent that is gone without a word is noticed after it.
const DEFAULT_WAIT: Duration = Duration::from_secs(5 * 60);
/// The longest that Consul waits (it cuts what is longer).
const LONGEST_WAIT: Duration = Duration::from_secs(10 * 60);
/// A connection, and an answer that does not wait for a change.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// Blocking queries at a time. Consul takes 200 connections of one host (`limits.http_max_conns_per_client`); the rest is for others on it.
const DEFAULT_QUERIES: u32 = 150;
/// Servers that are tried in turn.
const MOST_SERVERS: usize = 16;

/// How fresh answers must be (<https://developer.hashicorp.com/consul/api-docs/features/consistency>).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Consistency {
    /// The leader answers, without asking the others whether it still is.
    #[default]
    Default,
    /// Any server answers, also without a leader, and may be behind.
    Stale,
    /// The leader answers after it has asked the others.
    Consistent,
}

/// TLS towards Consul.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsulTls {
    /// PEM of trusted roots.
    pub ca_file: Option<PathBuf>,
    /// PEM chain and key that are shown to Consul.
    pub client: Option<(PathBuf, PathBuf)>,
    /// Whether the server's certificate is verified.
    pub verify: bool,
    /// The name that it must have, instead of the host of the address.
    pub server_name: Option<String>,
}

impl Default for ConsulTls {
    fn default() -> ConsulTls {
        ConsulTls { ca_file: None, client: None, verify: true, server_name: None }
    }
}

/// How Consul is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsulSettings {
    /// `http://` or `https://`, host, port; tried in turn.
    pub addresses: Vec<String>,
    /// The ACL token.
    pub token: Option<Secret>,
    /// A file with the ACL token; read again when Consul refuses the one that is known.
    pub token_file: Option<PathBuf>,
    /// Instead of the agent's own.
    pub datacenter: Option<String>,
    /// Consul Enterprise alone has them.
    pub namespace: Option<String>,
    /// How fresh answers must be.
    pub consistency: Consistency,
    /// How long a blocking query waits for a change.
    pub wait: Duration,
    /// A connection, and an answer that does not wait for a change.
    pub timeout: Duration,
    /// Blocking queries at a time; more take turns.
    pub max_queries: u32,
    /// TLS, for `https://`.
    pub tls: ConsulTls,
}

impl Default for ConsulSettings {
    fn default() -> ConsulSettings {
        ConsulSettings {
            addresses: vec![DEFAULT_ADDRESS.to_owned()],
            token: None,
            token_file: None,
            datacenter: None,
            namespace: None,
            consistency: Consistency::default(),
            wait: DEFAULT_WAIT,
            timeout: DEFAULT_TIMEOUT,
            max_queries: DEFAULT_QUERIES,
            tls: ConsulTls::default(),
        }
    }
}

impl ConsulSettings {
    /// A Consul without credentials at this address.
    #[must_use]
    pub fn at(address: impl Into<String>) -> ConsulSettings {
        ConsulSettings { addresses: vec![address.into()], ..ConsulSettings::default() }
    }

    /// Reads the keys of one section.
    pub fn read(section: &mut Section<'_>) -> ConsulSettings {
        let defaults = ConsulSettings::default();
        let addresses = addresses(section).unwrap_or(defaults.addresses);
        let (token, token_file) = (section.secret("token"), section.path("token_file"));
        if token.is_some() && token_file.is_some() {
            section.mistake("token", "expected either `token` or `token_file`, found both");
        }
        if token.as_ref().is_some_and(|token| !token.reveal().bytes().all(|byte| byte.is_ascii_graphic())) {
            section.mistake("token", "expected visible ASCII characters, as it travels in a header");
        }
        let words = [("default", Consistency::Default), ("stale", Consistency::Stale), ("consistent", Consistency::Consistent)];
        let tls = section.nested("tls", tls);
        let secure = addresses.iter().any(|address| address.starts_with("https:"));
        if secure && tls.verify && tls.ca_file.is_none() {
            section.mistake(
                "tls",
                "expected `ca_file` with the roots of Consul's certificates (or `verify: false`), as an address says https",
            );
        }
        ConsulSettings {
            addresses,
            token,
            token_file,
            datacenter: section.name("datacenter"),
            namespace: section.name("namespace"),
            consistency: section.choice("consistency", &words).unwrap_or_default(),
            wait: bounded(section, "wait", Duration::from_secs(1)..=LONGEST_WAIT).unwrap_or(DEFAULT_WAIT),
            timeout: bounded(section, "timeout", Duration::from_millis(100)..=Duration::from_secs(60)).unwrap_or(DEFAULT_TIMEOUT),
            max_queries: section.u32("max_queries", 1..=10_000).unwrap_or(DEFAULT_QUERIES),
            tls,
        }
    }
}

fn addresses(section: &mut Section<'_>) -> Option<Vec<String>> {
    let expected = "http:// or https:// with a host and a port (http://127.0.0.1:8500)";
    let one = section.has("address");
    let several = section.has("addresses");
    if one && several {
        section.mistake("address", "expected either `address` or `addresses`, found both");
    }
    let valid = |text: &str| split(text).is_ok().then(|| text.to_owned());
    if one {
        let address = section.name("address")?;
        if valid(&address).is_none() {
            section.mistake("address", format!("expected {expected}, found `{address}`"));
        }
        return Some(vec![address]);
    }
    let found = section.parsed_list("addresses", expected, valid)?;
    if found.is_empty() || found.len() > MOST_SERVERS {
        section.mistake("addresses", format!("expected 1 to {MOST_SERVERS} addresses, found {}", found.len()));
        return None;
    }
    Some(found)
}

fn bounded(section: &mut Section<'_>, key: &'static str, range: std::ops::RangeInclusive<Duration>) -> Option<Duration> {
    let found = section.duration(key)?;
    if !range.contains(&found) {
        section.mistake(key, format!("expected {:?} to {:?}, found {found:?}", range.start(), range.end()));
        return None;
    }
    Some(found)
}

fn tls(section: &mut Section<'_>) -> ConsulTls {
    let client = match (section.path("cert_file"), section.path("key_file")) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => {
            section.mistake("cert_file", "expected `cert_file` and `key_file` together");
            None
        }
    };
    ConsulTls {
        ca_file: section.path("ca_file"),
        client,
        verify: section.bool("verify").unwrap_or(true),
        server_name: section.name("server_name"),
    }
}

/// Whether it is TLS, the host without brackets, and the port of an address.
pub(super) fn split(address: &str) -> Result<(bool, String, u16), String> {
    let uri: Uri = address.parse().map_err(|_| format!("`{address}` is not a URL"))?;
    let secure = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(format!("`{address}` begins neither with http:// nor with https://")),
    };
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(format!("`{address}` has a path; expected a host and a port alone"));
    }
    let host = uri.host().filter(|host| !host.is_empty()).ok_or(format!("`{address}` has no host"))?;
    let port = uri.port_u16().unwrap_or(if secure { 8501 } else { 8500 });
    Ok((secure, host.trim_matches(['[', ']']).to_owned(), port))
}
