//! Configuration of `proxy-rewrite`.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::check::{self, Faults};
use super::super::fields::{HeaderEdits, is_name};
use crate::exchange::pattern;

/// Configuration on a route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Prefixes of which the first that the path begins with is cut off before all else; `X-Forwarded-Prefix` tells it to the upstream.
    #[serde(default)]
    pub strip_prefixes: Vec<String>,
    /// Patterns of which the first that is found at the start of the path is cut off in the same way, when no plain prefix is.
    #[serde(default)]
    pub strip_prefixes_regex: Vec<String>,
    /// New path, with variables; a query in it goes before the client's. Goes before `regex_uri`.
    #[schemars(length(min = 1, max = 4096), regex(pattern = r"^/.*"))]
    pub uri: Option<String>,
    /// Pairs of pattern and replacement; the first pattern that is found in the path applies.
    #[schemars(length(min = 2))]
    pub regex_uri: Option<Vec<String>>,
    /// Put in front of the path after all else.
    #[schemars(length(min = 1, max = 4096))]
    pub add_prefix: Option<String>,
    /// Field that tells the upstream the path that `uri` or `regex_uri` has replaced, such as `X-Replaced-Path`.
    pub original_path_header: Option<String>,
    /// New method.
    pub method: Option<Method>,
    /// New host, with variables.
    #[schemars(length(min = 1))]
    pub host: Option<String>,
    /// Fields: an object with `add`, `set` and `remove`, or a plain map, which sets. Variables and `$1` of `regex_uri` are replaced.
    #[serde(default)]
    pub headers: Map<String, Value>,
    /// Refused: the path that was matched is the path that is forwarded.
    #[serde(default)]
    pub use_real_request_uri_unsafe: bool,
}

/// Methods that a request may be given.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs, reason = "they are the methods of RFC 9110 and WebDAV")]
pub(super) enum Method {
    Get,
    Post,
    Put,
    Head,
    Delete,
    Options,
    Mkcol,
    Copy,
    Move,
    Propfind,
    Lock,
    Unlock,
    Patch,
    Trace,
    Purge,
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        self.check_prefixes(faults);
        if let Some(uri) = &self.uri {
            faults.range("uri", uri.len(), 1, 4096);
            if !uri.starts_with('/') {
                faults.add("uri", format!("expected a path that starts with /, got \"{uri}\""));
            }
        }
        if let Some(pairs) = &self.regex_uri {
            if pairs.is_empty() || pairs.len() % 2 == 1 {
                faults.add("regex_uri", format!("expected pairs of pattern and replacement, got {} items", pairs.len()));
            }
            for (index, regex) in pairs.iter().enumerate().step_by(2) {
                if let Err(error) = pattern::compile(regex, "") {
                    faults.add(format!("regex_uri[{index}]"), error);
                }
            }
        }
        let bad = |c: char| c.is_whitespace() || c.is_control() || c == '/';
        if self.host.as_deref().is_some_and(|host| host.is_empty() || host.contains(bad)) {
            faults.add("host", "expected a host with an optional port");
        }
        HeaderEdits::compile(&self.headers, "headers", faults);
        if self.use_real_request_uri_unsafe {
            faults.add("use_real_request_uri_unsafe", "not supported: the path that was matched is the path that is forwarded");
        }
    }
}

impl Config {
    fn check_prefixes(&self, faults: &mut Faults) {
        for (index, prefix) in self.strip_prefixes.iter().enumerate() {
            if !prefix.starts_with('/') {
                faults.add(format!("strip_prefixes[{index}]"), format!("expected a path that starts with /, got \"{prefix}\""));
            }
        }
        for (index, regex) in self.strip_prefixes_regex.iter().enumerate() {
            if let Err(error) = pattern::compile(regex, "") {
                faults.add(format!("strip_prefixes_regex[{index}]"), error);
            }
        }
        if let Some(prefix) = &self.add_prefix {
            faults.range("add_prefix", prefix.len(), 1, 4096);
            if prefix.contains(['?', '#']) {
                faults.add("add_prefix", "expected a path without a query");
            }
        }
        if let Some(name) = self.original_path_header.as_deref().filter(|name| !is_name(name)) {
            faults.add("original_path_header", format!("expected the name of a header field, got \"{name}\""));
        }
    }
}

impl Method {
    pub(super) fn token(self) -> String {
        format!("{self:?}").to_ascii_uppercase()
    }
}
