//! What is done with the requests of a route: sent to clusters, sent elsewhere, or answered. It knows neither matchers nor filters.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::super::piece::{Deed, Mirror, Path, Target};
use super::super::read::{Fault, Fields, Read};
use super::headers::{is_plain, literal};
use super::matching::{escaped, regex};
use super::retry::{self, Retry};
use super::{ANY_CASE, mirror};
use crate::model::HashOn;

/// Envoy's own default.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Longest body of an answer of a route, as Envoy's default.
const MAX_BODY: usize = 4096;

/// The address of the client.
const ADDRESS: &str = "remote_addr";
/// Behind every plugin of ours that refuses requests.
const LAST: i64 = 1;

/// What a route does.
#[derive(Debug, Default)]
pub(crate) struct Action {
    pub(crate) plugins: Deed,
    /// Of the plugin that changes requests: path and host. Fields are added by whoever knows them.
    pub(crate) rewrite: Map<String, Value>,
    pub(crate) targets: Vec<Target>,
    pub(crate) mirrors: Vec<Mirror>,
    pub(crate) own_host: bool,
    pub(crate) hash: Option<HashOn>,
    pub(crate) timeout: Option<Duration>,
    /// Of a whole exchange.
    pub(crate) whole: Option<Duration>,
    pub(crate) idle: Option<Duration>,
    pub(crate) websocket: Option<bool>,
    /// How often to try; where it does not say, its virtual host is asked.
    pub(crate) retry: Option<Retry>,
}

/// Reads the action of a route.
pub(crate) fn read(fields: &mut Fields<'_>, path: &Path) -> Read<Action> {
    let mut found = Vec::new();
    found.extend(fields.message("route", |route| forward(route, path))?);
    found.extend(fields.message("redirect", |redirect| self::redirect(redirect, path))?);
    found.extend(fields.message("direct_response", direct)?);
    fields.refuse("filter_action", "is not supported")?;
    fields.refuse("non_forwarding_action", "is not supported: it is for servers of gRPC")?;
    match found.pop() {
        Some(action) if found.is_empty() => Ok(action),
        _ => Err(Fault::new("", "expected exactly one of route, redirect and direct_response")),
    }
}

/// Reads a `RouteAction`.
fn forward(fields: &mut Fields<'_>, path: &Path) -> Read<Action> {
    let mut action = Action { targets: targets(fields)?, ..Action::default() };
    fields.refuse("metadata_match", "choosing endpoints by metadata is not supported")?;
    fields.choice("cluster_not_found_response_code", &[("SERVICE_UNAVAILABLE", 0, ())])?;
    fields.choice("priority", &[("DEFAULT", 0, ())])?;
    fields.refuse("rate_limits", "the global rate limit service is not supported: use local_ratelimit")?;
    fields.ignore(&["include_vh_rate_limits", "early_data_policy", "append_x_forwarded_host"]);
    fields.refuse("hedge_policy", "is not supported")?;
    fields.refuse("internal_redirect_policy", "is not supported: redirects go to the client")?;
    fields.refuse("retry_policy_typed_config", "is not supported: use retry_policy")?;
    fields.refuse("path_rewrite_policy", "is not supported: use prefix_rewrite or regex_rewrite")?;
    fields.refuse("max_grpc_timeout", "is not supported: use timeout")?;
    fields.refuse("grpc_timeout_offset", "is not supported: use timeout")?;
    action.mirrors = mirror::read(fields)?;
    rewrite_path(fields, path, &mut action.rewrite)?;
    rewrite_host(fields, &mut action)?;
    action.hash = by_one(fields.list("hash_policy", hash)?)?;
    action.timeout = match fields.duration("timeout")? {
        None => Some(TIMEOUT),
        Some(limit) => Some(limit).filter(|limit| !limit.is_zero()),
    };
    action.idle = fields.duration("idle_timeout")?;
    let whole = fields.message("max_stream_duration", |limit| {
        limit.refuse("grpc_timeout_header_max", "is not supported: use timeout")?;
        limit.refuse("grpc_timeout_header_offset", "is not supported: use timeout")?;
        limit.duration("max_stream_duration")
    })?;
    if let Some(whole) = whole {
        // Whatever it says: where it stands, Envoy does not look at the other one.
        action.timeout = None;
        action.whole = whole.filter(|limit| !limit.is_zero());
    }
    for upgrade in fields.list("upgrade_configs", upgrade)? {
        action.websocket = Some(upgrade);
    }
    action.retry = fields.message("retry_policy", retry::read)?;
    Ok(action)
}

