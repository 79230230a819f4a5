//! Configuration of `ldap-auth`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::check::{self, Faults};
use super::directory::Location;
use crate::net;

/// Configuration on a route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Where the entries of users are: a user is bound as `<uid>=<name>,<base_dn>`.
    pub base_dn: String,
    /// The directory server: `host`, `host:port`, `ldap://host:port` or `ldaps://host:port`.
    pub ldap_uri: String,
    /// Attribute that holds the name of a user in the name of the entry.
    #[serde(default = "uid")]
    pub uid: String,
    /// Whether the connection is TLS from its first byte; also with `ldaps://`.
    #[serde(default)]
    pub use_tls: bool,
    /// Whether a clear connection is turned into TLS before anything is said (StartTLS).
    #[serde(default)]
    pub use_starttls: bool,
    /// Whether the server's certificate must be trusted.
    #[serde(default)]
    pub tls_verify: bool,
    /// PEM of the authorities that are trusted instead of the system's.
    pub ca: Option<String>,
    /// Whether the credentials are taken out of the request before it goes upstream.
    #[serde(default)]
    pub hide_credentials: bool,
    /// What `WWW-Authenticate` names.
    #[serde(default = "realm")]
    pub realm: String,
    /// Milliseconds that one proof may take, connecting included.
    #[serde(default = "timeout")]
    pub timeout: u64,
    /// Most connections to the server at one time, on each node; one more proof fails at once.
    #[serde(default = "max_connections")]
    pub max_connections: usize,
    /// Seconds for which a password that was proven is not proven again; 0 proves each time.
    #[serde(default)]
    pub cache_ttl: u64,
    /// Status for the client when the server gives no answer.
    #[serde(default = "unauthorized")]
    pub status_on_error: u16,
}

/// Configuration on a consumer or credential.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Credential {
    /// Name of the user's entry, written as it is put together: `cn=jack,ou=users,dc=example,dc=org`.
    pub user_dn: String,
}

fn uid() -> String {
    "cn".to_owned()
}

fn realm() -> String {
    "ldap".to_owned()
}

fn timeout() -> u64 {
    10_000
}

fn max_connections() -> usize {
    64
}

fn unauthorized() -> u16 {
    401
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        if self.base_dn.is_empty() || self.base_dn.chars().any(char::is_control) {
            faults.add("base_dn", "expected the name of an entry, for example ou=users,dc=example,dc=org");
        }
        if let Err(error) = Location::parse(&self.ldap_uri) {
            faults.add("ldap_uri", error);
        }
        if self.uid.is_empty() || !self.uid.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte)) {
            faults.add("uid", "expected the name of an attribute, for example cn");
        }
        if self.use_starttls && (self.use_tls || self.ldap_uri.starts_with("ldaps://")) {
            faults.add("use_starttls", "the connection is TLS already; switch off one of them");
        }
        if let Some(Err(error)) = self.ca.as_deref().filter(|ca| !ca.starts_with('$')).map(net::roots_of_pem) {
            faults.add("ca", error);
        }
        if self.realm.contains(|c: char| c.is_control() || c == '"' || c == '\\') {
            faults.add("realm", "expected text without quotes, backslashes and control characters");
        }
        faults.range("timeout", self.timeout, 1, 60_000);
        faults.range("max_connections", self.max_connections, 1, 10_000);
        faults.range("cache_ttl", self.cache_ttl, 0, 3600);
        faults.range("status_on_error", self.status_on_error, 400, 599);
    }
}

impl check::Config for Credential {
    fn validate(&self, faults: &mut Faults) {
        if self.user_dn.is_empty() {
            faults.add("user_dn", "string too short, expected at least 1, got 0");
        }
    }
}
