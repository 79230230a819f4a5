//! Configuration of `headers`.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::check::{self, Faults};
use super::super::fields::{HeaderEdits, is_name};
use crate::http::chars::is_value;

/// Configuration on a route; at least one field.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Config {
    /// Fields of the request by name, with variables; an empty value removes. `Host` may be set.
    pub custom_request_headers: Map<String, Value>,
    /// Fields of the response by name, with variables; an empty value removes.
    pub custom_response_headers: Map<String, Value>,
    /// Hosts that may be asked for, with or without a port; requests for others are answered with 500.
    pub allowed_hosts: Vec<String>,
    /// Fields of which the first that is there says which host was asked for, instead of `Host`.
    pub hosts_proxy_headers: Vec<String>,
    /// Fields whose value says that the client came by TLS to a proxy in front, such as `{"X-Forwarded-Proto": "https"}`.
    pub ssl_proxy_headers: Map<String, Value>,
    /// Seconds for which browsers must come by TLS (`Strict-Transport-Security`); 0 for no such field. Told over TLS only.
    pub sts_seconds: u64,
    /// Whether that holds for all subdomains too.
    pub sts_include_subdomains: bool,
    /// Whether browsers may put the host on their preload lists.
    pub sts_preload: bool,
    /// Whether it is told to clients that came in clear, too.
    pub force_sts_header: bool,
    /// Whether the page may not be shown in frames (`X-Frame-Options: DENY`).
    pub frame_deny: bool,
    /// Another value of `X-Frame-Options`; goes before `frame_deny`.
    pub custom_frame_options_value: String,
    /// Whether browsers may not guess media types (`X-Content-Type-Options: nosniff`).
    pub content_type_nosniff: bool,
    /// Whether old browsers filter scripts out of requests (`X-XSS-Protection: 1; mode=block`).
    pub browser_xss_filter: bool,
    /// Another value of `X-XSS-Protection`; goes before `browser_xss_filter`.
    pub custom_browser_xss_value: String,
    /// Value of `Content-Security-Policy`.
    pub content_security_policy: String,
    /// Value of `Content-Security-Policy-Report-Only`.
    pub content_security_policy_report_only: String,
    /// Value of `Public-Key-Pins`, told over TLS only; browsers have given it up.
    pub public_key: String,
    /// Value of `Referrer-Policy`.
    pub referrer_policy: String,
    /// Value of `Permissions-Policy`.
    pub permissions_policy: String,
    /// Whether this is a developer's machine: `allowed_hosts`, `sts_seconds` and `public_key` have no effect.
    pub is_development: bool,
    /// Refused: the plugin `cors` does it.
    #[schemars(skip)]
    access_control_allow_credentials: Option<Value>,
    /// Refused: the plugin `cors` does it.
    #[schemars(skip)]
    access_control_allow_headers: Option<Value>,
    /// Refused: the plugin `cors` does it.
    #[schemars(skip)]
    access_control_allow_methods: Option<Value>,
    /// Refused: the plugin `cors` does it.
    #[schemars(skip)]
    access_control_allow_origin_list: Option<Value>,
    /// Refused: the plugin `cors` does it.
    #[schemars(skip)]
    access_control_allow_origin_list_regex: Option<Value>,
    /// Refused: the plugin `cors` does it.
    #[schemars(skip)]
    access_control_expose_headers: Option<Value>,
    /// Refused: the plugin `cors` does it.
    #[schemars(skip)]
    access_control_max_age: Option<Value>,
    /// Refused: the plugin `cors` does it.
    #[schemars(skip)]
    add_vary_header: Option<Value>,
}