/// Reads an upgrade that is allowed or not; only WebSocket is known.
pub(crate) fn upgrade(fields: &mut Fields<'_>) -> Read<bool> {
    let kind = fields.name("upgrade_type")?;
    fields.refuse("filters", "filters of upgrades are not supported")?;
    fields.refuse("connect_config", "CONNECT is not supported")?;
    if !kind.eq_ignore_ascii_case("websocket") {
        return Err(Fault::new("upgrade_type", format!("{kind} is not supported; supported is websocket")));
    }
    Ok(fields.flag("enabled")?.unwrap_or(true))
}

fn targets(fields: &mut Fields<'_>) -> Read<Vec<Target>> {
    fields.refuse("cluster_header", "is not supported: name clusters")?;
    fields.refuse("cluster_specifier_plugin", "is not supported: name clusters")?;
    fields.refuse("inline_cluster_specifier_plugin", "is not supported: name clusters")?;
    let single = fields.text("cluster")?.map(|cluster| vec![Target { cluster: cluster.into(), weight: 1 }]);
    let weighted = fields.message("weighted_clusters", |weighted| {
        // Weights that do not sum up to what is said were an error once; now their own sum counts.
        weighted.ignore(&["total_weight", "runtime_key_prefix"]);
        weighted.refuse("header_name", "choosing by a header is not supported")?;
        weighted.refuse("use_hash_policy", "choosing by the hash is not supported")?;
        weighted.list("clusters", |one| {
            for name in
                ["request_headers_to_add", "request_headers_to_remove", "response_headers_to_add", "response_headers_to_remove"]
            {
                one.refuse(name, "edits for one of several clusters are not supported: put them on the route")?;
            }
            one.refuse("typed_per_filter_config", "filters for one of several clusters are not supported: put it on the route")?;
            one.refuse("host_rewrite_literal", "is not supported for one of several clusters: put it on the route")?;
            one.refuse("metadata_match", "choosing endpoints by metadata is not supported")?;
            one.refuse("cluster_header", "is not supported: name clusters")?;
            Ok(Target { cluster: one.name("name")?, weight: one.small("weight")?.unwrap_or(0) })
        })
    })?;
    match (single, weighted) {
        (Some(targets), None) => Ok(targets),
        (None, Some(targets)) if targets.iter().any(|target| target.weight > 0) => Ok(targets),
        (None, Some(_)) => Err(Fault::new("weighted_clusters", "expected a weight above zero")),
        _ => Err(Fault::new("cluster", "expected exactly one of cluster and weighted_clusters")),
    }
}

/// A text that becomes part of a head.
fn plain<'t>(fields: &mut Fields<'t>, name: &str) -> Read<Option<&'t str>> {
    let text = fields.text(name)?;
    text.map_or(Ok(()), is_plain).map_err(|reason| Fault::new(name, reason))?;
    Ok(text)
}

/// Reads a pattern and what stands instead of it, as our plugins write both.
fn substitution(fields: &mut Fields<'_>) -> Read<(String, String)> {
    let pattern = fields.required("pattern", regex)?;
    let text = plain(fields, "substitution")?.unwrap_or_default();
    if !pattern.starts_with('^') {
        return Err(Fault::new(
            "pattern.regex",
            "expected a pattern that starts with `^`: it is replaced once, at the beginning",
        ));
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, if c == '\\' { chars.next() } else { None }) {
            ('\\', Some(digit)) if digit.is_ascii_digit() => out.push_str(&format!("${{{digit}}}")),
            ('\\', Some('\\')) => out.push('\\'),
            ('\\', _) => return Err(Fault::new("substitution", "expected a digit or a backslash behind a backslash")),
            ('$', _) => out.push_str("\\$"),
            (c, _) => out.push(c),
        }
    }
    Ok((pattern, out))
}

