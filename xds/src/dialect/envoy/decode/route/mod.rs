//! Route configurations: virtual hosts, routes, and what a request must look like for them. It knows neither listeners nor clusters.

pub(super) mod action;
pub(super) mod headers;
pub(super) mod matching;
mod mirror;
pub(super) mod retry;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use super::listener::{filters, limit};
use super::piece::{Mirror, Override, Path, Route, RouteTable, VirtualHost};
use super::program::Together;
use super::read::{Fault, Fields, MAX_LIST, Read, message};
use super::wire;
use crate::model::canonical_path;
use headers::{Edits, Level};
use matching::{Wanted, path_regex};
use retry::Retry;

/// Routes of one configuration.
const MAX_ROUTES: usize = 50_000;
/// The place of what is done to answers first.
const NEXT_TO_THE_UPSTREAM: i32 = 30_000;
/// What calls of gRPC say, as Envoy knows them: without parameters.
const GRPC: [&str; 3] = ["field_content-type", "~~", r"^application/grpc(?:$|\+)"];

/// Begins patterns of paths in which the case of letters does not count.
const ANY_CASE: &str = "(?i)^";

/// The list that makes a table of routes large.
pub(super) const HOSTS: &str = "virtual_hosts";
/// What it is a list of.
const HOST: &str = "envoy.config.route.v3.VirtualHost";

/// Reads a `RouteConfiguration` that is in one piece.
pub(super) fn read(fields: &mut Fields<'_>) -> Read<RouteTable> {
    read_apart(fields, &[], &mut Together::default())
}

/// Reads a `RouteConfiguration` whose virtual hosts are among its fields, or `apart` as they came over the wire.
pub(super) fn read_apart(fields: &mut Fields<'_>, apart: &[&[u8]], programs: &mut Together) -> Read<RouteTable> {
    let name: Arc<str> = fields.text("name")?.unwrap_or_default().into();
    let outer = headers::level(fields)?;
    // Whether clusters are known: what is missing answers 503, as Envoy's default for RDS.
    fields.ignore(&["validate_clusters", "max_direct_response_body_size_bytes", "metadata"]);
    fields.refuse(
        "internal_only_headers",
        "is not supported: what clients say there would be believed by conditions and filters",
    )?;
    fields.refuse("vhds", "virtual hosts on demand are not supported")?;
    fields.refuse("most_specific_header_mutations_wins", "is not supported")?;
    fields.refuse("cluster_specifier_plugins", "is not supported: name clusters")?;
    let mirrors = mirror::read(fields)?;
    fields.refuse("typed_per_filter_config", "is not supported here: put it on virtual hosts or routes")?;
    let ignores_port = fields.is_on("ignore_port_in_host_matching")?;
    let mut hosts = fields.list(HOSTS, |host| virtual_host(host, &outer, &mirrors))?;
    if apart.len() > MAX_LIST {
        return Err(Fault::new(HOSTS, format!("has {} elements, at most {MAX_LIST} are read", apart.len())));
    }
    hosts.reserve_exact(apart.len());
    for (at, bytes) in apart.iter().enumerate() {
        let host = wire::tree(HOST, bytes).and_then(|tree| {
            programs.add(&tree).map_err(|reason| Fault::new("", reason))?;
            message(&tree, |host| virtual_host(host, &outer, &mirrors))
        });
        hosts.push(host.map_err(|fault| fault.inside(&format!("{HOSTS}[{at}]")))?);
    }
    let mut seen = BTreeSet::new();
    for domain in hosts.iter().flat_map(|host| &host.domains) {
        if !seen.insert(domain) {
            return Err(Fault::new("virtual_hosts", format!("the domain {domain:.200} is there twice")));
        }
    }
    if hosts.iter().map(|host| host.routes.len()).sum::<usize>() > MAX_ROUTES {
        return Err(Fault::new("virtual_hosts", format!("expected at most {MAX_ROUTES} routes")));
    }
    Ok(RouteTable { name, hosts, ignores_port, checks_clusters: false })
}

/// What a virtual host says for all of its routes.
struct Whole<'a> {
    levels: [&'a Level; 2],
    overrides: Overrides,
    retry: Option<Retry>,
    /// Of routes that name none.
    mirrors: Vec<Mirror>,
}

