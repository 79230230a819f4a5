//! What plugins that ask another service over HTTP share: how it is reached, which fields may travel, and complaints that do not flood the log.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use heddle_node::clock;
use heddle_xds::catalog::ConfigFault;
use schemars::JsonSchema;
use serde::Deserialize;

use super::check::{Faults, fault_at};
use super::fields::is_name;
use crate::http::{FieldName, Name};
use crate::net;
use crate::outbound::{CallError, Outbound, Remote, RemoteOptions, Url};

/// TLS towards the service, beyond `ssl_verify`.
#[derive(Debug, Default, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClientTls {
    /// PEM of the authorities that are trusted instead of the system's.
    pub ca: Option<String>,
    /// PEM of the certificate chain that is shown when the service asks for one.
    pub cert: Option<String>,
    /// PEM of the key of `cert`.
    pub key: Option<String>,
}

impl ClientTls {
    /// Adds what is wrong with it, at the field that holds it.
    pub(crate) fn validate(&self, field: &str, faults: &mut Faults) {
        if let Some(ca) = self.ca.as_deref().filter(|text| is_known(text))
            && let Err(error) = net::roots_of_pem(ca)
        {
            faults.add(format!("{field}.ca"), error);
        }
        match (self.cert.as_deref(), self.key.as_deref()) {
            (Some(cert), Some(key)) if is_known(cert) && is_known(key) => {
                if let Err(error) = net::key_pair_of_pem(cert, key) {
                    faults.add(format!("{field}.cert"), error);
                }
            }
            (Some(_), None) => faults.add(format!("{field}.key"), "a certificate needs its key"),
            (None, Some(_)) => faults.add(format!("{field}.cert"), "a key needs its certificate"),
            _ => {}
        }
    }
}

/// How a service is reached, as plugins are configured for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reach<'a> {
    /// Field of the configuration that holds the URL.
    pub field: &'a str,
    pub url: &'a str,
    /// Milliseconds.
    pub timeout: u64,
    pub keepalive: bool,
    /// Milliseconds.
    pub keepalive_timeout: u64,
    pub keepalive_pool: usize,
    pub ssl_verify: bool,
    pub tls: Option<&'a ClientTls>,
    pub max_body: u64,
}

/// Longest time that a service may take, in milliseconds.
const MAX_TIMEOUT: u64 = 60_000;
/// Longest rest of a connection, in milliseconds.
const MAX_REST: u64 = 3_600_000;
/// Most connections that rest, on each worker.
const MAX_POOL: usize = 1000;

impl Reach<'_> {
    /// Adds what is wrong with it.
    pub(crate) fn validate(&self, faults: &mut Faults) {
        if let Err(error) = Url::parse(self.url) {
            faults.add(self.field, error);
        }
        faults.range("timeout", self.timeout, 1, MAX_TIMEOUT);
        faults.range("keepalive_timeout", self.keepalive_timeout, 1000, MAX_REST);
        faults.range("keepalive_pool", self.keepalive_pool, 1, MAX_POOL);
        self.tls.iter().for_each(|tls| tls.validate("tls", faults));
    }

    /// The service.
    ///
    /// # Errors
    /// Why it cannot be asked, at the field of the URL.
    pub(crate) fn remote(&self, outbound: &Outbound) -> Result<Remote, Vec<ConfigFault>> {
        let tls = self.tls.cloned().unwrap_or_default();
        let options = RemoteOptions {
            timeout: Duration::from_millis(self.timeout),
            verify: self.ssl_verify,
            ca: tls.ca,
            identity: tls.cert.zip(tls.key),
            keepalive: self.keepalive,
            keepalive_timeout: Duration::from_millis(self.keepalive_timeout),
            keepalive_pool: self.keepalive_pool,
            max_body: self.max_body,
            ..RemoteOptions::default()
        };
        outbound.remote(self.url, &options).map_err(|error| vec![fault_at(self.field, error)])
    }
}

/// Whether this is the text itself rather than where it is kept.
fn is_known(text: &str) -> bool {
    !text.starts_with('$')
}

/// Names of fields that users list, `*` for all.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// Whether all fields are meant.
    pub all: bool,
    /// Those that are listed.
    pub listed: Vec<FieldName>,
}

impl Names {
    /// Reads a list that has passed [`check_names`].
    pub(crate) fn new(list: &[String]) -> Names {
        let listed = list.iter().filter(|name| *name != "*");
        Names { all: list.iter().any(|name| name == "*"), listed: listed.map(|name| FieldName::new(name.clone())).collect() }
    }
}

/// Adds what is wrong with a list of names of fields; `star` says whether `*` may stand in it.
pub(crate) fn check_names(field: &str, list: &[String], star: bool, faults: &mut Faults) {
    for (at, name) in list.iter().enumerate() {
        if !is_name(name) || (name == "*" && !star) {
            faults.add(format!("{field}[{at}]"), format!("expected the name of a header field, got \"{name}\""));
        }
    }
}

/// Whether a field speaks to the next hop alone, or frames the message: it is never copied from one message into another.
pub(crate) fn stays(id: Name) -> bool {
    matches!(
        id,
        Name::Connection
            | Name::ContentLength
            | Name::Expect
            | Name::Host
            | Name::Http2Settings
            | Name::KeepAlive
            | Name::ProxyAuthenticate
            | Name::ProxyAuthorization
            | Name::ProxyConnection
            | Name::Te
            | Name::Trailer
            | Name::TransferEncoding
            | Name::Upgrade
    )
}

/// At most one line a second about a service, however many requests it fails.
#[derive(Debug, Default)]
pub(crate) struct Complaints {
    /// Second of the last one, Unix time.
    last: AtomicU64,
}

impl Complaints {
    /// Says that a call has failed.
    pub(crate) fn failed(&self, plugin: &str, remote: &Remote, error: &CallError) {
        self.say(plugin, remote, &error.to_string());
    }

    /// Says what is wrong with a service.
    pub(crate) fn say(&self, plugin: &str, remote: &Remote, what: &str) {
        if self.may_speak() {
            tracing::warn!(plugin, service = ?remote, error = what, "the service that a plugin asks gives no usable answer");
        }
    }

    /// Whether nothing has been said within this second.
    pub(crate) fn may_speak(&self) -> bool {
        let second = clock::unix_ms() / 1000;
        self.last.swap(second, Ordering::Relaxed) != second
    }
}