/// What stands instead of the prefix that a route matched.
fn instead_of_prefix(path: &Path, new: &str) -> Read<(String, String)> {
    let (prefix, behind) = match path {
        Path::Prefix(prefix) => (prefix, ""),
        Path::Below(prefix) => (prefix, ""),
        Path::Exact(whole) => (whole, "$"),
        Path::Pattern(pattern) if pattern.starts_with(ANY_CASE) => {
            let reason = "needs a match in which the case of letters counts: leave case_sensitive out";
            return Err(Fault::new("prefix_rewrite", reason));
        }
        Path::Pattern(_) => return Err(Fault::new("prefix_rewrite", "needs a route that matches a prefix or a path")),
    };
    Ok((format!("^{}{behind}", escaped(prefix)), literal(new)))
}

fn rewrite_path(fields: &mut Fields<'_>, path: &Path, rewrite: &mut Map<String, Value>) -> Read<()> {
    let prefix = plain(fields, "prefix_rewrite")?.map(|new| instead_of_prefix(path, new)).transpose()?;
    let regex = fields.message("regex_rewrite", substitution)?;
    match (prefix, regex) {
        (None, None) => Ok(()),
        (Some((pattern, new)), None) | (None, Some((pattern, new))) => {
            rewrite.insert("regex_uri".to_owned(), json!([pattern, new]));
            Ok(())
        }
        (Some(_), Some(_)) => Err(Fault::new("prefix_rewrite", "excludes regex_rewrite")),
    }
}

fn rewrite_host(fields: &mut Fields<'_>, action: &mut Action) -> Read<()> {
    let mut hosts = Vec::new();
    if let Some(host) = fields.text("host_rewrite_literal")? {
        if host.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/') {
            return Err(Fault::new("host_rewrite_literal", format!("expected a host with an optional port, found {host:.100?}")));
        }
        hosts.push(literal(host));
    }
    if let Some(header) = fields.text("host_rewrite_header")? {
        let variable = super::matching::variable(header).map_err(|reason| Fault::new("host_rewrite_header", reason))?;
        hosts.push(format!("${{{variable}}}"));
    }
    fields.refuse("host_rewrite_path_regex", "is not supported: use host_rewrite_literal")?;
    action.own_host = fields.is_on("auto_host_rewrite")?;
    if hosts.len() + usize::from(action.own_host) > 1 {
        return Err(Fault::new("host_rewrite_literal", "excludes other rewrites of the host"));
    }
    if let Some(host) = hosts.pop() {
        action.rewrite.insert("host".to_owned(), json!(host));
    }
    Ok(())
}

/// What requests are led by: one thing, and where a request lacks it the address of the client, as here in any case.
fn by_one(policies: Vec<(HashOn, bool)>) -> Read<Option<HashOn>> {
    let address = HashOn::Var(ADDRESS.into());
    match policies.as_slice() {
        [] => Ok(None),
        [(on, _)] | [(on, true), ..] if policies.iter().skip(1).all(|(other, _)| *other == address) => Ok(Some(on.clone())),
        _ => Err(Fault::new("hash_policy", "expected one, or a terminal one with source_ip behind it")),
    }
}

/// Reads a `HashPolicy`, and whether those behind it are only for requests that lack what it wants.
fn hash(fields: &mut Fields<'_>) -> Read<(HashOn, bool)> {
    let terminal = fields.is_on("terminal")?;
    fields.refuse("filter_state", "is not supported")?;
    let mut found = Vec::new();
    found.extend(fields.message("header", |header| {
        header.refuse("regex_rewrite", "is not supported")?;
        Ok(HashOn::Header(header.name("header_name")?))
    })?);
    found.extend(fields.message("cookie", |cookie| {
        cookie.refuse("ttl", "making cookies is not supported: hash by one that clients have")?;
        cookie.ignore(&["path", "attributes"]);
        Ok(HashOn::Cookie(cookie.name("name")?))
    })?);
    found.extend(fields.message("query_parameter", |query| Ok(HashOn::Var(format!("arg_{}", query.name("name")?).into())))?);
    found.extend(fields.message("connection_properties", |connection| {
        if !connection.is_on("source_ip")? {
            return Err(Fault::new("source_ip", "expected true"));
        }
        Ok(HashOn::Var(ADDRESS.into()))
    })?);
    match found.pop() {
        Some(on) if found.is_empty() => Ok((on, terminal)),
        _ => Err(Fault::new("", "expected exactly one of header, cookie, query_parameter and connection_properties")),
    }
}

