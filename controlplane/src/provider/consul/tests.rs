//! Keys, tags and rules of Traefik as routes here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use heddle_node::consul::{Intention, KvPair};
use heddle_xds::catalog::{Catalog, ConfigFault, Descriptor, Place};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::rule::{Rule, parse};
use super::*;
use crate::model::check_expression;

fn pair(key: &str, text: &str) -> KvPair {
    KvPair { key: key.into(), value: text.as_bytes().to_vec(), modified: 1 }
}

#[test]
fn keys_are_resources_and_each_fault_is_its_own() {
    let pairs = [
        pair("heddle/", ""),
        pair("heddle/routes/", ""),
        pair("heddle/routes/a", "{\"uri\": \"/a\", \"upstream_id\": \"u\"}"),
        pair("heddle/upstreams/u", "nodes:\n  \"10.0.0.1:80\": 1\n"),
        pair("heddle/consumers/jack", "desc: x"),
        pair("heddle/consumers/jack/credentials/one", "plugins: { key-auth: { key: k } }"),
        pair("heddle/routes/b", "{\"uri\":"),
        pair("heddle/routes/c/d", "uri: /c"),
        pair("heddle/routes/ä", "uri: /c"),
        pair("heddle/rotues/c", "uri: /c"),
        pair("heddle/routes/e", "id: other\nuri: /c"),
        pair("heddle/routes/f", "just text"),
        pair("heddle-other/routes/a", "uri: /x"),
    ];
    let sources = kv::read("heddle", "consul-kv", &pairs);
    let good: Vec<(String, Value)> =
        sources.values().flatten().flatten().map(|(key, value)| (key.to_string(), value.clone())).collect();
    let names: Vec<&str> = good.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(names.len(), 4, "{names:?}");
    assert_eq!(good.iter().find(|(key, _)| key.contains("/a")).unwrap().1["id"], "a@consul-kv");
    assert_eq!(good.iter().filter(|(_, value)| value["username"] == "jack").count(), 1);
    let faults: Vec<String> = sources.values().filter_map(|one| one.as_ref().err()).flatten().cloned().collect();
    for part in ["routes/b", "without slashes", "letters, digits", "unknown collection `rotues`", "the one in the key", "(a map)"]
    {
        assert!(faults.iter().any(|fault| fault.contains(part)), "{part} is not in {faults:#?}");
    }
    let kept = good.iter().map(|(_, value)| (Key::new(ResourceKind::Route, "x"), value.clone())).collect::<Vec<_>>();
    assert_eq!(resources(&body(&kept)).unwrap(), kept);
}

