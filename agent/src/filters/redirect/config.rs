//! Configuration of `redirect`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::check::{self, Faults};
use crate::exchange::pattern;

/// Configuration on a route: exactly one of `uri`, `regex_uri`, `regex_url`, `scheme` and `http_to_https`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Where to, with variables.
    #[schemars(length(min = 2))]
    pub uri: Option<String>,
    /// Pattern and replacement; paths in which the pattern is not found go on.
    #[schemars(length(min = 2, max = 2))]
    pub regex_uri: Option<Vec<String>>,
    /// Pattern and replacement over the whole `scheme://host:port/path?query`; all places where it is found are replaced, and URLs that stay the same go on.
    #[schemars(length(min = 2, max = 2))]
    pub regex_url: Option<Vec<String>>,
    /// Sends requests that came by another scheme to this one, `http` or `https`.
    pub scheme: Option<Scheme>,
    /// Port that `scheme` sends to; none when absent.
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// Whether `scheme` and `regex_url` answer with 301 (308 for methods other than GET) instead of 302 (307).
    #[serde(default)]
    pub permanent: bool,
    /// Sends requests that came in clear to `https`, with 301 for GET and HEAD and 308 for all others.
    #[serde(default)]
    pub http_to_https: bool,
    /// Status of the answer with `uri` and `regex_uri`.
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

/// A scheme to be sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Scheme {
    /// In clear.
    Http,
    /// With TLS.
    Https,
}

impl Scheme {
    /// As URLs have it.
    pub(super) fn text(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    /// The port that URLs of the scheme leave out.
    pub(super) fn usual_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
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
        let patterns = [("regex_uri", self.regex_uri.as_deref()), ("regex_url", self.regex_url.as_deref())];
        let ways =
            [self.uri.is_some(), patterns[0].1.is_some(), patterns[1].1.is_some(), self.scheme.is_some(), self.http_to_https];
        if ways.iter().filter(|way| **way).count() != 1 {
            faults.add(
                "",
                "value should match only one schema: expected one of uri, regex_uri, regex_url, scheme and http_to_https",
            );
        }
        if self.http_to_https && self.append_query_string {
            faults.add("append_query_string", "only one of `http_to_https` and `append_query_string` can be configured.");
        }
        if self.uri.as_deref().is_some_and(|uri| uri.len() < 2) {
            faults.add("uri", "string too short, expected at least 2");
        }
        for (path, pair) in patterns {
            match pair {
                None => {}
                Some([regex, _]) => {
                    if let Err(error) = pattern::compile(regex, "") {
                        faults.add(format!("{path}[0]"), error);
                    }
                }
                Some(_) => faults.add(path, "expected a pattern and a replacement"),
            }
        }
        if self.port.is_some() && self.scheme.is_none() {
            faults.add("port", "expected scheme beside it");
        }
        if self.port == Some(0) {
            faults.add("port", "expected 0 to be at least 1");
        }
        if self.permanent && self.scheme.is_none() && self.regex_url.is_none() {
            faults.add("permanent", "expected scheme or regex_url beside it; the others have ret_code");
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