/// Reads a `RedirectAction`.
fn redirect(fields: &mut Fields<'_>, path: &Path) -> Read<Action> {
    let codes = [
        ("MOVED_PERMANENTLY", 0, 301),
        ("FOUND", 1, 302),
        ("SEE_OTHER", 2, 303),
        ("TEMPORARY_REDIRECT", 3, 307),
        ("PERMANENT_REDIRECT", 4, 308),
    ];
    let status = fields.choice("response_code", &codes)?.unwrap_or(301);
    let https = fields.is_on("https_redirect")?;
    let scheme = plain(fields, "scheme_redirect")?.map(literal);
    let host = plain(fields, "host_redirect")?.map(literal);
    let port = fields.small("port_redirect")?.filter(|port| *port > 0);
    if https && scheme.is_some() {
        return Err(Fault::new("scheme_redirect", "excludes https_redirect"));
    }
    let scheme = scheme.or(https.then(|| "https".to_owned()));
    // A port that the client named goes with a change of host, and the usual one of a scheme with that.
    let host = match (host, port, scheme.as_deref()) {
        (Some(host), None, _) => host,
        (Some(host), Some(port), _) => format!("{host}:{port}"),
        (None, Some(port), _) => format!("${{host}}:{port}"),
        (None, None, None) => "${http_host}".to_owned(),
        (None, None, Some("http")) => "${host_leaving_https}".to_owned(),
        (None, None, Some(_)) => "${host_leaving_http}".to_owned(),
    };
    let scheme = scheme.unwrap_or_else(|| "${forwarded_proto}".to_owned());
    let strip = fields.is_on("strip_query")?;
    let mut config = json!({"ret_code": status, "append_query_string": !strip});
    let whole = plain(fields, "path_redirect")?;
    let prefix = plain(fields, "prefix_rewrite")?.map(|new| instead_of_prefix(path, new)).transpose()?;
    let regex = fields.message("regex_rewrite", substitution)?;
    match (whole, prefix, regex) {
        (None, None, None) => config["uri"] = json!(format!("{scheme}://{host}${{uri}}")),
        (Some(new), None, None) => {
            config["uri"] = json!(format!("{scheme}://{host}{}", literal(new)));
            if new.contains('?') {
                config["append_query_string"] = json!(false);
            }
        }
        (None, Some((pattern, new)), None) => config["regex_uri"] = json!([pattern, format!("{scheme}://{host}{new}")]),
        (None, None, Some(_)) => {
            return Err(Fault::new("regex_rewrite", "is not supported here: use prefix_rewrite or path_redirect"));
        }
        _ => return Err(Fault::new("path_redirect", "excludes other rewrites of the path")),
    }
    Ok(Action { plugins: vec![("redirect", config)], ..Action::default() })
}

/// Reads a `DirectResponseAction`.
fn direct(fields: &mut Fields<'_>) -> Read<Action> {
    let status = fields
        .small("status")?
        .filter(|status| (200..600).contains(status))
        .ok_or_else(|| Fault::new("status", "expected 200 to 599"))?;
    fields.refuse("body_format", "is not supported: use body")?;
    let body = fields.message("body", |body| {
        body.refuse("filename", "files are read for a bootstrap only: use inline_string")?;
        body.refuse("environment_variable", "is not read: use inline_string")?;
        match (body.text("inline_string")?, body.text("inline_bytes")?) {
            (Some(text), None) => Ok(text.to_owned()),
            (None, Some(raw)) => {
                String::from_utf8(super::super::read::bytes(raw)?).map_err(|_| Fault::new("inline_bytes", "expected text"))
            }
            (None, None) => Ok(String::new()),
            (Some(_), Some(_)) => Err(Fault::new("", "expected one of inline_string and inline_bytes")),
        }
    })?;
    let body = body.unwrap_or_default();
    if body.len() > MAX_BODY {
        return Err(Fault::new("body", format!("has {} bytes, at most {MAX_BODY} are sent", body.len())));
    }
    Ok(Action { plugins: vec![answer(status, &body)], ..Action::default() })
}

/// A plugin that answers, after all that guard a route.
pub(crate) fn answer(status: u32, body: &str) -> (&'static str, Value) {
    let kind = if body.is_empty() { "" } else { "text/plain" };
    let config = json!({
        "response_status": status, "response_example": literal(body), "content_type": kind, "with_mock_header": false,
        "_meta": { "priority": LAST },
    });
    ("mocking", config)
}