#[test]
fn rules_are_read_as_they_bind() {
    let matcher = |name: &str, argument: &str| Rule::Matcher(name.into(), vec![argument.into()]);
    let (a, b, c) = (matcher("Host", "a"), matcher("Path", "/b"), matcher("Method", "GET"));
    assert_eq!(
        parse("Host(`a`) || Path(`/b`) && Method(\"GET\")").unwrap(),
        Rule::Or(vec![a.clone(), Rule::And(vec![b.clone(), c.clone()])])
    );
    assert_eq!(
        parse("( Host(`a`)||Path(`/b`) )&&!Method(`GET`)").unwrap(),
        Rule::And(vec![Rule::Or(vec![a.clone(), b]), Rule::Not(Box::new(c))])
    );
    assert_eq!(parse("!!Host(`a`)").unwrap(), a);
    assert_eq!(parse(r#"Header(`X`, "a\"b\\")"#).unwrap(), Rule::Matcher("Header".into(), vec!["X".into(), "a\"b\\".into()]));
    for (wrong, part) in [
        ("", "a matcher such as"),
        ("Host(`a`", ", or )"),
        ("Host(a)", "backticks"),
        ("Host(`a`) Path(`b`)", "&&, || or the end"),
        ("(Host(`a`)", "&&, || or )"),
        ("Host(`a)", "does not end"),
        (&"(".repeat(100), "nest deeper"),
        (&"Host(`a`)&&".repeat(300), "at most 256"),
    ] {
        let told = parse(wrong).unwrap_err();
        assert!(told.contains(part), "{wrong}: {told}");
    }
}

fn matches(rule: &str) -> Value {
    conditions::routes(&parse(rule).unwrap()).unwrap().into()
}

#[test]
fn rules_become_what_routes_match_by() {
    assert_eq!(matches("Host(`A.org`) && PathPrefix(`/api`)"), json!([{"hosts": ["a.org"], "uris": ["/api*"]}]));
    assert_eq!(
        matches("(Host(`a`) || Host(`b`)) && Method(`get`) && Path(`/x`)"),
        json!([{"hosts": ["a", "b"], "methods": ["GET"], "uris": ["/x"]}])
    );
    assert_eq!(matches("Host(`a`) || Host(`b`)"), json!([{"hosts": ["a", "b"], "uris": ["/*"]}]), "one route is enough");
    assert_eq!(matches("Host(`a`) || Path(`/b`)"), json!([{"hosts": ["a"], "uris": ["/*"]}, {"uris": ["/b"]}]));
    assert_eq!(
        matches("Host(`a`) && !PathPrefix(`/in.ner`) && Header(`X-Kind`, `b`) && ClientIP(`10.0.0.0/8`)"),
        json!([{"hosts": ["a"], "uris": ["/*"], "vars": [["uri", "!", "~~", "^/in\\.ner"], ["http_x_kind", "==", "b"], ["remote_addr", "ipmatch", ["10.0.0.0/8"]]]}])
    );
    assert_eq!(
        matches("HostRegexp(`^.+\\.a$`) && !(Query(`x`) || Query(`y`, `1`))"),
        json!([{"uris": ["/*"], "vars": [["host", "~~", "^.+\\.a$"], ["!OR", ["arg_x", "~~", ""], ["arg_y", "==", "1"]]]}])
    );
    assert_eq!(matches("Path(`/a*b`)"), json!([{"uris": ["/*"], "vars": [["uri", "==", "/a*b"]]}]), "a star is a star");
    for wrong in ["Hots(`a`)", "Host()", "Header(`a`)", "ClientIP()"] {
        assert!(conditions::routes(&parse(wrong).unwrap()).is_err(), "{wrong}");
    }
}

fn settings() -> CatalogSettings {
    CatalogSettings {
        prefixes: vec!["heddle".into(), "traefik".into()],
        exposed_by_default: false,
        default_rule: "Host(`{{ name }}.example`)".into(),
        constraints: Some("!Tag(`private`)".into()),
        allow_local: false,
    }
}

fn services(list: &[(&str, &[&str])]) -> BTreeMap<String, Vec<String>> {
    list.iter().map(|(name, tags)| ((*name).to_owned(), tags.iter().map(|tag| (*tag).to_owned()).collect())).collect()
}

#[test]
fn services_ask_for_routes_by_their_tags() {
    let shop = [
        "traefik.enable=true",
        "traefik.http.routers.Web.rule=Host(`shop.example`)",
        "traefik.http.routers.web.middlewares=strip, limit@consulcatalog",
        "traefik.http.routers.web.tls=true",
        "traefik.http.routers.web.priority=7",
        "traefik.http.middlewares.strip.stripprefix.prefixes=/shop,/store",
        "traefik.http.services.web.loadbalancer.server.port=9000",
        "traefik.http.services.web.loadbalancer.server.scheme=https",
        "v1",
    ];
    let other = [
        "heddle.enable=true",
        "heddle.http.middlewares.limit.ratelimit.average=10",
        "heddle.http.middlewares.limit.ratelimit.period=1m",
    ];
    let all = services(&[
        ("shop", &shop),
        ("other", &other),
        ("silent", &["v1"]),
        ("private", &["traefik.enable=true", "private"]),
        ("consul", &["traefik.enable=true"]),
        ("broken", &["traefik.enable=true", "traefik.http.routers.b.rule=Host(", "traefik.http.routers.b.priority=1"]),
        ("torn", &["traefik.enable=true", "traefik.http.routers.t.rule=Path(`/a`)", "traefik.http.routers.t.rule=Path(`/b`)"]),
        ("typo", &["traefik.enable=true", "traefik.http.routers.t.rul=Path(`/a`)"]),
        ("tcp", &["traefik.enable=true", "traefik.tcp.routers.t.rule=HostSNI(`*`)"]),
    ]);
    let sources = catalog::read(&settings(), "consul-catalog", &all);
    let names: Vec<&str> = sources.keys().map(|name| &**name).collect();
    assert_eq!(names, ["broken", "other", "shop", "tcp", "torn", "typo"]);
    let (key, route) = &sources["shop"].as_ref().unwrap()[0];
    assert_eq!(&*key.id, "shop-web");
    let expected = json!({
        "hosts": ["shop.example"], "uris": ["/*"], "vars": [["scheme", "==", "https"]], "id": "shop-web@consul-catalog", "priority": 7,
        "enable_websocket": true, "labels": {"consul_service": "shop"},
        "upstream": {"discovery_type": "consul", "service_name": "shop", "discovery_args": {"port": 9000, "allow_local": false}, "scheme": "https"},
        "plugins": {"proxy-rewrite": {"strip_prefixes": ["/shop", "/store"]}, "limit-req": {"average": 10, "period": 60.0}},
    });
    assert_eq!(*route, expected);
    assert_eq!(sources["other"].as_ref().unwrap()[0].1["hosts"], json!(["other.example"]));
    let fault = |name: &str| sources[name].as_ref().unwrap_err().join("\n");
    for (name, part) in [
        ("broken", "router b: rule Host("),
        ("torn", "all instances must say the same"),
        ("typo", "rul is not taken"),
        ("tcp", "not proxied yet"),
    ] {
        assert!(fault(name).contains(part) && fault(name).contains(&format!("service {name} in Consul")), "{}", fault(name));
    }
    let open = CatalogSettings { exposed_by_default: true, constraints: None, ..settings() };
    let sources = catalog::read(&open, "c", &services(&[("silent", &["v1"]), ("off", &["heddle.enable=false"])]));
    assert_eq!(sources.keys().map(|name| &**name).collect::<Vec<_>>(), ["silent"]);
}

#[test]
fn too_much_is_a_fault_and_not_left_out_in_silence() {
    let enable = "heddle.enable=true".to_owned();
    let long = format!("heddle.http.routers.a.rule=Path(`/{}`)", "x".repeat(5_000));
    let many = (0..2_000).map(|number| format!("heddle.http.routers.r{number}.priority=1"));
    let plain = (0..2_000).map(|number| format!("v{number}"));
    let all = BTreeMap::from([
        ("long".to_owned(), vec![enable.clone(), long]),
        ("many".to_owned(), std::iter::once(enable.clone()).chain(many).collect()),
        ("plain".to_owned(), std::iter::once(enable).chain(plain).collect()),
    ]);
    let sources = catalog::read(&settings(), "c", &all);
    for name in ["long", "many"] {
        assert!(sources[name].as_ref().unwrap_err()[0].contains("ask for routes"), "{name}: {:?}", sources[name]);
    }
    assert_eq!(sources["plain"].as_ref().unwrap().len(), 1, "other tags are nobody's business here");
}

#[test]
fn nobody_redefines_a_middleware_of_another_service() {
    let allow = |range: &str| format!("heddle.http.middlewares.auth.ipallowlist.sourcerange={range}");
    let (inside, all) = (allow("10.0.0.0/8"), allow("0.0.0.0/0"));
    let router = |service: &str| format!("heddle.http.routers.{service}.middlewares=auth");
    let (web, shop) = (router("web"), router("shop"));
    let tags = [("aaa", vec![all.as_str()]), ("web", vec![inside.as_str(), web.as_str()]), ("shop", vec![shop.as_str()])];
    let tags: Vec<(&str, &[&str])> = tags.iter().map(|(name, tags)| (*name, &tags[..])).collect();
    let open = CatalogSettings { exposed_by_default: true, ..settings() };
    let sources = catalog::read(&open, "c", &services(&tags));
    let routes = sources["web"].as_ref().unwrap();
    assert_eq!(routes[0].1["plugins"]["ip-restriction"]["whitelist"], json!(["10.0.0.0/8"]));
    let faults = sources["shop"].as_ref().unwrap_err();
    assert!(faults[0].contains("aaa and web, and not alike"), "{faults:?}");
}

#[test]
fn middlewares_become_plugins() {
    let of = |tags: &[&str], names: &str| {
        let all: Vec<String> = tags.iter().map(|tag| format!("t.http.middlewares.{tag}")).collect();
        let tags = tags::Tags::read(&["t".to_owned()], &all).unwrap();
        let mut defined = middlewares::Defined::default();
        defined.add("web", tags.named("http.middlewares"));
        middlewares::plugins(&tags::list(names), "web", &defined).map(Value::Object)
    };
    let both = ["a.addprefix.prefix=/x", "b.stripprefix.prefixes=/y", "c.addprefix.prefix=/z"];
    assert_eq!(of(&both, "a,b").unwrap(), json!({"proxy-rewrite": {"add_prefix": "/x", "strip_prefixes": ["/y"]}}));
    assert!(of(&both, "a,c").unwrap_err().contains("sets the same"));
    assert_eq!(
        of(
            &[
                "r.redirectregex.replacement=https://b/${1}",
                "r.redirectregex.regex=^http://a/(.*)",
                "r.redirectregex.permanent=true"
            ],
            "r"
        )
        .unwrap(),
        json!({"redirect": {"permanent": true, "regex_url": ["^http://a/(.*)", "https://b/$1"]}})
    );
    assert_eq!(
        of(
            &[
                "h.headers.customrequestheaders.X-A=1",
                "h.headers.customrequestheaders.X-B=2",
                "h.headers.customresponseheaders.X-C=3"
            ],
            "h"
        )
        .unwrap(),
        json!({"headers": {"custom_request_headers": {"x-a": "1", "x-b": "2"}, "custom_response_headers": {"x-c": "3"}}})
    );
    assert_eq!(of(&["i.inflightreq.amount=3"], "i").unwrap()["limit-conn"]["conn"], 3);
    for (tags, part) in [
        (&["a.basicauth.users=x"][..], "basicauth is not taken from tags"),
        (&["a.retry.attempts=x"], "expected a number"),
        (&["a.retry.other=1"], "retry.other is not taken"),
        (&["a.retry.attempts=1", "a.addprefix.prefix=/"], "it is both"),
        (&[], "defined by no tag"),
    ] {
        let told = of(tags, "a").unwrap_err();
        assert!(told.contains(part), "{told}");
    }
}

#[test]
fn constraints_choose_by_tags() {
    let holds = |constraint: &str| tags::satisfies(constraint, &["a".into(), "bee".into()]);
    assert_eq!(holds("Tag(`a`) && TagRegex(`^b`)"), Ok(true));
    assert_eq!(holds("Tag(`b`) || !Tag(`a`)"), Ok(false));
    assert!(holds("Tag(`a`) || Host(`b`)").unwrap_err().contains("expected Tag"));
    assert!(holds("TagRegex(`(`)").is_err());
}

fn rules() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("Host(`a.example`)".to_owned()),
        Just("PathPrefix(`/x`)".to_owned()),
        Just("Method(`GET`)".to_owned()),
        Just("Header(`A-B`, `c`)".to_owned()),
        Just("ClientIP(`10.0.0.0/8`, `::1`)".to_owned()),
    ];
    leaf.prop_recursive(5, 32, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|one| format!("!{one}")),
            prop::collection::vec(inner.clone(), 1..4).prop_map(|all| format!("({})", all.join(" && "))),
            prop::collection::vec(inner, 1..4).prop_map(|all| format!("({})", all.join("||"))),
        ]
    })
}

