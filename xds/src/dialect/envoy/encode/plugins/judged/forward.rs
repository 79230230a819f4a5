//! `forward-auth`: Envoy's `ext_authz`, which stands in every listener and is told by each route whom to ask. It knows no route.
//!
//! By itself Envoy asks with the method, path and host of the request and takes 200 alone for consent. A script in the cluster of the service makes the
//! question and the answer those of our agents. Where it cannot run, Envoy takes no such cluster, and what nobody can be asked about is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

use heddle_proto::envoy::config::core::v3 as base;
use heddle_proto::envoy::config::rbac::v3::Principal;
use heddle_proto::envoy::extensions::filters::http::ext_authz::v3 as wire;
use heddle_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use heddle_proto::envoy::r#type::matcher::v3 as matcher;
use heddle_proto::envoy::r#type::v3 as kinds;
use serde_json::Value;
use wire::check_settings::ServiceOverride;
use wire::ext_authz::Services;

use super::super::super::route::Draft;
use super::super::super::wire::{any, exact, formatted, header, regex, span};
use super::super::{Applied, Config, asking, filter, only, text};
use super::{FORBIDDEN, MOST_FIELD, STAYING, said, status};

/// The filter that answers with 403 where the service gives no answer; with the status behind it for another one.
pub(in super::super) const FORWARD_AUTH: &str = "heddle.forward-auth";
/// Where Envoy keeps what the service said.
const SAID: &str = "envoy.filters.http.ext_authz";
/// The one thing of its answer that is kept: the script says it of what the service itself has said. Envoy's own answer to a question by a call of gRPC that
/// nobody took is 200, too, with a status of gRPC.
const CONSENT: &str = "x-heddle-consent";
/// Calls of a service under way at once.
const CALLS: u64 = 1024;
/// What the service is told of a request, by our agents' names.
const TOLD: [(&str, &str); 5] = [
    ("x-forwarded-proto", "%REQ(X-FORWARDED-PROTO)%"),
    ("x-forwarded-method", "%REQ(:METHOD)%"),
    ("x-forwarded-host", "%REQ(:AUTHORITY)%"),
    ("x-forwarded-uri", "%REQ(:PATH)%"),
    ("x-forwarded-for", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"),
];
const LENGTH: &str = "content-length";
/// What is done with the question and with the answer: any answer below 300 is consent that does not say in the words of gRPC that it failed, and fields that it replaces are not left to the client.
const SCRIPT: &str = "\
local named = {@named}
function envoy_on_request(handle)
  local h = handle:headers()
  @edits
  local gone = {}
  for name in pairs(h) do
    if string.sub(name,1,1) ~= ':' and not (@keeps) then table.insert(gone, name) end
  end
  for _, name in ipairs(gone) do h:remove(name) end
end
function envoy_on_response(handle)
  local h = handle:headers()
  h:remove('x-envoy-auth-headers-to-remove')
  for _, name in ipairs({@hidden}) do h:remove(name) end
  h:remove('x-heddle-consent')
  local call = h:get('grpc-status')
  if call ~= nil and call ~= '0' then h:replace(':status','503') end
  if string.sub(h:get(':status'),1,1) == '2' then
    h:replace(':status','200')
    h:replace('x-heddle-consent','yes')
    local gone = {}
    for _, name in ipairs({@replaced}) do
      if h:get(name) == nil then table.insert(gone, name) end
    end
    if #gone > 0 then h:replace('x-envoy-auth-headers-to-remove', table.concat(gone,',')) end
  end
end
";
/// What a refusal always shows.
const SHOWN: [&str; 2] = ["content-type", "content-encoding"];
/// What Envoy would show of every refusal.
const OFFERED: [&str; 2] = ["location", "www-authenticate"];

/// The filter that stands in every listener: where no route says whom to ask, nobody consents.
pub(in super::super) fn asked(name: &str, status: i32) -> HttpFilter {
    let nobody = base::HttpUri {
        uri: "http://nobody".to_owned(),
        http_upstream_type: Some(base::http_uri::HttpUpstreamType::Cluster(format!("{}nobody", asking::ASKED))),
        timeout: span(Duration::from_secs(1)),
    };
    let config = wire::ExtAuthz {
        // The script takes out what is not meant for the service.
        allowed_headers: Some(matcher::ListStringMatcher { patterns: vec![regex(".*")] }),
        status_on_error: Some(kinds::HttpStatus { code: status }),
        services: Some(Services::HttpService(wire::HttpService { server_uri: Some(nobody), ..Default::default() })),
        ..Default::default()
    };
    filter(name, &config, true)
}

/// `forward-auth`.
pub(in super::super) fn forward(config: &Config, draft: &mut Draft) -> Applied {
    known(config)?;
    if !draft.action.upgrade_configs.is_empty() {
        return Err("enable_websocket: Envoy does not show our script the answer to who opens one".to_owned());
    }
    let status = status(config)?;
    let (uri, question) = (text(config, "uri").unwrap_or_default(), Question::read(config)?);
    let number = |field: &str, default: u64| config.get(field).and_then(Value::as_u64).unwrap_or(default);
    let script = question.script(uri, &replaced(config), &names(config, "client_headers"));
    let keepalive = (config.get("keepalive").and_then(Value::as_bool) != Some(false))
        .then(|| Duration::from_millis(number("keepalive_timeout", 60_000)));
    let verify = config.get("ssl_verify").and_then(Value::as_bool) != Some(false);
    let cluster =
        asking::scripted(uri, (verify, CALLS), (script, keepalive), draft).map_err(|reason| format!("uri: {reason}"))?;
    let server = base::HttpUri {
        uri: uri.to_owned(),
        http_upstream_type: Some(base::http_uri::HttpUpstreamType::Cluster(cluster)),
        timeout: span(Duration::from_millis(number("timeout", 3_000))),
    };
    let service = wire::HttpService {
        server_uri: Some(server),
        authorization_request: Some(wire::AuthorizationRequest { headers_to_add: question.made, ..Default::default() }),
        authorization_response: Some(answer(config)),
        ..Default::default()
    };
    let most = u32::try_from(number("max_req_body_size", 64 * 1024 * 1024)).unwrap_or(u32::MAX);
    let body = wire::BufferSettings { max_request_bytes: most, pack_as_bytes: true, ..Default::default() };
    let settings = wire::CheckSettings {
        disable_request_body_buffering: !question.body,
        with_request_body: question.body.then_some(body),
        service_override: Some(ServiceOverride::HttpService(service)),
        ..Default::default()
    };
    let per_route = wire::ExtAuthzPerRoute { r#override: Some(wire::ext_authz_per_route::Override::CheckSettings(settings)) };
    let name = if status == FORBIDDEN { FORWARD_AUTH.to_owned() } else { format!("{FORWARD_AUTH}.{status}") };
    if status != FORBIDDEN {
        draft.further.insert(name.clone(), asked(&name, status));
    }
    draft.filters.extend(any(&per_route).map(|config| (name, config)));
    draft.demands.push(consent());
    Ok(())
}

/// Whether all of it has a counterpart.
fn known(config: &Config) -> Applied {
    let question = [
        "uri",
        "request_method",
        "preserve_request_method",
        "forward_body",
        "request_headers",
        "extra_headers",
        "max_req_body_size",
    ];
    let answer = ["upstream_headers", "client_headers", "status_on_error", "allow_degradation", "preserve_location_header"];
    // How many idle connections are kept, Envoy is not told.
    let way = ["trust_forward_header", "timeout", "keepalive", "keepalive_timeout", "keepalive_pool", "ssl_verify"];
    only(config, &[&question[..], &answer[..], &way[..]].concat())?;
    let is = |field: &str, value: bool| config.get(field).and_then(Value::as_bool) == Some(value);
    if is("allow_degradation", true) {
        return Err("allow_degradation: Envoy takes a failure that the service tells (5xx) for none of its answers".to_owned());
    }
    if is("preserve_location_header", false) {
        return Err("preserve_location_header: Envoy passes a location on as it is".to_owned());
    }
    if is("trust_forward_header", true) {
        return Err("trust_forward_header: Envoy makes these fields anew".to_owned());
    }
    Ok(())
}

/// What goes back from the service.
fn answer(config: &Config) -> wire::AuthorizationResponse {
    let list = |names: &BTreeSet<String>| {
        let patterns: Vec<_> = names.iter().filter(|name| !STAYING.contains(&name.as_str())).map(|name| exact(name)).collect();
        (!patterns.is_empty()).then_some(matcher::ListStringMatcher { patterns })
    };
    let mut shown = names(config, "client_headers");
    let all = shown.contains("*");
    shown.extend(SHOWN.map(str::to_owned));
    wire::AuthorizationResponse {
        allowed_upstream_headers: list(&replaced(config)),
        // None is all to Envoy.
        allowed_client_headers: if all { None } else { list(&shown) },
        dynamic_metadata_from_headers: Some(matcher::ListStringMatcher { patterns: vec![exact(CONSENT)] }),
        ..Default::default()
    }
}

/// The service has consented. A connection keeps the filters that it began with, so that the judge behind them, which is older, has to ask.
fn consent() -> Principal {
    said(SAID, CONSENT, "yes")
}

/// What the service is asked.
struct Question {
    /// `None`: that of the client.
    method: Option<&'static str>,
    body: bool,
    /// Fields that are made for it.
    made: Vec<base::HeaderValue>,
    /// Fields that it gets; `None`: all.
    kept: Option<BTreeSet<String>>,
    /// Whether it is told the host of the request as its own.
    host: bool,
}

impl Question {
    fn read(config: &Config) -> Result<Question, String> {
        let is = |field: &str| config.get(field).and_then(Value::as_bool);
        let posts = text(config, "request_method") == Some("POST");
        let body = is("forward_body").unwrap_or(posts);
        let field = |option: base::HeaderValueOption| option.header.unwrap_or_default();
        let mut made = BTreeMap::from(TOLD.map(|(name, value)| (name.to_owned(), field(formatted(name, value)))));
        for (name, value) in config.get("extra_headers").and_then(Value::as_object).into_iter().flatten() {
            let name = name.to_ascii_lowercase();
            let value = match value {
                _ if STAYING.contains(&name.as_str()) || name == LENGTH => {
                    return Err(format!("extra_headers.{name}: Envoy makes it itself"));
                }
                Value::String(text) if !text.contains('$') => text.clone(),
                Value::Number(number) => number.to_string(),
                _ => return Err(format!("extra_headers.{name}: variables have no counterpart in Envoy")),
            };
            let made_of = field(header(&name, &value, false));
            if made_of.key.len().max(made_of.value.len()) > MOST_FIELD {
                return Err(format!("extra_headers.{name}: Envoy takes no more than {MOST_FIELD} bytes"));
            }
            if !value.is_empty() {
                made.insert(name, made_of);
            }
        }
        let listed = names(config, "request_headers");
        let stays = |name: &&String| STAYING.contains(&name.as_str());
        let mut kept: BTreeSet<String> = listed.iter().filter(|name| !stays(name)).chain(made.keys()).cloned().collect();
        kept.insert(LENGTH.to_owned());
        if body {
            kept.extend(SHOWN.map(str::to_owned));
        }
        Ok(Question {
            method: (is("preserve_request_method") != Some(true)).then_some(if posts { "POST" } else { "GET" }),
            body,
            made: made.into_values().collect(),
            kept: (!listed.contains("*")).then_some(kept),
            host: listed.contains("host"),
        })
    }

    /// What makes the question and the answer those of our agents.
    fn script(&self, uri: &str, upstream: &BTreeSet<String>, client: &BTreeSet<String>) -> String {
        let (authority, path) = asking::parts(uri);
        let mut out = String::new();
        let set = |names: &mut dyn Iterator<Item = &str>| {
            names.map(|name| format!("[{}]=true", quoted(name))).collect::<Vec<_>>().join(",")
        };
        let (set, keeps) = match &self.kept {
            Some(kept) => (set(&mut kept.iter().map(String::as_str)), "named[name]"),
            None => (set(&mut STAYING.into_iter()), "not named[name] and string.sub(name,1,8) ~= 'x-envoy-'"),
        };
        let mut edit = |to: &str, value: &str| {
            let _ = writeln!(out, "  h:replace('{to}',{})", quoted(value));
        };
        edit(":path", &path);
        if !self.host {
            edit(":authority", authority);
        }
        if let Some(method) = self.method {
            edit(":method", method);
        }
        let hidden: Vec<String> = match client.contains("*") {
            true => STAYING.map(quoted).to_vec(),
            false => OFFERED
                .iter()
                .filter(|name| !client.contains(**name) && !upstream.contains(**name))
                .map(|name| quoted(name))
                .collect(),
        };
        let replaced: Vec<String> = upstream.iter().map(|name| quoted(name)).collect();
        SCRIPT
            .replace("@edits", out.trim_start())
            .replace("@named", &set)
            .replace("@keeps", keeps)
            .replace("@hidden", &hidden.join(","))
            .replace("@replaced", &replaced.join(","))
    }
}

/// Fields of its consent that replace those of the request.
fn replaced(config: &Config) -> BTreeSet<String> {
    let mut names = names(config, "upstream_headers");
    names.retain(|name| name != LENGTH && !STAYING.contains(&name.as_str()));
    names
}

/// A list of names of fields.
fn names(config: &Config, field: &str) -> BTreeSet<String> {
    let all = config.get(field).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    all.map(str::to_ascii_lowercase).collect()
}

/// A text of Lua in which nothing stands for something else.
fn quoted(text: &str) -> String {
    let mut out = String::from("'");
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_/.:?=&".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "\\{byte:03}");
        }
    }
    out.push('\'');
    out
}
