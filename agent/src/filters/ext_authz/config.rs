//! Configuration of `ext-authz`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::check::{self, Faults};
use super::super::fields::is_name;
use super::names::Matching;
use crate::http::chars::is_target;
use crate::http::h1::is_authority;

/// Configuration on a route: `upstream_id` or `upstream`. Lists of names hold regular expressions, each of which covers the whole name in any case.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Id of the upstream that decides, as its balancer, health and TLS say.
    #[schemars(with = "Option<String>")]
    pub upstream_id: Option<Value>,
    /// That upstream, written here with the fields of any upstream.
    pub upstream: Option<Value>,
    /// How it is asked: by a request of HTTP like the one in question, or by `envoy.service.auth.v3.Authorization/Check` of gRPC.
    #[serde(default)]
    pub protocol: Protocol,
    /// By gRPC, the authority of the call; when absent the name of the upstream, with `-` for what no host has.
    pub authority: Option<String>,
    /// By gRPC, texts that it is told beside the request.
    #[serde(default)]
    pub context_extensions: BTreeMap<String, String>,
    /// By gRPC, whether it is told the certificate of the client.
    #[serde(default)]
    pub include_peer_certificate: bool,
    /// By gRPC, whether it is told the server name that the client has asked for.
    #[serde(default)]
    pub include_tls_session: bool,
    /// What stands before the path of the request when the upstream is asked.
    #[serde(default)]
    pub path_prefix: String,
    /// Milliseconds that it may take.
    #[serde(default = "timeout")]
    #[schemars(range(min = 1, max = 60_000))]
    pub timeout: u64,
    /// Names of request fields that it gets besides `Host` and `Authorization`; by gRPC it gets these alone, and all when empty.
    #[serde(default)]
    pub allowed_headers: Vec<String>,
    /// Names of request fields that it does not get in any case.
    #[serde(default)]
    pub disallowed_headers: Vec<String>,
    /// Fields that are set for it, by gRPC as metadata of the call, with variables in their values.
    #[serde(default)]
    pub headers_to_add: Map<String, Value>,
    /// Names of fields of its consent that stand instead of those of the request, and that no request carries that passes without an answer. By gRPC the
    /// consent itself says what becomes of its fields, and only the latter holds.
    #[serde(default)]
    pub allowed_upstream_headers: Vec<String>,
    /// Names of fields of its consent that are added to those of the request.
    #[serde(default)]
    pub allowed_upstream_headers_to_append: Vec<String>,
    /// Names of fields of its refusal that the client gets besides `WWW-Authenticate` and `Location`; all of them when empty.
    #[serde(default)]
    pub allowed_client_headers: Vec<String>,
    /// Names of fields of its consent that are added to the answer.
    #[serde(default)]
    pub allowed_client_headers_on_success: Vec<String>,
    /// Gives it the request body, too.
    pub with_request_body: Option<WithBody>,
    /// Whether requests pass when it gives no answer, or one of 500 and above.
    #[serde(default)]
    pub failure_mode_allow: bool,
    /// Whether requests that pass so say `x-envoy-auth-failure-mode-allowed: true` to the upstream.
    #[serde(default)]
    pub failure_mode_allow_header_add: bool,
    /// Status for the client when it gives no answer, or one of 500 and above.
    #[serde(default = "forbidden")]
    #[schemars(range(min = 200, max = 599))]
    pub status_on_error: u16,
}

/// The request body.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WithBody {
    /// Most bytes that are read for it; 413 above.
    #[schemars(range(min = 1, max = 67_108_864))]
    pub max_request_bytes: u64,
    /// Whether it is told the beginning of a longer body, rather than such requests being refused with 413.
    #[serde(default)]
    pub allow_partial_message: bool,
    /// By gRPC, whether it is told as bytes; otherwise as text, in which what is none is replaced.
    #[serde(default)]
    pub pack_as_bytes: bool,
}