proptest! {
    /// Nothing that somebody writes as a rule is more than refused.
    #[test]
    fn any_text_is_read_or_refused(text in "[ -~`]{0,60}") {
        if let Ok(rule) = parse(&text) {
            let _ = conditions::routes(&rule);
        }
    }

    /// What a rule becomes is always a valid expression.
    #[test]
    fn rules_give_valid_expressions(text in rules()) {
        let routes = conditions::routes(&parse(&text).unwrap()).unwrap();
        prop_assert!(!routes.is_empty());
        for route in routes {
            if let Some(vars) = route.get("vars") {
                prop_assert_eq!(check_expression(vars), Ok(()), "{}: {}", text, vars);
            }
        }
    }
}

/// No plugins.
struct Nobody;

impl Catalog for Nobody {
    fn descriptors(&self) -> &[Descriptor] {
        &[]
    }

    fn schema(&self, _: &str, _: Place) -> Option<Value> {
        None
    }

    fn check(&self, _: &str, _: Place, _: &Value) -> Result<(), Vec<ConfigFault>> {
        Ok(())
    }
}

fn intention(from: &str, to: &str, says: &Value) -> Intention {
    let mut written = json!({ "SourceName": from, "SourceNS": "default", "DestinationName": to, "DestinationNS": "default" });
    match says.as_str() {
        Some(action) => written["Action"] = action.into(),
        None => written["Permissions"] = says.clone(),
    }
    serde_json::from_value(written).unwrap()
}