impl Config {
    /// Texts that become values of fields as they are.
    fn texts(&self) -> [(&'static str, &str); 8] {
        [
            ("custom_frame_options_value", &self.custom_frame_options_value),
            ("custom_browser_xss_value", &self.custom_browser_xss_value),
            ("content_security_policy", &self.content_security_policy),
            ("content_security_policy_report_only", &self.content_security_policy_report_only),
            ("public_key", &self.public_key),
            ("referrer_policy", &self.referrer_policy),
            ("permissions_policy", &self.permissions_policy),
            ("allowed_hosts", ""),
        ]
    }

    /// What of Traefik's middleware `cors` does here, by our field.
    fn elsewhere(&self) -> [(&'static str, &'static str, bool); 8] {
        [
            ("access_control_allow_credentials", "allow_credential", self.access_control_allow_credentials.is_some()),
            ("access_control_allow_headers", "allow_headers", self.access_control_allow_headers.is_some()),
            ("access_control_allow_methods", "allow_methods", self.access_control_allow_methods.is_some()),
            ("access_control_allow_origin_list", "allow_origins", self.access_control_allow_origin_list.is_some()),
            (
                "access_control_allow_origin_list_regex",
                "allow_origins_by_regex",
                self.access_control_allow_origin_list_regex.is_some(),
            ),
            ("access_control_expose_headers", "expose_headers", self.access_control_expose_headers.is_some()),
            ("access_control_max_age", "max_age", self.access_control_max_age.is_some()),
            ("add_vary_header", "allow_origins, which adds Vary by itself", self.add_vary_header.is_some()),
        ]
    }

    /// Whether there is nothing that it does.
    fn does_nothing(&self) -> bool {
        let maps = [&self.custom_request_headers, &self.custom_response_headers].iter().all(|map| map.is_empty());
        let switches = [self.frame_deny, self.content_type_nosniff, self.browser_xss_filter].iter().all(|on| !on);
        let texts = self.texts().iter().all(|(_, text)| text.is_empty());
        maps && switches && texts && self.allowed_hosts.is_empty() && self.sts_seconds == 0
    }
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        let misplaced: Vec<_> = self.elsewhere().into_iter().filter(|(_, _, given)| *given).collect();
        for (field, ours, _) in &misplaced {
            faults.add(*field, format!("not here: the plugin cors does it, with its field {ours}"));
        }
        if misplaced.is_empty() && self.does_nothing() {
            faults.add("", "expected at least one field that does something");
        }
        edits(&self.custom_request_headers, "custom_request_headers", faults);
        edits(&self.custom_response_headers, "custom_response_headers", faults);
        for (path, text) in self.texts() {
            if !is_value(text.as_bytes()) {
                faults.add(path, "expected a value without control characters");
            }
        }
        for (index, host) in self.allowed_hosts.iter().enumerate() {
            if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '/') {
                faults.add(format!("allowed_hosts[{index}]"), "expected a host with an optional port");
            }
        }
        for (index, name) in self.hosts_proxy_headers.iter().enumerate().filter(|(_, name)| !is_name(name)) {
            faults.add(format!("hosts_proxy_headers[{index}]"), format!("expected the name of a header field, got \"{name}\""));
        }
        for (name, value) in &self.ssl_proxy_headers {
            if !is_name(name) || !value.is_string() {
                faults.add(format!("ssl_proxy_headers.{name}"), "expected the name of a header field and a text");
            }
        }
    }
}

/// The edits of a map in which an empty value removes.
pub(super) fn edits(map: &Map<String, Value>, path: &str, faults: &mut Faults) -> HeaderEdits {
    let removes = |value: &Value| value.as_str().is_some_and(str::is_empty);
    let removed = map.iter().filter(|(_, value)| removes(value)).map(|(name, _)| Value::from(name.as_str())).collect::<Vec<_>>();
    let set = map.iter().filter(|(_, value)| !removes(value)).map(|(name, value)| (name.clone(), value.clone()));
    let mut source = Map::new();
    source.insert("set".to_owned(), Value::Object(set.collect()));
    source.insert("remove".to_owned(), Value::Array(removed));
    HeaderEdits::compile(&source, path, faults)
}
