//! Configuration of `proxy-rewrite`.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::check::{self, Faults};
use super::super::fields::HeaderEdits;
use crate::exchange::pattern;

/// Configuration on a route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// New path, with variables; a query in it goes before the client's. Goes before `regex_uri`.
    #[schemars(length(min = 1, max = 4096), regex(pattern = r"^/.*"))]
    pub uri: Option<String>,
    /// Pairs of pattern and replacement; the first pattern that is found in the path applies.
    #[schemars(length(min = 2))]
    pub regex_uri: Option<Vec<String>>,
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

impl Method {
    pub(super) fn token(self) -> String {
        format!("{self:?}").to_ascii_uppercase()
    }
}