/// What Consul's rules say of a call.
fn by_consul(all: &[(String, String, Value)], deny: bool, from: &str, to: &str, (method, path): (&str, &str)) -> bool {
    let order = [(from, to), ("*", to), (from, "*"), ("*", "*")];
    let counts = order.iter().find_map(|(from, to)| all.iter().rfind(|one| one.0 == *from && one.1 == *to));
    let Some((_, _, says)) = counts else { return !deny };
    let Some(permissions) = says.as_array() else { return says == "allow" };
    let fits = |one: &&Value| {
        let http = &one["HTTP"];
        let prefix = http["PathPrefix"].as_str().is_none_or(|prefix| path.starts_with(prefix));
        prefix && http["Methods"].as_array().is_none_or(|methods| methods.iter().any(|one| one == method))
    };
    permissions.iter().find(fits).map_or(!deny, |one| one["Action"] == "allow")
}

/// What sidecars say of it by the policies.
fn by_policies(policies: &[Value], from: &str, to: &str, (method, path): (&str, &str)) -> bool {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let caller = format!("default/{from}");
    let on = |pattern: &Value| match pattern.as_str().unwrap().strip_suffix('*') {
        Some(start) => path.starts_with(start),
        None => pattern == path,
    };
    let rule = |rule: &Value| {
        let source = |one: &Value| {
            let has = |field: &str| one[field].as_array().is_some_and(|names| names.iter().any(|name| *name == *caller));
            (one.get("identities").is_none() || has("identities")) && !has("not_identities")
        };
        let operation = |one: &Value| {
            let methods = list(&one["methods"]);
            let paths = list(&one["paths"]);
            (methods.is_empty() || methods.iter().any(|one| one == method))
                && (paths.is_empty() || paths.iter().any(on))
                && !list(&one["not_paths"]).iter().any(on)
                && !list(&one["not_methods"]).iter().any(|one| one == method)
        };
        let (sources, operations) = (list(&rule["from"]), list(&rule["to"]));
        (sources.is_empty() || sources.iter().any(source)) && (operations.is_empty() || operations.iter().any(operation))
    };
    let of = |action: &str| {
        let mine = policies.iter().filter(|one| one["service"].is_null() || one["service"] == to);
        mine.filter(|one| one["action"] == action).collect::<Vec<_>>()
    };
    let fits = |one: &&Value| list(&one["rules"]).iter().any(rule);
    let allows = of("allow");
    !of("deny").iter().any(fits) && (allows.is_empty() || allows.iter().any(fits))
}