fn virtual_host(fields: &mut Fields<'_>, outer: &Level, mirrors: &[Mirror]) -> Read<VirtualHost> {
    let name = fields.name("name")?;
    let domains = fields.values("domains", |domain| match domain.as_str().map(domain_of) {
        Some(domain) => domain,
        None => Err(Fault::new("", "expected a text")),
    })?;
    if domains.is_empty() {
        return Err(Fault::new("domains", "must not be empty"));
    }
    fields.choice("require_tls", &[("NONE", 0, ())])?;
    fields.ignore(&["virtual_clusters", "metadata", "stat_prefix", "include_is_timeout_retry_header"]);
    for name in
        ["include_request_attempt_count", "include_attempt_count_in_response", "per_request_buffer_limit_bytes", "hedge_policy"]
    {
        fields.refuse(name, "is not supported")?;
    }
    fields.refuse("rate_limits", "the global rate limit service is not supported: use local_ratelimit")?;
    fields.refuse("retry_policy_typed_config", "is not supported: use retry_policy")?;
    fields.refuse("matcher", "is not supported: use routes")?;
    let inner = headers::level(fields)?;
    let own = mirror::read(fields)?;
    let whole = Whole {
        mirrors: if own.is_empty() { mirrors.to_vec() } else { own },
        levels: [&inner, outer],
        overrides: of_all_routes(filters::overrides(fields)?, &name),
        retry: fields.message("retry_policy", retry::read)?,
    };
    let routes = fields.list("routes", |one| route(one, &whole))?;
    Ok(VirtualHost { name, domains, routes })
}

/// A domain in lower case; a `*` may stand for any beginning or any end.
fn domain_of(domain: &str) -> Read<Arc<str>> {
    let domain = domain.to_ascii_lowercase();
    let inner = domain.strip_prefix('*').or_else(|| domain.strip_suffix('*')).unwrap_or(&domain);
    if domain.is_empty() || inner.contains('*') || (inner.is_empty() && domain != "*") {
        return Err(Fault::new("", format!("expected a domain, *.suffix, prefix.* or *, found {domain:.100?}")));
    }
    Ok(domain.into())
}

fn route(fields: &mut Fields<'_>, whole: &Whole<'_>) -> Read<Route> {
    let name: Arc<str> = fields.text("name")?.unwrap_or_default().into();
    let (path, methods, conditions) = fields.required("match", conditions)?;
    fields.ignore(&["metadata", "decorator", "stat_prefix", "tracing"]);
    fields.refuse("per_request_buffer_limit_bytes", "is not supported: use the buffer filter")?;
    let level = headers::level(fields)?;
    let action = action::read(fields, &path)?;
    let [host, table] = whole.levels;
    let request = Edits::of_requests(&[&level.request, &host.request, &table.request])?;
    let response = Edits::of_answers(&[&level.response, &host.response, &table.response]);
    let mut plugins = action.plugins;
    let mut rewrite = action.rewrite;
    plugins.extend(request.ids());
    if !request.is_empty() {
        rewrite.insert("headers".to_owned(), request.to_plugin());
    }
    if !rewrite.is_empty() {
        plugins.push(("proxy-rewrite", rewrite.into()));
    }
    if !response.is_empty() {
        // Before filters of the listener look at the answer, as it comes from the router.
        let config = serde_json::json!({"headers": response.to_plugin(), "_meta": {"priority": NEXT_TO_THE_UPSTREAM}});
        plugins.push(("response-rewrite", config));
    }
    let retry = action.retry.or_else(|| whole.retry.clone().filter(|_| !action.targets.is_empty())).unwrap_or_default();
    plugins.extend(retry.plugin.map(|retry| ("retry", retry)));
    let mirrors = if action.mirrors.is_empty() { whole.mirrors.clone() } else { action.mirrors };
    let overrides = said_of_filters(filters::overrides(fields)?, &whole.overrides);
    Ok(Route {
        name,
        path,
        conditions,
        methods,
        plugins,
        mirrors: mirrors.into_iter().filter(|mirror| mirror.share > 0.0 && !action.targets.is_empty()).collect(),
        targets: action.targets,
        own_host: action.own_host,
        hash: action.hash,
        timeout: action.timeout,
        whole: action.whole,
        each_try: retry.each,
        idle: action.idle,
        websocket: action.websocket,
        overrides,
    })
}

type Overrides = Vec<(Arc<str>, Override)>;

/// What a virtual host says of filters counts for its routes together.
fn of_all_routes(mut overrides: Overrides, host: &str) -> Overrides {
    for (_, said) in &mut overrides {
        if let Override::Does(deed) = said {
            limit::together(deed, host);
        }
    }
    overrides
}

/// What a route says of filters, and what its virtual host says of others. Edits of fields are made by both, and those of the virtual host come last.
fn said_of_filters(mut own: Overrides, outer: &Overrides) -> Overrides {
    for (name, said) in outer {
        match own.iter_mut().find(|(known, _)| known == name) {
            None => own.push((name.clone(), said.clone())),
            Some((_, Override::Does(inner))) => {
                if let Override::Does(outer) = said {
                    filters::edited_after(inner, outer);
                }
            }
            Some(_) => {}
        }
    }
    own
}

