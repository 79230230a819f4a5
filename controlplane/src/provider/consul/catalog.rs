//! From the tags of services to routes that lead to them. A service is a source of its own, so a fault of one leaves the others; it asks nobody.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::Sources;
use super::conditions;
use super::middlewares::{Defined, plugins};
use super::rule;
use super::tags::{Tags, list, satisfies};
use crate::model::{Key, ResourceKind};
use crate::settings::CatalogSettings;

/// Consul's own service, which is no upstream.
const OWN: &str = "consul";
/// Routers of one service.
const MOST_ROUTERS: usize = 64;

type Fields = BTreeMap<String, String>;

/// The routes that all services ask for.
pub(super) fn read(settings: &CatalogSettings, provider: &str, services: &BTreeMap<String, Vec<String>>) -> Sources {
    let mut read: BTreeMap<&str, Result<Tags, Vec<String>>> = BTreeMap::new();
    let mut middlewares = Defined::default();
    for (name, all) in services.iter().filter(|(name, _)| *name != OWN) {
        let tags = Tags::read(&settings.prefixes, all);
        if let Ok(tags) = &tags {
            if !exposed(settings, tags, all) {
                continue;
            }
            middlewares.add(name, tags.named("http.middlewares"));
        }
        read.insert(name, tags);
    }
    let mut sources = Sources::new();
    for (name, tags) in read {
        let routes = tags.and_then(|tags| routes(settings, provider, name, &tags, &middlewares).map_err(|why| vec![why]));
        let told = |faults: Vec<String>| faults.into_iter().map(|fault| format!("service {name} in Consul: {fault}")).collect();
        sources.insert(Arc::from(name), routes.map_err(told));
    }
    sources
}

fn exposed(settings: &CatalogSettings, tags: &Tags, all: &[String]) -> bool {
    let wanted = match tags.get("enable") {
        Some(said) => said.eq_ignore_ascii_case("true"),
        None => settings.exposed_by_default,
    };
    // The constraint was read once with the settings.
    wanted && settings.constraints.as_deref().is_none_or(|constraint| satisfies(constraint, all).unwrap_or(false))
}

fn routes(
    settings: &CatalogSettings,
    provider: &str,
    service: &str,
    tags: &Tags,
    middlewares: &Defined,
) -> Result<Vec<(Key, Value)>, String> {
    for (path, _) in tags.all() {
        let first: Vec<&str> = path.splitn(3, '.').collect();
        match first[..] {
            ["enable"] | ["http", "routers" | "services" | "middlewares", _] => {}
            ["tcp" | "udp", ..] => return Err(format!("{path}: TCP and UDP are not proxied yet")),
            _ => return Err(format!("{path} is not known; expected enable, http.routers, http.services or http.middlewares")),
        }
    }
    let upstreams = tags.named("http.services");
    let mut routers = tags.named("http.routers");
    if routers.is_empty() {
        routers.insert(normal(service), Fields::new());
    }
    if routers.len() > MOST_ROUTERS {
        return Err(format!("it has {} routers, at most {MOST_ROUTERS} are taken", routers.len()));
    }
    let mut out = Vec::new();
    for (name, fields) in &routers {
        let told = |why: String| format!("router {name}: {why}");
        let text = fields.get("rule").cloned().unwrap_or_else(|| settings.default_rule.replace("{{ name }}", &normal(service)));
        let parsed = rule::parse(&text).map_err(|why| told(format!("rule {text}: {why}")))?;
        let matched = conditions::routes(&parsed).map_err(|why| told(format!("rule {text}: {why}")))?;
        let common = router(service, fields, &text, middlewares).map_err(&told)?;
        let upstream = guarded(settings, upstream(service, fields, &upstreams).map_err(&told)?);
        for (number, mut route) in matched.into_iter().enumerate() {
            let id = if number == 0 {
                format!("{}-{}", normal(service), normal(name))
            } else {
                format!("{}-{}-{number}", normal(service), normal(name))
            };
            if let Some(secure) = common.secure {
                let condition = json!(["scheme", "==", if secure { "https" } else { "http" }]);
                match route.get_mut("vars").and_then(Value::as_array_mut) {
                    Some(vars) => vars.push(condition),
                    None => drop(route.insert("vars".into(), json!([condition]))),
                }
            }
            route.insert("id".into(), format!("{id}@{provider}").into());
            route.insert("priority".into(), common.priority.into());
            route.insert("enable_websocket".into(), true.into());
            route.insert("labels".into(), json!({ "consul_service": normal(service) }));
            route.insert("upstream".into(), upstream.clone());
            if !common.plugins.is_empty() {
                route.insert("plugins".into(), Value::Object(common.plugins.clone()));
            }
            out.push((Key::new(ResourceKind::Route, id), Value::Object(route)));
        }
    }
    Ok(out)
}