fn policies(sources: &Sources) -> Vec<Value> {
    sources.values().flatten().flatten().map(|(_, value)| value.clone()).collect()
}

fn said() -> impl Strategy<Value = Value> {
    let http = prop_oneof![
        Just(json!({})),
        Just(json!({ "PathPrefix": "/a" })),
        Just(json!({ "Methods": ["GET"] })),
        Just(json!({ "PathPrefix": "/a/b", "Methods": ["PUT"] })),
    ];
    let permission =
        (http, any::<bool>()).prop_map(|(http, allow)| json!({ "Action": if allow { "allow" } else { "deny" }, "HTTP": http }));
    let permissions = prop::collection::vec(permission, 1..4).prop_map(Value::from);
    prop_oneof![2 => Just(json!("allow")), 2 => Just(json!("deny")), 1 => permissions]
}

proptest! {
    /// Whatever intentions there are, policies let in whom Consul would let in, and they are valid.
    #[test]
    fn policies_say_what_intentions_say(
        all in prop::collection::vec((prop::sample::select(vec!["a", "b", "*"]), prop::sample::select(vec!["x", "y", "*"]), said()), 0..8),
        deny in any::<bool>(),
    ) {
        let all: Vec<(String, String, Value)> = all
            .into_iter()
            .filter(|(_, to, says)| *to != "*" || says.is_string())
            .map(|(from, to, says)| (from.to_owned(), to.to_owned(), says))
            .collect();
        let settings = IntentionsSettings { namespace: "default".into(), deny };
        let intentions: Vec<Intention> = all.iter().map(|(from, to, says)| intention(from, to, says)).collect();
        let sources = intentions::read(&settings, "consul", &intentions);
        prop_assert!(sources.values().all(Result::is_ok), "{sources:?}");
        let policies = policies(&sources);
        for policy in &policies {
            let id = policy["id"].as_str().unwrap();
            let valid = crate::model::validate(ResourceKind::AuthorizationPolicy, id, policy, &Nobody);
            prop_assert!(valid.is_ok(), "{}: {:?}", policy, valid.err());
        }
        for from in ["a", "b", "c"] {
            for to in ["x", "y", "z"] {
                for request in [("GET", "/"), ("GET", "/a/b"), ("PUT", "/a/b"), ("PUT", "/a"), ("POST", "/c")] {
                    let expected = by_consul(&all, deny, from, to, request);
                    prop_assert_eq!(by_policies(&policies, from, to, request), expected, "{} to {} {:?}: {:?}", from, to, request, &policies);
                }
            }
        }
    }
}

