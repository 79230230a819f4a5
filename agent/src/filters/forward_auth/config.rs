//! Configuration of `forward-auth`.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::asking::{ClientTls, Reach, check_names};
use super::super::check::{self, Faults};
use super::super::fields::is_name;
use crate::exchange::pattern;

/// Configuration on a route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// URL of the service that decides.
    pub uri: String,
    /// Method by which it is asked; with `POST` it also gets the request body.
    #[serde(default)]
    pub request_method: RequestMethod,
    /// Whether it is asked by the client's method instead.
    #[serde(default)]
    pub preserve_request_method: bool,
    /// Whether it gets the request body; only with `POST` when absent.
    pub forward_body: Option<bool>,
    /// Request fields that it gets besides `X-Forwarded-*`; `*` for all.
    #[serde(default)]
    pub request_headers: Vec<String>,
    /// Fields that are made for it, with variables in their values; `$post_arg.name` is an argument of a form or JSON body.
    #[serde(default)]
    pub extra_headers: Map<String, Value>,
    /// Fields of its consent that replace those of the request; a field that it does not send is taken out of the request.
    #[serde(default)]
    pub upstream_headers: Vec<String>,
    /// Fields of its consent that replace those of the request, as a pattern of their names; all that match are taken out of the request before.
    pub upstream_headers_regex: Option<String>,
    /// Fields of its refusal that the client gets besides `Content-Type`; `*` for all.
    #[serde(default)]
    pub client_headers: Vec<String>,
    /// Names of cookies that it may set for the client with its consent; they replace those of the same name that the upstream sets.
    #[serde(default)]
    pub add_auth_cookies_to_response: Vec<String>,
    /// Whether `Location` of its refusal goes to the client as it is; otherwise a relative one is completed by the service's own address.
    #[serde(default = "yes")]
    pub preserve_location_header: bool,
    /// Where clients are sent (302) whom it answers with 401; may hold variables.
    pub signin_url: Option<String>,
    /// Whether `X-Forwarded-*` of the request are believed instead of made anew.
    #[serde(default)]
    pub trust_forward_header: bool,
    /// Milliseconds that it may take.
    #[serde(default = "timeout")]
    pub timeout: u64,
    /// Whether connections to it are used again.
    #[serde(default = "yes")]
    pub keepalive: bool,
    /// Milliseconds that an idle connection is kept.
    #[serde(default = "keepalive_timeout")]
    pub keepalive_timeout: u64,
    /// Most idle connections that each worker keeps.
    #[serde(default = "keepalive_pool")]
    pub keepalive_pool: usize,
    /// Whether its certificate must be trusted.
    #[serde(default = "yes")]
    pub ssl_verify: bool,
    /// Authorities to trust and a certificate to show.
    pub tls: Option<ClientTls>,
    /// Whether requests pass when it gives no answer.
    #[serde(default)]
    pub allow_degradation: bool,
    /// Status for the client when it gives no answer.
    #[serde(default = "forbidden")]
    pub status_on_error: u16,
    /// Most bytes of a request body that is read for it; 413 above.
    #[serde(default = "max_req_body_size")]
    pub max_req_body_size: u64,
    /// Most bytes of the body of its answer; more counts as no answer.
    #[serde(default = "max_resp_body_size")]
    pub max_resp_body_size: u64,
}

/// Method by which the service is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum RequestMethod {
    /// Without a body.
    #[default]
    Get,
    /// With the request body.
    Post,
}

fn yes() -> bool {
    true
}

fn timeout() -> u64 {
    3000
}

fn keepalive_timeout() -> u64 {
    60_000
}

fn keepalive_pool() -> usize {
    5
}

fn forbidden() -> u16 {
    403
}

fn max_req_body_size() -> u64 {
    64 * 1024 * 1024
}

fn max_resp_body_size() -> u64 {
    1024 * 1024
}

/// Most bytes of an answer that may be asked for: what every request may cost at once.
const MAX_ANSWER: u64 = 64 * 1024 * 1024;

impl Config {
    /// How the service is reached.
    pub(super) fn reach(&self) -> Reach<'_> {
        Reach {
            field: "uri",
            url: &self.uri,
            timeout: self.timeout,
            keepalive: self.keepalive,
            keepalive_timeout: self.keepalive_timeout,
            keepalive_pool: self.keepalive_pool,
            ssl_verify: self.ssl_verify,
            tls: self.tls.as_ref(),
            max_body: self.max_resp_body_size,
        }
    }
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        self.reach().validate(faults);
        check_names("request_headers", &self.request_headers, true, faults);
        check_names("upstream_headers", &self.upstream_headers, false, faults);
        check_names("client_headers", &self.client_headers, true, faults);
        check_names("add_auth_cookies_to_response", &self.add_auth_cookies_to_response, false, faults);
        for (name, value) in &self.extra_headers {
            let path = format!("extra_headers.{name}");
            if !is_name(name) {
                faults.add(path, format!("expected the name of a header field, got \"{name}\""));
            } else if !value.is_string() && !value.is_number() {
                faults.add(path, "wrong type: expected string or number");
            } else if value.as_str().is_some_and(|text| text.chars().any(char::is_control)) {
                faults.add(path, "expected a value without control characters");
            }
        }
        if let Some(Err(error)) = self.upstream_headers_regex.as_deref().map(|regex| pattern::compile(regex, "i")) {
            faults.add("upstream_headers_regex", error);
        }
        if self.signin_url.as_deref().is_some_and(|url| url.is_empty() || url.chars().any(char::is_control)) {
            faults.add("signin_url", "expected a URL without control characters");
        }
        faults.range("status_on_error", self.status_on_error, 200, 599);
        faults.range("max_req_body_size", self.max_req_body_size, 1, u64::MAX);
        faults.range("max_resp_body_size", self.max_resp_body_size, 1, MAX_ANSWER);
    }
}