/// Reads a `RouteMatch` as conditions, all of which must hold; none where it fits every request.
pub(super) fn criteria(fields: &mut Fields<'_>) -> Read<Vec<Value>> {
    let (path, methods, mut conditions) = conditions(fields)?;
    conditions.splice(0..0, methods.iter().map(|method| serde_json::json!(["method", "==", &**method])));
    let pattern = match path {
        Path::Prefix(prefix) if prefix.is_empty() || &*prefix == "/" => return Ok(conditions),
        Path::Exact(path) => {
            conditions.insert(0, serde_json::json!(["uri", "==", &*path]));
            return Ok(conditions);
        }
        Path::Prefix(prefix) => format!("^{}", matching::escaped(&prefix)),
        Path::Below(prefix) => format!("^{}(?:/|$)", matching::escaped(&prefix)),
        Path::Pattern(pattern) => pattern.to_string(),
    };
    conditions.insert(0, serde_json::json!(["uri", "~~", pattern]));
    Ok(conditions)
}

/// Reads a `RouteMatch`.
fn conditions(fields: &mut Fields<'_>) -> Read<(Path, Vec<Arc<str>>, Vec<Value>)> {
    let any_case = fields.flag("case_sensitive")? == Some(false);
    let mut paths = Vec::new();
    // An empty prefix is every path, so that it counts although it is nothing.
    if let Some(prefix) = fields.take("prefix").and_then(Value::as_str) {
        paths.push(Path::Prefix(canonical_path(prefix).into()));
    }
    paths.extend(fields.text("path")?.map(|path| Path::Exact(canonical_path(path).into())));
    paths.extend(fields.text("path_separated_prefix")?.map(|path| Path::Below(canonical_path(path).into())));
    paths.extend(fields.message("safe_regex", path_regex)?.map(|pattern| Path::Pattern(matching::whole(&pattern).into())));
    fields.refuse("connect_matcher", "CONNECT is not supported")?;
    fields.refuse("path_match_policy", "is not supported: use prefix, path, path_separated_prefix or safe_regex")?;
    fields.refuse("dynamic_metadata", "is not supported")?;
    fields.refuse("filter_state", "is not supported")?;
    fields.refuse("tls_context", "is not supported")?;
    fields.refuse("cookies", "is not supported: match the header cookie")?;
    if let Some(percent) = fields.message("runtime_fraction", matching::runtime_percent)?
        && percent < 100.0
    {
        return Err(Fault::new("runtime_fraction", "matching by chance is not supported: use weighted_clusters"));
    }
    let path = match (paths.pop(), paths.is_empty()) {
        (Some(path), true) => path,
        _ => return Err(Fault::new("prefix", "expected exactly one of prefix, path, path_separated_prefix and safe_regex")),
    };
    let text = match &path {
        Path::Prefix(text) => Some(("prefix", text)),
        Path::Exact(text) => Some(("path", text)),
        Path::Below(text) => Some(("path_separated_prefix", text)),
        Path::Pattern(_) => None,
    };
    if let Some((field, text)) = text.filter(|(_, text)| !text.is_empty() && !text.starts_with('/')) {
        return Err(Fault::new(field, format!("expected a path that starts with `/`, found {text:.100?}")));
    }
    if let Path::Below(text) = &path
        && (text.ends_with('/') || text.contains(['?', '#']))
    {
        return Err(Fault::new("path_separated_prefix", "expected a path without `?` and `#` that does not end in `/`"));
    }
    let (mut methods, mut conditions) = (Vec::new(), Vec::new());
    for wanted in fields.list("headers", matching::header)? {
        match wanted {
            Wanted::Method(method) if methods.is_empty() => methods.push(Arc::from(method)),
            Wanted::Method(method) => conditions.push(serde_json::json!(["method", "==", method])),
            Wanted::Conditions(more) => conditions.extend(more),
        }
    }
    conditions.extend(fields.list("query_parameters", matching::query)?.into_iter().flatten());
    if fields.message("grpc", |grpc| grpc.skip())?.is_some() {
        conditions.push(serde_json::json!(GRPC));
    }
    Ok((if any_case { without_case(path) } else { path }, methods, conditions))
}

fn without_case(path: Path) -> Path {
    let escaped = |text: &str| matching::escaped(text);
    Path::Pattern(match path {
        Path::Exact(text) => format!("{ANY_CASE}{}$", escaped(&text)).into(),
        Path::Prefix(text) => format!("{ANY_CASE}{}", escaped(&text)).into(),
        Path::Below(text) => format!("{ANY_CASE}{}(?:/.*)?$", escaped(&text)).into(),
        Path::Pattern(pattern) => pattern,
    })
}