#[test]
fn intentions_become_policies_and_each_fault_is_its_own() {
    let settings = IntentionsSettings { namespace: "shop".into(), deny: false };
    let odd = json!([{ "Action": "allow", "HTTP": { "PathRegex": ".*" } }]);
    let mut of_peer = intention("web", "peered", &json!("deny"));
    of_peer.source_peer = "other".into();
    let mut with_token = intention("web", "tokens", &json!("allow"));
    with_token.jwt = Some(json!({ "Providers": [{ "Name": "x" }] }));
    let all = [
        intention("web", "db", &json!("deny")),
        intention("Legacy.App", "db", &json!("deny")),
        intention("web", "Legacy.App", &json!("deny")),
        intention("web", "odd", &odd),
        intention("api", "odd", &json!("deny")),
        of_peer,
        with_token,
    ];
    let sources = intentions::read(&settings, "consul", &all);
    let names: Vec<&str> = sources.keys().map(|name| &**name).collect();
    assert_eq!(names, ["intentions to shop/db", "intentions to shop/odd", "intentions to shop/tokens"]);
    let (key, policy) = &sources["intentions to shop/db"].as_ref().unwrap()[0];
    assert_eq!(&*key.id, "db.deny");
    assert_eq!(
        (&policy["id"], &policy["namespace"], &policy["service"]),
        (&json!("db.deny@consul"), &json!("shop"), &json!("db"))
    );
    assert_eq!(policy["rules"], json!([{ "from": [{ "identities": ["shop/web"] }] }]));
    assert!(sources["intentions to shop/odd"].as_ref().unwrap_err()[0].contains("regular expression"));
    assert!(sources["intentions to shop/tokens"].as_ref().unwrap_err()[0].contains("JWT"));
    let closed = IntentionsSettings { deny: true, ..settings };
    let nothing = policies(&intentions::read(&closed, "consul", &[]));
    assert_eq!(nothing.len(), 1);
    assert_eq!((&nothing[0]["id"], &nothing[0]["rules"]), (&json!("all.services.allow@consul"), &json!([])));
    let whole = [intention("web", "db", &json!("allow")), intention("*", "*", &odd)];
    let sources = intentions::read(&closed, "consul", &whole);
    assert!(sources.values().all(Result::is_err), "what is said to all holds everything up: the last good stays");
}
