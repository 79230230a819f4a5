//! Configuration of `proxy-mirror`.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::super::check::{self, Faults};
use crate::http::chars::is_target;
use crate::outbound::Url;

/// Configuration on a route: `host`, `upstream_id` or `upstream`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Where copies go: `http` or `https`, host and port, without a path.
    pub host: Option<String>,
    /// Id of the upstream that gets the copies, as its balancer, health and timeouts say; one that leads into the mesh gets them by mutual TLS.
    #[schemars(with = "Option<String>")]
    pub upstream_id: Option<Value>,
    /// That upstream, written here with the fields of any upstream.
    pub upstream: Option<Value>,
    /// What stands behind the name of the host that copies name, before its port: `-shadow` lets logs tell them apart.
    #[serde(default)]
    pub host_suffix: String,
    /// Path of copies; that of the request as it goes upstream when absent.
    pub path: Option<String>,
    /// What `path` does: it stands instead of the request's, or before it.
    #[serde(default)]
    pub path_concat_mode: PathMode,
    /// Share of requests that are copied.
    #[serde(default = "all")]
    #[schemars(range(min = 0.00001, max = 1))]
    pub sample_ratio: f64,
    /// Copies the body too.
    #[serde(default = "yes")]
    pub mirror_body: bool,
    /// Longest body in bytes that is copied; requests with a longer one are not.
    #[serde(default = "mebibyte")]
    #[schemars(range(max = 67108864))]
    pub max_body_size: u64,
    /// Seconds that a copy may take, with fractions.
    #[serde(default = "minute")]
    #[schemars(range(min = 0.001, max = 3600))]
    pub timeout: f64,
    /// Copies under way at once, to a `host` on each worker, to an upstream on all of them; those beyond are dropped. Bodies that are still coming take as many times `max_body_size` of memory at most.
    #[serde(default = "under_way")]
    #[schemars(range(min = 1, max = 10000))]
    pub max_in_flight: usize,
    /// Checks the certificate of `host`; an upstream says that itself.
    #[serde(default = "yes")]
    pub ssl_verify: bool,
}

/// What the path of a mirror does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum PathMode {
    /// It stands instead of the request's.
    #[default]
    Replace,
    /// It stands before the request's.
    Prefix,
}

/// Names of hosts have 253 bytes at most.
const MAX_SUFFIX: usize = 64;

fn all() -> f64 {
    1.0
}

fn yes() -> bool {
    true
}

fn mebibyte() -> u64 {
    1 << 20
}

fn minute() -> f64 {
    60.0
}

fn under_way() -> usize {
    64
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        if [self.host.is_some(), self.upstream_id.is_some(), self.upstream.is_some()].iter().filter(|is| **is).count() != 1 {
            faults.add("", "expected one of host, upstream_id and upstream");
        }
        match self.host.as_deref().map(|host| (host, Url::parse(host))) {
            Some((_, Err(why))) => faults.add("host", why),
            Some((host, Ok(url))) if url.target != "/" || host.ends_with('/') => {
                faults.add("host", "expected no path behind the host; use path");
            }
            _ => {}
        }
        if self.upstream_id.as_ref().is_some_and(|id| !id.is_string() && !id.is_u64()) {
            faults.add("upstream_id", "wrong type: expected string or integer");
        }
        if self.upstream.as_ref().is_some_and(|upstream| !upstream.is_object()) {
            faults.add("upstream", "wrong type: expected object");
        }
        let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if self.host_suffix.len() > MAX_SUFFIX || !self.host_suffix.chars().all(is_host) {
            faults.add("host_suffix", "expected at most 64 letters, digits, `-`, `.` and `_`");
        }
        let is_path = |path: &String| path.starts_with('/') && is_target(path.as_bytes()) && !path.contains(['?', '#', '&']);
        if self.path.as_ref().is_some_and(|path| !is_path(path)) {
            faults.add("path", "expected a path that starts with /, without ? and &");
        }
        faults.range("sample_ratio", self.sample_ratio, 0.00001, 1.0);
        faults.range("max_body_size", self.max_body_size, 0, 64 << 20);
        faults.range("timeout", self.timeout, 0.001, 3600.0);
        faults.range("max_in_flight", self.max_in_flight, 1, 10_000);
    }
}