/// How an upstream is asked.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Protocol {
    /// By a request like the one in question.
    #[default]
    Http,
    /// By a call.
    Grpc,
}

fn timeout() -> u64 {
    3000
}

fn forbidden() -> u16 {
    403
}

/// Variables of fields by which clients may say who they are.
const OF_CLIENTS: [&str; 3] = ["http_x_forwarded", "http_forwarded", "http_x_real_ip"];
/// Longest prefix of a path.
const MAX_PREFIX: usize = 1024;
/// Most bytes of a body that are held for a question.
const MAX_BODY: u64 = 64 << 20;

impl Config {
    /// The lists of names, with what they are called.
    fn lists(&self) -> [(&'static str, &[String]); 6] {
        [
            ("allowed_headers", &self.allowed_headers),
            ("disallowed_headers", &self.disallowed_headers),
            ("allowed_upstream_headers", &self.allowed_upstream_headers),
            ("allowed_upstream_headers_to_append", &self.allowed_upstream_headers_to_append),
            ("allowed_client_headers", &self.allowed_client_headers),
            ("allowed_client_headers_on_success", &self.allowed_client_headers_on_success),
        ]
    }
}

impl Config {
    /// What is said of gRPC, and what has no meaning there.
    fn validate_protocol(&self, faults: &mut Faults) {
        if self.authority.as_ref().is_some_and(|authority| !is_authority(authority.as_bytes())) {
            faults.add("authority", "expected the name of a host, with a port or without");
        }
        if self.protocol == Protocol::Http {
            return;
        }
        for (list, names) in self.lists().into_iter().skip(3).filter(|(_, names)| !names.is_empty()) {
            let message =
                format!("an answer of gRPC says itself what becomes of its fields, so that {} cannot be chosen", names.len());
            faults.add(list, message);
        }
        if !self.path_prefix.is_empty() {
            faults.add("path_prefix", "by gRPC the path is told as it is");
        }
    }
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        match (&self.upstream_id, &self.upstream) {
            (Some(id), None) if id.is_u64() || id.as_str().is_some_and(|id| !id.is_empty()) => {}
            (Some(_), None) => faults.add("upstream_id", "expected the id of an upstream"),
            (None, Some(upstream)) if upstream.is_object() => {}
            (None, Some(_)) => faults.add("upstream", "wrong type: expected object"),
            _ => faults.add("", "expected one of upstream_id and upstream"),
        }
        let prefix = &self.path_prefix;
        let is_path = prefix.starts_with('/') && prefix.len() <= MAX_PREFIX && is_target(prefix.as_bytes());
        if !prefix.is_empty() && (!is_path || prefix.contains(['?', '#'])) {
            faults.add("path_prefix", "expected a path that starts with /, without ?");
        }
        faults.range("timeout", self.timeout, 1, 60_000);
        faults.range("status_on_error", self.status_on_error, 200, 599);
        for (list, names) in self.lists() {
            if let Err((at, error)) = Matching::new(names) {
                faults.add(at.map_or_else(|| list.to_owned(), |at| format!("{list}[{at}]")), error);
            }
        }
        for (name, value) in &self.headers_to_add {
            let path = format!("headers_to_add.{name}");
            if !is_name(name) {
                faults.add(path, format!("expected the name of a header field, got \"{name}\""));
            } else if value.as_str().is_none_or(|text| text.chars().any(char::is_control)) {
                faults.add(path, "expected a text without control characters");
            } else if value.as_str().is_some_and(|text| OF_CLIENTS.iter().any(|name| text.to_ascii_lowercase().contains(name))) {
                faults.add(
                    path,
                    "what clients say of who they are is not told: X-Forwarded-For and X-Forwarded-Proto are, as they really are",
                );
            }
        }
        self.validate_protocol(faults);
        if let Some(body) = &self.with_request_body {
            faults.range("with_request_body.max_request_bytes", body.max_request_bytes, 1, MAX_BODY);
        }
    }
}
