//! Configuration of `cors`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::check::{self, Faults};
use crate::exchange::pattern;

/// Configuration on a route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Origins that may read: `*`, `**` for all even with credentials, `null`, or `https://a.example,https://b.example`.
    #[schemars(extend("default" = "*"))]
    pub allow_origins: Option<String>,
    /// Methods: `*`, `**` for all even with credentials, or a list with commas; an empty one is not told.
    #[serde(default = "star")]
    pub allow_methods: String,
    /// Request fields: `*`, `**` for what the browser asks for, or a list with commas; an empty one is not told.
    #[serde(default = "star")]
    pub allow_headers: String,
    /// Response fields that scripts may read: `*`, `**` for each that the response has, or a list with commas; none when absent.
    #[serde(default)]
    pub expose_headers: String,
    /// Seconds for which a preflight may be remembered; -1 forbids it.
    #[serde(default = "max_age")]
    pub max_age: i64,
    /// Whether cookies and the like may be sent. Then no list may be `*`.
    #[serde(default)]
    pub allow_credential: bool,
    /// Origins that may read, as patterns.
    #[schemars(length(min = 1))]
    pub allow_origins_by_regex: Option<Vec<String>>,
    /// Origins that may read, as names of lists in the plugin's metadata.
    #[schemars(length(min = 1))]
    pub allow_origins_by_metadata: Option<Vec<String>>,
    /// Origins that may see timings: `*`, `**` or a list with commas.
    pub timing_allow_origins: Option<String>,
    /// Origins that may see timings, as patterns.
    #[schemars(length(min = 1))]
    pub timing_allow_origins_by_regex: Option<Vec<String>>,
    /// Whether only real preflights (`OPTIONS` with `Origin` and `Access-Control-Request-Method`) are answered at once; other `OPTIONS` go upstream.
    #[serde(default)]
    pub only_preflights: bool,
}

/// `plugin_metadata/cors`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Metadata {
    /// Lists of origins by name, each written as `allow_origins`.
    #[serde(default)]
    pub allow_origins: BTreeMap<String, String>,
}

fn star() -> String {
    "*".to_owned()
}

fn max_age() -> i64 {
    5
}

impl Config {
    /// The origins that are listed: all where nothing is said. Patterns and metadata take the place of that, not of what was written.
    pub(super) fn origins(&self) -> Option<&str> {
        let further = self.allow_origins_by_regex.is_some() || self.allow_origins_by_metadata.is_some();
        self.allow_origins.as_deref().or((!further).then_some("*"))
    }
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        let origins = self.origins().unwrap_or("null");
        check_origins("allow_origins", origins, faults);
        if let Some(list) = &self.timing_allow_origins {
            check_origins("timing_allow_origins", list, faults);
        }
        let timing = self.timing_allow_origins.as_deref().unwrap_or_default();
        for (field, value) in [
            ("allow_origins", origins),
            ("allow_methods", self.allow_methods.as_str()),
            ("allow_headers", &self.allow_headers),
            ("expose_headers", &self.expose_headers),
            ("timing_allow_origins", timing),
        ] {
            if self.allow_credential && value == "*" {
                faults.add(field, "you can not set '*' for other option when 'allow_credential' is true");
            }
            if value.chars().any(char::is_control) {
                faults.add(field, "expected a value without control characters");
            }
        }
        for (field, list) in [
            ("allow_origins_by_regex", &self.allow_origins_by_regex),
            ("timing_allow_origins_by_regex", &self.timing_allow_origins_by_regex),
        ] {
            for (index, regex) in list.iter().flatten().enumerate() {
                if let Err(error) = pattern::compile(regex, "") {
                    faults.add(format!("{field}[{index}]"), error);
                }
            }
            check_not_empty(field, list.as_deref(), faults);
        }
        check_not_empty("allow_origins_by_metadata", self.allow_origins_by_metadata.as_deref(), faults);
    }
}

impl check::Config for Metadata {
    fn validate(&self, faults: &mut Faults) {
        for (name, list) in &self.allow_origins {
            check_origins(&format!("allow_origins.{name}"), list, faults);
        }
    }
}

fn check_not_empty(field: &str, list: Option<&[String]>, faults: &mut Faults) {
    if list.is_some_and(<[String]>::is_empty) {
        faults.add(field, "expect array to have at least 1 items");
    }
}

fn check_origins(path: &str, list: &str, faults: &mut Faults) {
    let is_origin = |text: &str| text.split_once("://").is_some_and(|(scheme, host)| !scheme.is_empty() && !host.is_empty());
    if !matches!(list, "*" | "**" | "null") && !list.split(',').all(is_origin) {
        faults.add(path, format!("expected *, **, null or origins with commas between, got \"{list}\""));
    }
}
