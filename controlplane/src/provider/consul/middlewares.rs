//! The middlewares of Traefik that are plugins here, from their fields as tags say them. What is not here is refused by its name.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::tags::list;

/// The fields of one middleware by their lower-case paths, `stripprefix.prefixes`.
type Fields = BTreeMap<String, String>;

/// Middlewares by their names, each with the services whose tags define it. Names are shared by all services, as in Traefik, and whoever may register a service
/// may define any: so what a service defines itself counts for it, and what others define only as long as they agree.
#[derive(Debug, Default)]
pub(super) struct Defined(BTreeMap<String, BTreeMap<String, Fields>>);

impl Defined {
    /// Takes what the tags of a service define.
    pub(super) fn add(&mut self, service: &str, middlewares: BTreeMap<String, Fields>) {
        for (name, fields) in middlewares {
            self.0.entry(name).or_default().insert(service.to_owned(), fields);
        }
    }

    /// What a middleware is for the routers of a service.
    fn find(&self, service: &str, name: &str) -> Result<&Fields, String> {
        let local = name.split('@').next().unwrap_or_default().to_ascii_lowercase();
        let all = self.0.get(&local).ok_or_else(|| format!("the middleware {name} is defined by no tag of any service"))?;
        if let Some(own) = all.get(service) {
            return Ok(own);
        }
        let mut others = all.iter();
        let Some((first, fields)) = others.next() else { return Err(format!("the middleware {name} is defined by nobody")) };
        match others.find(|(_, other)| *other != fields) {
            Some((second, _)) => Err(format!(
                "the middleware {name} is defined by {first} and {second}, and not alike: define it in the tags of this service too"
            )),
            None => Ok(fields),
        }
    }
}

/// The plugins of middlewares, in the order in which a router of a service names them.
///
/// # Errors
/// In words: one is unknown, has a field that is not here, or two of them set the same.
pub(super) fn plugins(names: &[String], service: &str, all: &Defined) -> Result<Map<String, Value>, String> {
    let mut plugins: Map<String, Value> = Map::new();
    for name in names {
        let (plugin, config) = one(all.find(service, name)?).map_err(|why| format!("middleware {name}: {why}"))?;
        let Some(before) = plugins.get_mut(plugin).and_then(Value::as_object_mut) else {
            plugins.insert(plugin.to_owned(), Value::Object(config));
            continue;
        };
        for (field, value) in config {
            if before.insert(field, value).is_some() {
                return Err(format!("middleware {name}: another one of this router sets the same of {plugin}"));
            }
        }
    }
    Ok(plugins)
}

/// The plugin of one middleware, with its configuration.
fn one(fields: &Fields) -> Result<(&'static str, Map<String, Value>), String> {
    let kind = fields.keys().next().map(|path| path.split('.').next().unwrap_or_default().to_owned()).unwrap_or_default();
    let mut own: BTreeMap<String, &str> = BTreeMap::new();
    for (path, value) in fields {
        let (first, rest) = path.split_once('.').unwrap_or((path, ""));
        if first != kind {
            return Err(format!("it is both {kind} and {first}"));
        }
        own.insert(rest.to_owned(), value);
    }
    let plugin = match kind.as_str() {
        "addprefix" | "stripprefix" | "stripprefixregex" | "replacepath" | "replacepathregex" => "proxy-rewrite",
        "redirectscheme" | "redirectregex" => "redirect",
        "headers" => "headers",
        "ratelimit" => "limit-req",
        "inflightreq" => "limit-conn",
        "ipallowlist" | "ipwhitelist" => "ip-restriction",
        "retry" => "retry",
        "compress" => "gzip",
        other => {
            return Err(format!(
                "{other} is not taken from tags; write a plugin_config or a route for it (see docs/plugins/migration.md)"
            ));
        }
    };
    let mut config = Map::new();
    for (field, value) in own {
        let (name, value) = setting(&kind, &field, value)?;
        match (config.get_mut(name), value) {
            (Some(Value::Object(before)), Value::Object(more)) => before.extend(more),
            (Some(Value::Array(pair)), Value::Array(more)) => pair.extend(more),
            (_, value) => drop(config.insert(name.to_owned(), value)),
        }
    }
    if kind == "inflightreq" {
        for (name, value) in [
            ("burst", json!(0)),
            ("default_conn_delay", json!(0.1)),
            ("rejected_code", json!(429)),
            ("key", json!("remote_addr")),
        ] {
            config.entry(name).or_insert(value);
        }
    }
    Ok((plugin, config))
}

/// One field as the plugin has it. Patterns come before replacements by their names, so pairs are in order.
fn setting(kind: &str, field: &str, value: &str) -> Result<(&'static str, Value), String> {
    let number = || value.parse::<u64>().map(Value::from).map_err(|_| format!("{field}: expected a number, found `{value}`"));
    let flag = || value.parse::<bool>().map(Value::from).map_err(|_| format!("{field}: expected true or false, found `{value}`"));
    let header = |prefix: &str| {
        let name = field.strip_prefix(prefix)?.strip_prefix('.').filter(|name| !name.is_empty())?;
        Some(json!({ name: value }))
    };
    Ok(match (kind, field) {
        ("addprefix", "prefix") => ("add_prefix", value.into()),
        ("stripprefix", "prefixes") => ("strip_prefixes", list(value).into()),
        ("stripprefixregex", "regex") => ("strip_prefixes_regex", list(value).into()),
        ("replacepath", "path") => ("uri", value.into()),
        ("replacepathregex", "regex" | "replacement") => ("regex_uri", json!([groups(value)])),
        ("redirectregex", "regex" | "replacement") => ("regex_url", json!([groups(value)])),
        ("redirectscheme", "scheme") => ("scheme", value.into()),
        ("redirectscheme", "port") => ("port", number()?),
        ("redirectscheme" | "redirectregex", "permanent") => ("permanent", flag()?),
        ("ratelimit", "average") => ("average", number()?),
        ("ratelimit", "burst") => ("burst", number()?),
        ("ratelimit", "period") => {
            let span = heddle_node::config::parse_duration(value)
                .ok_or_else(|| format!("period: expected a duration, found `{value}`"))?;
            ("period", span.as_secs_f64().into())
        }
        ("inflightreq", "amount") => ("conn", number()?),
        ("ipallowlist" | "ipwhitelist", "sourcerange") => ("whitelist", list(value).into()),
        ("ipallowlist", "rejectstatuscode") => ("response_code", number()?),
        ("retry", "attempts") => ("attempts", number()?),
        ("compress", "") => return flag().map(|_| ("min_length", json!(1024))),
        ("headers", _) => match (header("customrequestheaders"), header("customresponseheaders")) {
            (Some(request), _) => ("custom_request_headers", request),
            (_, Some(response)) => ("custom_response_headers", response),
            _ => return Err(format!("{kind}.{field} is not taken from tags")),
        },
        _ => return Err(format!("{kind}.{field} is not taken from tags")),
    })
}

/// Groups are `$1` here and `${1}` or `$1` there.
fn groups(text: &str) -> String {
    let mut out = text.to_owned();
    for number in 0..10 {
        out = out.replace(&format!("${{{number}}}"), &format!("${number}"));
    }
    out
}