/// What a router says beside its rule.
struct Router {
    priority: i64,
    plugins: Map<String, Value>,
    /// Whether it is for TLS alone, or for cleartext alone.
    secure: Option<bool>,
}

fn router(service: &str, fields: &Fields, rule: &str, middlewares: &Defined) -> Result<Router, String> {
    let length = i64::try_from(rule.len()).unwrap_or(i64::MAX);
    let mut router = Router { priority: length, plugins: Map::new(), secure: None };
    for (field, value) in fields {
        match field.as_str() {
            "rule" | "service" => {}
            "priority" => {
                let given = value.parse::<i64>().map_err(|_| format!("priority: expected a number, found `{value}`"))?;
                router.priority = if given == 0 { length } else { given };
            }
            "middlewares" => router.plugins = plugins(&list(value), service, middlewares)?,
            "tls" if value.eq_ignore_ascii_case("false") => {}
            // Certificates are found by their names here, and listeners say which versions they speak.
            tls if tls == "tls" || tls.starts_with("tls.") => router.secure = Some(true),
            "entrypoints" => {
                let names = list(value);
                let of = |wanted: &[&str]| names.iter().all(|name| wanted.contains(&name.to_ascii_lowercase().as_str()));
                if of(&["websecure", "https"]) {
                    router.secure = Some(true);
                } else if of(&["web", "http"]) {
                    router.secure = router.secure.or(Some(false));
                } else if !of(&["web", "http", "websecure", "https"]) {
                    return Err(format!("entrypoints: expected web, http, websecure or https, found `{value}`"));
                }
            }
            other => {
                return Err(format!(
                    "{other} is not taken from tags; expected rule, priority, middlewares, tls, entrypoints or service"
                ));
            }
        }
    }
    Ok(router)
}

/// Whoever may register a service says where it is: the hosts of the agents must not be among that.
fn guarded(settings: &CatalogSettings, mut upstream: Value) -> Value {
    if !settings.allow_local {
        upstream["discovery_args"]["allow_local"] = false.into();
    }
    upstream
}

/// Where a router leads: the instances of its service in Consul, used as the service of the tags says.
fn upstream(service: &str, router: &Fields, services: &BTreeMap<String, Fields>) -> Result<Value, String> {
    let named = router.get("service").map(|name| name.to_ascii_lowercase());
    let fields = match (&named, services.len()) {
        (Some(name), _) => {
            let local = name.split('@').next().unwrap_or_default();
            services
                .get(local)
                .cloned()
                .or_else(|| (local == normal(service)).then(Fields::new))
                .ok_or_else(|| format!("there is no service {name} in the tags"))?
        }
        (None, 0) => Fields::new(),
        (None, 1) => services.values().next().cloned().unwrap_or_default(),
        (None, _) => return Err("the tags have several services, so the router must name one (`service`)".to_owned()),
    };
    let mut upstream = json!({ "discovery_type": "consul", "service_name": service });
    for (field, value) in &fields {
        let number = || value.parse::<u16>().map_err(|_| format!("{field}: expected a number, found `{value}`"));
        match field.as_str() {
            "loadbalancer.server.port" => upstream["discovery_args"]["port"] = number()?.into(),
            // One weight for all instances of a service changes nothing among them.
            "loadbalancer.server.weight" => drop(number()?),
            "loadbalancer.server.scheme" => {
                upstream["scheme"] = match value.as_str() {
                    "http" | "https" => value.as_str().into(),
                    "h2c" => "grpc".into(),
                    _ => return Err(format!("{field}: expected http, https or h2c, found `{value}`")),
                }
            }
            "loadbalancer.passhostheader" => {
                upstream["pass_host"] = if value.eq_ignore_ascii_case("false") { "node".into() } else { "pass".into() };
            }
            other => {
                return Err(format!(
                    "service: {other} is not taken from tags; expected loadbalancer.server.port, .scheme, .weight or loadbalancer.passhostheader"
                ));
            }
        }
    }
    Ok(upstream)
}

/// A name in characters that an id may have.
fn normal(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '-' }).collect()
}
