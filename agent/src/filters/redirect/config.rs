//! Configuration of `redirect`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::check::{self, Faults};
use crate::exchange::pattern;

/// Configuration on a route: exactly one of `uri`, `regex_uri` and `http_to_https`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Where to, with variables.
    #[schemars(length(min = 2))]
    pub uri: Option<String>,
    /// Pattern and replacement; paths in which the pattern is not found go on.
    #[schemars(length(min = 2, max = 2))]
    pub regex_uri: Option<Vec<String>>,
    /// Sends requests that came in clear to `https`, with 301 for GET and HEAD and 308 for all others.
    #[serde(default)]
    pub http_to_https: bool,
    /// Status of the answer, except for `http_to_https`.
    #[serde(default = "ret_code")]
    #[schemars(range(min = 200, max = 599))]
    pub ret_code: u16,
    /// Whether what may not stand in a URI is percent-encoded in `Location`.
    #[serde(default)]
    pub encode_uri: bool,
    /// Whether the client's query is added to `Location`.
    #[serde(default)]
    pub append_query_string: bool,
}

/// `plugin_metadata/redirect`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Metadata {
    /// Port that `http_to_https` sends to; 443, which is left out of the URI, when absent.
    #[schemars(range(min = 1, max = 65535))]
    pub https_port: Option<u16>,
}

fn ret_code() -> u16 {
    302
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        let ways = [self.uri.is_some(), self.regex_uri.is_some(), self.http_to_https];
        if ways.iter().filter(|way| **way).count() != 1 {
            faults.add("", "value should match only one schema: expected one of uri, regex_uri and http_to_https");
        }
        if self.http_to_https && self.append_query_string {
            faults.add("append_query_string", "only one of `http_to_https` and `append_query_string` can be configured.");
        }
        if self.uri.as_deref().is_some_and(|uri| uri.len() < 2) {
            faults.add("uri", "string too short, expected at least 2");
        }
        match self.regex_uri.as_deref() {
            None => {}
            Some([regex, _]) => {
                if let Err(error) = pattern::compile(regex, "") {
                    faults.add("regex_uri[0]", error);
                }
            }
            Some(_) => faults.add("regex_uri", "expected a pattern and a replacement"),
        }
        faults.range("ret_code", self.ret_code, 200, 599);
    }
}

impl check::Config for Metadata {
    fn validate(&self, faults: &mut Faults) {
        if self.https_port == Some(0) {
            faults.add("https_port", "expected 0 to be at least 1");
        }
    }
}
