//! Which plugins become which filters, and which configurations have no counterpart.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use heddle_proto::envoy::config::core::v3::grpc_service::TargetSpecifier;
use heddle_proto::envoy::config::rbac::v3::principal::Identifier;
use heddle_proto::envoy::config::route::v3 as wire;
use heddle_proto::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use heddle_proto::envoy::config::route::v3::route_action::UpgradeConfig;
use heddle_proto::envoy::extensions::filters::http::cors::v3::CorsPolicy;
use heddle_proto::envoy::extensions::filters::http::ext_authz::v3::check_settings::ServiceOverride;
use heddle_proto::envoy::extensions::filters::http::ext_authz::v3::ext_authz::Services;
use heddle_proto::envoy::extensions::filters::http::ext_authz::v3::ext_authz_per_route::Override;
use heddle_proto::envoy::extensions::filters::http::ext_authz::v3::{CheckSettings, ExtAuthz, ExtAuthzPerRoute};
use heddle_proto::envoy::extensions::filters::http::fault::v3::fault_abort;
use heddle_proto::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit;
use heddle_proto::envoy::extensions::filters::http::rbac::v3::RbacPerRoute;
use proptest::prelude::*;
use serde_json::json;

use super::super::wire::{exact, regex};
use super::*;
use crate::model::{PassHost, PluginOrigin, Route, Scheme, Timeouts, Upstream};

fn plugged(plugins: &[(&str, Value)]) -> Result<Draft, String> {
    plugged_into(Draft::default(), plugins)
}

fn plugged_into(mut draft: Draft, plugins: &[(&str, Value)]) -> Result<Draft, String> {
    for (name, config) in plugins {
        let plugin =
            PluginConf { name: (*name).into(), config: Arc::new(config.clone()), origin: PluginOrigin("route/r".into()) };
        apply(&plugin, &mut draft)?;
    }
    finish(&mut draft)?;
    Ok(draft)
}

fn refused(name: &str, config: Value) -> String {
    plugged(&[(name, config)]).unwrap_err()
}

#[test]
fn several_guards_of_a_route_are_one_rule_in_which_all_hold() {
    let draft = plugged(&[
        ("ip-restriction", json!({ "blacklist": ["10.0.0.0/8", "::1"] })),
        ("ua-restriction", json!({ "denylist": ["curl"], "bypass_missing": true })),
    ]);
    let draft = draft.unwrap();
    assert_eq!(draft.filters.keys().collect::<Vec<_>>(), [RBAC]);
    let rule = RbacPerRoute::decode(&*draft.filters[RBAC].value).unwrap().rbac.unwrap().rules.unwrap();
    let Some(Identifier::AndIds(all)) = &rule.policies["demands"].principals[0].identifier else { panic!("{rule:?}") };
    assert_eq!(all.ids.len(), 3, "addresses, names, and that patterns see the name");
}

#[test]
fn grpc_web_is_switched_on_where_it_does_what_envoy_does() {
    let draft = plugged(&[("grpc-web", json!({ "transparent": true }))]).unwrap();
    assert_eq!(draft.filters.keys().collect::<Vec<_>>(), [GRPC_WEB]);
    for more in [json!({}), json!({ "transparent": true, "max_req_body_size": 5 })] {
        refused("grpc-web", more);
    }
}

#[test]
fn origins_that_are_written_stand_beside_patterns_and_take_the_place_of_all() {
    let cors = |config: Value| {
        let draft = plugged(&[("cors", config)]).unwrap();
        let policy = CorsPolicy::decode(&*draft.filters[CORS].value).unwrap();
        assert_eq!(policy.forward_not_matching_preflights, Some(false), "answered here, as by our agents");
        (policy.allow_origin_string_match, !draft.route.response_headers_to_add.is_empty())
    };
    let (all, one, pattern) = (regex(".*"), exact("https://a.example"), regex(r"(?s).*(?:\.b\.example$).*"));
    assert_eq!(cors(json!({})), (vec![all.clone()], false));
    assert_eq!(cors(json!({ "allow_origins": "**" })), (vec![all], true));
    assert_eq!(cors(json!({ "allow_origins": "https://a.example" })), (vec![one.clone()], true));
    let patterns = json!(["\\.b\\.example$"]);
    assert_eq!(cors(json!({ "allow_origins_by_regex": patterns })), (vec![pattern.clone()], true));
    let both = json!({ "allow_origins": "https://a.example", "allow_origins_by_regex": patterns });
    assert_eq!(cors(both), (vec![pattern, one], true));
}

#[test]
fn where_all_requests_are_aborted_nothing_comes_before_that() {
    let abort = || ("fault-injection", json!({ "abort": { "http_status": 418 } }));
    let redirect = || ("redirect", json!({ "http_to_https": true }));
    assert_eq!(plugged(&[redirect()]).unwrap().before.len(), 4);
    for plugins in [[abort(), redirect()], [redirect(), abort()]] {
        let draft = plugged(&plugins).unwrap();
        assert!(draft.before.is_empty() && draft.answer.is_some());
    }
}

#[test]
fn pages_are_known_by_their_origin_and_never_by_tokens() {
    let draft = plugged(&[("csrf", json!({ "by_origin": { "additional": ["^app\\."] } }))]).unwrap();
    let policy = CsrfPolicy::decode(&*draft.filters[CSRF].value).unwrap();
    assert_eq!(policy.additional_origins, [regex(r"(?s)\C*(?:^app\.)\C*")]);
    assert!(refused("csrf", json!({ "key": "secret" })).contains("tokens"));
    assert!(plugged(&[("csrf", json!({ "by_origin": { "additional": ["[a&&b]"] } }))]).is_err());
}

#[test]
fn limits_are_buckets() {
    let limit = |name: &str, config: Value| {
        let draft = plugged(&[(name, config)]).unwrap();
        let (_, limit) = draft.filters.into_iter().next().unwrap();
        LocalRateLimit::decode(&*limit.value).unwrap()
    };
    let counted = limit("limit-count", json!({ "count": 5, "time_window": 60, "rejected_code": 429 }));
    let bucket = counted.token_bucket.unwrap();
    assert_eq!((bucket.max_tokens, bucket.tokens_per_fill, bucket.fill_interval.unwrap().seconds), (5, Some(5), 60));
    assert_eq!((counted.status.unwrap().code, counted.descriptors.len()), (429, 1), "each client for itself");
    let together = limit("limit-count", json!({ "count": 5, "time_window": 60, "key": "x", "key_type": "constant" }));
    assert!(together.descriptors.is_empty() && together.rate_limits.is_empty());
    let leaky = limit("limit-req", json!({ "rate": 0.5, "burst": 3, "key": "remote_addr", "nodelay": true }));
    let bucket = leaky.token_bucket.unwrap();
    assert_eq!((bucket.max_tokens, bucket.tokens_per_fill, bucket.fill_interval.unwrap().seconds), (4, Some(500), 1000));
    for (name, config, reason) in [
        ("limit-count", json!({ "count": 5, "time_window": 60, "policy": "redis" }), "policy"),
        ("limit-count", json!({ "count": "$http_x", "time_window": 60 }), "count"),
        ("limit-count", json!({ "count": 5, "time_window": 60, "key": "http_x" }), "key"),
        ("limit-count", json!({ "count": 5, "time_window": 60, "rejected_code": 200 }), "rejected_code"),
        ("limit-count", json!({ "count": 5, "time_window": 60, "group": "g" }), "group"),
        ("limit-req", json!({ "rate": 1, "burst": 3, "key": "remote_addr" }), "nodelay"),
        ("limit-req", json!({ "rate": 0.0001, "burst": 0, "key": "remote_addr", "nodelay": true }), "such a rate"),
    ] {
        assert!(refused(name, config.clone()).starts_with(reason), "{name} {config}");
    }
}

#[test]
fn each_way_to_compress_is_a_filter_of_the_listener() {
    let one = plugged(&[("gzip", json!({}))]).unwrap();
    let same = plugged(&[("gzip", json!({ "vary": true }))]).unwrap();
    let other = plugged(&[("gzip", json!({ "types": ["text/css"] }))]).unwrap();
    assert_eq!(one.further, same.further);
    assert_ne!(one.further, other.further);
    let name = one.further.keys().next().unwrap();
    assert!(one.filters.contains_key(name) && one.further[name].disabled);
    assert_eq!(chain(&one.further).len(), chain(&Filters::new()).len() + 1);
    assert!(refused("gzip", json!({ "types": "*" })).starts_with("types"));
}

#[test]
fn copies_go_to_a_cluster_of_their_own() {
    let draft = plugged(&[("proxy-mirror", json!({ "host": "http://10.0.0.1:8080", "sample_ratio": 0.25 }))]).unwrap();
    let (name, extra) = draft.copies.iter().next().unwrap();
    let policy = &draft.action.request_mirror_policies[0];
    assert_eq!((policy.cluster.as_str(), extra.upstream.breakers.max_requests), (&**name, Some(64)));
    assert_eq!(policy.runtime_fraction.as_ref().unwrap().default_value.as_ref().unwrap().numerator, 250_000);
    assert!(refused("proxy-mirror", json!({ "host": "http://a", "path": "/b" })).starts_with("path"));
}

#[test]
fn fields_are_set_and_removed() {
    let config = json!({ "custom_request_headers": { "x-a": "1", "x-b": "" }, "frame_deny": true, "custom_frame_options_value": "SAMEORIGIN" });
    let route = plugged(&[("headers", config)]).unwrap().route;
    assert_eq!(route.request_headers_to_remove, ["x-b"]);
    assert_eq!((route.request_headers_to_add.len(), route.response_headers_to_add.len()), (1, 1));
    assert!(refused("headers", json!({ "sts_seconds": 1 })).starts_with("sts_seconds"));
    assert!(refused("headers", json!({ "custom_request_headers": { "Host": "x" } })).starts_with("custom_request_headers.Host"));
}

#[test]
fn what_is_set_to_nothing_takes_the_place_of_what_the_client_said() {
    for (name, config) in [
        ("proxy-rewrite", json!({ "headers": { "set": { "x-role": "" } } })),
        ("proxy-rewrite", json!({ "headers": { "x-role": " " } })),
        ("proxy-rewrite", json!({ "headers": { "add": { "x-role": "" } } })),
        ("response-rewrite", json!({ "headers": { "add": ["x-role:"] } })),
    ] {
        let route = plugged(&[(name, config.clone())]).unwrap().route;
        let option = route.request_headers_to_add.into_iter().chain(route.response_headers_to_add).next().unwrap();
        assert!(option.keep_empty_value && option.header.unwrap().value.is_empty(), "{name} {config}");
    }
    let route =
        plugged(&[("proxy-rewrite", json!({ "headers": { "set": { "x-a": "1" }, "add": { "x-a": "2" } } }))]).unwrap().route;
    let values: Vec<_> = route.request_headers_to_add.into_iter().map(|option| option.header.unwrap().value).collect();
    assert_eq!(values, ["1"], "what is set replaces what was added, where Envoy would add it to what is set");
}

/// What Envoy makes of the edits of a route in the request of a client that says nothing, in its order: it removes, looks what is absent, sets and adds.
fn made_by_envoy(route: &wire::Route, field: &str) -> Vec<String> {
    use base::header_value_option::HeaderAppendAction::{AddIfAbsent, AppendIfExistsOrAdd, OverwriteIfExistsOrAdd};
    let of = |action| {
        let options = route.request_headers_to_add.iter().filter(move |option| option.append_action() == action);
        let headers = options.filter_map(|option| option.header.as_ref()).filter(|header| header.key.eq_ignore_ascii_case(field));
        headers.map(|header| header.value.clone()).collect::<Vec<_>>()
    };
    let set = of(OverwriteIfExistsOrAdd).pop();
    set.into_iter().chain(of(AddIfAbsent)).chain(of(AppendIfExistsOrAdd)).collect()
}

#[test]
fn of_several_edits_of_a_field_the_one_decides_that_does_at_our_agents() {
    let conf = |(name, config): &(&str, Value)| PluginConf {
        name: (*name).into(),
        config: Arc::new(config.clone()),
        origin: PluginOrigin("route/r".into()),
    };
    let drafted = |own: &[(&str, Value)], everywhere: &[(&str, Value)]| {
        let route = Route { plugins: own.iter().map(conf).collect(), ..super::super::tests::route("r", "/", &[], 0) };
        let mut draft = Draft::default();
        draft.plug(&route, &everywhere.iter().map(conf).collect::<Vec<_>>())?;
        Ok::<_, String>(draft.route)
    };
    let made = |own: &[(&str, Value)], everywhere: &[(&str, Value)]| made_by_envoy(&drafted(own, everywhere).unwrap(), "x");
    let rewrite = |headers: Value| ("proxy-rewrite", json!({ "headers": headers }));
    let headers = |value: &str| ("headers", json!({ "custom_request_headers": { "X": value } }));
    assert_eq!(made(&[rewrite(json!({ "set": { "x": "1" } })), headers("2")], &[]), ["1"], "by priority, not as they are listed");
    assert_eq!(made(&[rewrite(json!({ "add": { "x": "1" } })), headers("2")], &[]), ["2", "1"]);
    assert_eq!(made(&[rewrite(json!({ "remove": ["X"] })), headers("2")], &[]), Vec::<String>::new());
    assert_eq!(made(&[rewrite(json!({ "set": { "x": "1" } })), headers("")], &[]), ["1"]);
    assert_eq!(
        made(&[headers("route")], &[rewrite(json!({ "set": { "x": "all" } }))]),
        ["route"],
        "the route comes after global rules"
    );
    assert_eq!(made(&[headers("")], &[rewrite(json!({ "set": { "x": "all" } }))]), Vec::<String>::new());
    let id = || ("request-id", json!({ "header_name": "x" }));
    assert_eq!(
        made(&[rewrite(json!({ "set": { "x": "1" } })), id()], &[]),
        ["1"],
        "one line, though the field is absent when Envoy looks"
    );
    assert_eq!(made(&[rewrite(json!({ "add": { "x": "1" } })), id()], &[]), ["%UNIQUE_ID%", "1"]);
    let reason = drafted(&[id()], &[rewrite(json!({ "set": { "x": "1" } }))]).unwrap_err();
    assert_eq!(reason, "plugin request-id: headers.x: is set or added before, where Envoy would not find it");
    let framed = ("headers", json!({ "frame_deny": true, "custom_response_headers": { "X-Frame-Options": "SAMEORIGIN" } }));
    let told =
        drafted(&[("cors", json!({ "allow_origins": "https://a.example" })), framed], &[]).unwrap().response_headers_to_add;
    let told: Vec<_> = told.into_iter().filter_map(|option| option.header).map(|header| header.value).collect();
    assert_eq!(told, ["Origin", "SAMEORIGIN"], "what the map says goes before what a switch does");
    let reset = ("response-rewrite", json!({ "headers": { "Vary": "Cookie" } }));
    let told = drafted(&[reset, ("cors", json!({ "allow_origins": "https://a.example" }))], &[]).unwrap().response_headers_to_add;
    assert_eq!(told.len(), 1, "what is set last takes the place of what cors tells caches");
}

#[test]
fn what_envoy_would_refuse_all_routes_for_is_withheld() {
    for field in ["Host", ":path", "Content-Length", "transfer-encoding", "Connection", ""] {
        for (plugin, config) in [
            ("proxy-rewrite", json!({ "headers": { "set": { field: "a" } } })),
            ("proxy-rewrite", json!({ "headers": { "add": { field: "a" } } })),
            ("proxy-rewrite", json!({ "headers": { "remove": [field] } })),
            ("response-rewrite", json!({ "headers": { field: "a" } })),
            ("response-rewrite", json!({ "headers": { "remove": [field] } })),
            ("fault-injection", json!({ "abort": { "http_status": 503, "headers": { field: "a" } } })),
            ("headers", json!({ "custom_request_headers": { field: "" } })),
            ("headers", json!({ "custom_response_headers": { field: "a" } })),
            ("request-id", json!({ "header_name": field })),
        ] {
            assert!(plugged(&[(plugin, config.clone())]).is_err(), "{plugin} {config}");
        }
    }
    let long = "%".repeat(8_193);
    for (plugin, config, reason) in [
        ("proxy-rewrite", json!({ "headers": { "set": { "x": long } } }), "headers.x"),
        ("headers", json!({ "content_security_policy": long }), "headers.content-security-policy"),
        ("fault-injection", json!({ "abort": { "http_status": 503, "body": "x".repeat(4_097) } }), "abort.body"),
        ("fault-injection", json!({ "delay": { "duration": 1e12 } }), "delay.duration"),
        ("limit-count", json!({ "count": 5, "time_window": 1_000_000_000_000_u64 }), "time_window"),
    ] {
        assert!(refused(plugin, config).starts_with(reason), "{plugin} {reason}");
    }
    assert!(plugged(&[("fault-injection", json!({ "abort": { "body": "x".repeat(4_096) } }))]).is_ok());
}

#[test]
fn paths_are_rewritten_to_what_our_agents_write_or_not_at_all() {
    let rewritten = |config: Value| {
        let rewrite = plugged(&[("proxy-rewrite", config)])?.action.regex_rewrite.unwrap();
        Ok::<_, String>(rewrite.substitution)
    };
    assert_eq!(rewritten(json!({ "uri": "/é/x" })).unwrap(), "/%C3%A9/x");
    assert_eq!(rewritten(json!({ "regex_uri": ["^/a/(.*)/(b)$", "/é/$2/$1$0"] })).unwrap(), r"/%C3%A9/\2/\1\0");
    assert_eq!(rewritten(json!({ "regex_uri": ["^(/a)|^/b", "/c"] })).unwrap(), "/c");
    assert_eq!(rewritten(json!({ "regex_uri": ["^/a/(.*)", "/b/${1}_v2/$1.x"] })).unwrap(), r"/b/\1_v2/\1.x");
    assert_eq!(rewritten(json!({ "uri": "/%7ea/%c3%a9/{b}|/%2f" })).unwrap(), "/~a/%C3%A9/%7Bb%7D%7C/%2F", "as it is compared");
    for config in [
        json!({ "uri": "/a b" }),
        json!({ "uri": "/a?b" }),
        json!({ "uri": "/a#b" }),
        json!({ "uri": "/a/../b" }),
        json!({ "uri": "/%2e%2e/b" }),
        json!({ "uri": "/..%3Bx" }),
        json!({ "uri": "/100%" }),
        json!({ "uri": "/%00" }),
        json!({ "regex_uri": ["^/a/(.*)", "/b/$1_v2"] }),
        json!({ "regex_uri": ["^/a/(.*)", "/b/$1v2"] }),
        json!({ "regex_uri": ["^/a/(.*)", "/b/${1"] }),
        json!({ "regex_uri": ["^/a/(.*)", "/b/${host}"] }),
        json!({ "regex_uri": ["^/a/(.*)", "/b/%$1"] }),
        json!({ "regex_uri": ["^/a/(.*)", "/b/.$1"] }),
        json!({ "regex_uri": ["^/q/(.*)$", "/x/$1?from=gw"] }),
        json!({ "regex_uri": ["^/zz|q", "/x"] }),
        json!({ "regex_uri": ["^/q", "/x/$9"] }),
        json!({ "regex_uri": ["^/(q)", "/x/$10"] }),
        json!({ "regex_uri": ["^/(q)", "/x/$host"] }),
        json!({ "regex_uri": ["^/(q)", "/x/$"] }),
    ] {
        assert!(rewritten(config.clone()).is_err(), "{config}");
    }
}

#[test]
fn the_lower_bound_of_bodies_counts() {
    let both = [("client-control", json!({ "max_body_size": 10 })), ("buffering", json!({ "response": false }))];
    assert_eq!(plugged(&both).unwrap().held, Some(10));
    assert!(refused("buffering", json!({})).starts_with("response"));
    assert_eq!(plugged(&[("client-control", json!({}))]).unwrap().held, None);
}

#[test]
fn a_body_that_says_that_it_is_too_long_is_refused_before_it_is_held() {
    let both = [("client-control", json!({ "max_body_size": 10 })), ("buffering", json!({ "response": false }))];
    let fault = HttpFault::decode(&*plugged(&both).unwrap().filters[SIZE].value).unwrap();
    let Some(HeaderMatchSpecifier::RangeMatch(longer)) = &fault.headers[0].header_match_specifier else { panic!() };
    assert_eq!((&*fault.headers[0].name, longer.start), ("content-length", 11));
    assert_eq!(fault.abort.unwrap().error_type, Some(fault_abort::ErrorType::HttpStatus(413)));
    let names: Vec<String> = chain(&Filters::new()).into_iter().map(|filter| filter.name).collect();
    let place = |name: &str| names.iter().position(|other| other == name).unwrap();
    assert!(place(CORS) < place(SIZE) && place(SIZE) < place(BUFFER), "{names:?}");
}

#[test]
fn tries_are_bounded_by_what_the_plugin_says() {
    let config = json!({ "attempts": 3, "statuses": [503, "500-502"], "initial_interval": 0.25, "methods": ["GET", "POST"] });
    let policy = plugged(&[("retry", config)]).unwrap().action.retry_policy.unwrap();
    assert_eq!((policy.num_retries, policy.retriable_status_codes), (Some(2), vec![503, 500, 501, 502]));
    assert!(policy.retry_on.ends_with(",reset,retriable-status-codes"), "{}", policy.retry_on);
    let rest = policy.retry_back_off.unwrap();
    assert_eq!((rest.base_interval.unwrap().nanos, rest.max_interval.unwrap().nanos), (250_000_000, 500_000_000));
    let methods: Vec<String> = policy.retriable_request_headers.iter().map(|method| format!("{method:?}")).collect();
    assert!(methods[0].contains(r#"Exact("GET")"#) && methods[1].contains(r#"Exact("POST")"#), "{methods:?}");
    assert_eq!((policy.retry_host_predicate.len(), policy.retry_priority.is_some()), (1, true), "where it was not tried yet");
    let once = plugged(&[("retry", json!({ "attempts": 1 }))]).unwrap().action.retry_policy.unwrap();
    assert_eq!((once.num_retries, &*once.retry_on), (Some(0), ""));
    let plain = plugged(&[("retry", json!({ "attempts": 2, "on_network_error": false }))]).unwrap();
    assert_eq!(plain.action.retry_policy.unwrap().retry_on, "connect-failure,refused-stream,reset-before-request");
    let calls = json!({ "attempts": 2, "on_network_error": false, "grpc_statuses": ["UNAVAILABLE", "DEADLINE_EXCEEDED"] });
    let calls = plugged(&[("retry", calls)]).unwrap().action.retry_policy.unwrap();
    assert_eq!(calls.retry_on, "connect-failure,refused-stream,reset-before-request,unavailable,deadline-exceeded");
    assert!(refused("retry", json!({ "attempts": 2, "grpc_statuses": ["ABORTED"] })).starts_with("grpc_statuses"));
    assert!(refused("retry", json!({ "attempts": 2, "timeout": 1 })).starts_with("timeout"));
    assert!(refused("retry", json!({ "attempts": 2, "total_timeout": 1 })).starts_with("total_timeout"));
    assert!(refused("retry", json!({ "attempts": 2, "statuses": ["5xx"] })).starts_with("statuses"));
}

#[test]
fn each_try_is_waited_for_as_long_as_by_an_agent() {
    let limited = |config: Value| {
        let timeouts = Timeouts { connect: Duration::from_secs(1), send: Duration::from_secs(2), read: Duration::from_secs(4) };
        let draft = Draft { timeouts: Some(timeouts), ..Draft::default() };
        let action = plugged_into(draft, &[("retry", config)]).unwrap().action;
        let each = action.retry_policy.and_then(|policy| policy.per_try_idle_timeout).map(|each| each.seconds);
        (each, action.idle_timeout.map(|silent| silent.seconds))
    };
    let all = json!({ "attempts": 3, "initial_interval": 1, "max_interval": 5 });
    assert_eq!(limited(all), (Some(4), Some(30)), "three times a connection, an answer and a rest");
    assert_eq!(limited(json!({ "attempts": 1 })), (Some(4), Some(5)));
}

#[test]
fn who_clients_are_is_withheld_where_envoy_could_not_tell() {
    for (name, config, reason) in [
        ("key-auth", json!({ "anonymous_consumer": "guest" }), "anonymous_consumer"),
        ("jwt-auth", json!({ "hide_credentials": true }), "hide_credentials"),
        ("jwt-auth", json!({ "claims_to_verify": ["nbf"] }), "claims_to_verify"),
        ("jwt-auth", json!({ "algorithms": ["RS256"], "jwks_url": "http://a" }), "algorithms"),
        ("jwt-auth", json!({}), "no consumer"),
    ] {
        assert!(refused(name, config.clone()).starts_with(reason), "{name} {config}");
    }
    let free = json!({ "jwks_url": "http://a/b", "consumer_required": false });
    assert!(refused("jwt-auth", free).starts_with("consumer_required"));
}

#[test]
fn routes_say_whom_to_ask_and_a_script_makes_the_question_ours() {
    let config =
        json!({ "uri": "http://10.0.0.1:81?a='b@", "upstream_headers": ["X-User", "Host"], "extra_headers": { "X-A": 1 } });
    let draft = plugged(&[("forward-auth", config)]).unwrap();
    assert!(draft.filters.contains_key("heddle.forward-auth") && draft.filters.contains_key(RBAC), "which demands the consent");
    assert!(draft.further.is_empty(), "it stands in every listener");
    let (name, extra) = draft.copies.iter().next().unwrap();
    let script = extra.script.as_deref().unwrap();
    assert!(name.starts_with("asked/http://10.0.0.1:81/1024/"), "{name}");
    assert!(script.contains(r"h:replace(':path','/?a=\039b\064')") && script.contains("in ipairs({'x-user'})"), "{script}");
    assert!(!script.contains('@'), "{script}");
    let own = plugged(&[("forward-auth", json!({ "uri": "http://a", "status_on_error": 503 }))]).unwrap();
    assert!(own.further.contains_key("heddle.forward-auth.503"));
    let config = Arc::new(json!({ "uri": "http://a" }));
    let plugin = PluginConf { name: "forward-auth".into(), config, origin: PluginOrigin("route/r".into()) };
    let mut live = Draft::default();
    live.action.upgrade_configs.push(UpgradeConfig {
        upgrade_type: "websocket".to_owned(),
        enabled: Some(true),
        ..Default::default()
    });
    assert!(apply(&plugin, &mut live).unwrap_err().starts_with("enable_websocket"));
    for (more, reason) in [
        (json!({ "allow_degradation": true }), "allow_degradation"),
        (json!({ "extra_headers": { "X-A": "$host" } }), "extra_headers.x-a"),
        (json!({ "extra_headers": { "Host": "a" } }), "extra_headers.host"),
        (json!({ "extra_headers": { "X-A": "%".repeat(8193) } }), "extra_headers.x-a"),
        (json!({ "status_on_error": 418 }), "status_on_error"),
        (json!({ "status_on_error": 520 }), "status_on_error"),
        (json!({ "signin_url": "http://b" }), "signin_url"),
        (json!({ "uri": "http://user@a" }), "uri"),
    ] {
        let mut config = json!({ "uri": "http://a" });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert!(refused("forward-auth", config).starts_with(reason), "{reason}");
    }
}

fn check_settings(draft: &Draft, name: &str) -> CheckSettings {
    let per_route = ExtAuthzPerRoute::decode(&*draft.filters[name].value).unwrap();
    let Some(Override::CheckSettings(settings)) = per_route.r#override else { panic!("{per_route:?}") };
    settings
}

fn demanded(draft: &Draft) -> String {
    format!("{:?}", RbacPerRoute::decode(&*draft.filters[RBAC].value).unwrap().rbac.unwrap().rules.unwrap())
}

#[test]
fn routes_say_whom_to_ask_by_grpc_and_a_note_says_that_it_was_done() {
    let config = json!({ "protocol": "grpc", "upstream_id": "upstreams/judge", "timeout": 250, "headers_to_add": { "X-By": "100%" },
        "context_extensions": { "tier": "gold" }, "with_request_body": { "max_request_bytes": 9, "allow_partial_message": true } });
    let draft = plugged(&[("ext-authz", config.clone())]).unwrap();
    assert!(draft.further.is_empty() && draft.copies.is_empty(), "it stands in every listener, and the upstream is there anyhow");
    assert_eq!(draft.asked.iter().map(|name| &**name).collect::<Vec<_>>(), ["upstreams/judge"]);
    assert!(draft.filters.contains_key("heddle.ext-authz/passed") && demanded(&draft).contains("\"heddle.ext-authz\""));
    let settings = check_settings(&draft, "heddle.ext-authz");
    assert_eq!(settings.context_extensions, [("tier".to_owned(), "gold".to_owned())].into());
    let body = settings.with_request_body.unwrap();
    assert_eq!((body.max_request_bytes, body.allow_partial_message, body.pack_as_bytes), (9, true, false));
    let Some(ServiceOverride::GrpcService(service)) = settings.service_override else {
        panic!("{:?}", settings.service_override)
    };
    let Some(TargetSpecifier::EnvoyGrpc(target)) = service.target_specifier else { panic!("{service:?}") };
    assert_eq!((target.cluster_name.as_str(), target.authority.as_str()), ("upstreams/judge", "judge"));
    assert_eq!(service.timeout.unwrap().nanos, 250_000_000);
    assert_eq!((service.initial_metadata[0].key.as_str(), service.initial_metadata[0].value.as_str()), ("x-by", "100%%"));
    let config = Arc::new(config);
    let plugin = PluginConf { name: "ext-authz".into(), config, origin: PluginOrigin("route/r".into()) };
    let mut agents = Draft { reader: crate::dialect::envoy::encode::Reader::Agent, ..Draft::default() };
    apply(&plugin, &mut agents).unwrap();
    assert!(agents.demands.is_empty() && agents.filters.len() == 1, "our agents change filters and routes at once");
}

#[test]
fn what_only_listeners_can_say_of_a_question_stands_there_with_whom_to_ask() {
    let asks = |more: Value| {
        let mut config = json!({ "protocol": "grpc", "upstream_id": "routes/1/ext-authz/0" });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        plugged(&[("ext-authz", config)])
    };
    for more in [
        json!({ "failure_mode_allow": true }),
        json!({ "status_on_error": 503 }),
        json!({ "include_peer_certificate": true }),
        json!({ "include_tls_session": true }),
        json!({ "allowed_headers": ["x-.*"] }),
        json!({ "disallowed_headers": ["Cookie"] }),
        json!({ "with_request_body": { "max_request_bytes": 9, "pack_as_bytes": true } }),
    ] {
        let draft = asks(more.clone()).unwrap();
        let names: Vec<&str> = draft.further.keys().map(String::as_str).collect();
        let [name, note] = names[..] else { panic!("{more}: {names:?}") };
        assert!(name.starts_with("heddle.ext-authz.") && note == format!("{name}/passed"), "{more}: {names:?}");
        assert!(demanded(&draft).contains(&format!("{name:?}")), "{more}");
        let settings = check_settings(&draft, name);
        assert_eq!((settings.service_override, settings.with_request_body), (None, None), "{more}");
        let Some(manager::http_filter::ConfigType::TypedConfig(config)) = &draft.further[name].config_type else {
            panic!("{more}")
        };
        let filter = ExtAuthz::decode(&*config.value).unwrap();
        let Some(Services::GrpcService(service)) = &filter.services else { panic!("{filter:?}") };
        let Some(TargetSpecifier::EnvoyGrpc(target)) = &service.target_specifier else { panic!("{service:?}") };
        assert_eq!(target.authority, "routes-1-ext-authz-0", "names of upstreams are no names of hosts");
        let chain: Vec<String> = chain(&draft.further).into_iter().map(|filter| filter.name).collect();
        let place = |name: &str| chain.iter().position(|known| known == name).unwrap();
        assert!(
            place(name) < place(note) && place(note) < place(RBAC),
            "noted when it has let pass, judged behind both: {chain:?}"
        );
    }
    for (more, reason) in [
        (json!({ "protocol": "http" }), "protocol"),
        (json!({ "failure_mode_allow": true, "allowed_upstream_headers": ["x-user"] }), "allowed_upstream_headers"),
        (json!({ "headers_to_add": { "X-A": "$host" } }), "headers_to_add.x-a"),
        (json!({ "headers_to_add": { "Host": "a" } }), "headers_to_add.host"),
        (json!({ "headers_to_add": { "grpc-timeout": "1S" } }), "headers_to_add.grpc-timeout"),
        (json!({ "headers_to_add": { "X-A": "%".repeat(8193) } }), "headers_to_add.x-a"),
        (json!({ "allowed_headers": ["[a&&b]"] }), "allowed_headers"),
        (json!({ "disallowed_headers": ["\\p{L}"] }), "disallowed_headers"),
        (json!({ "with_request_body": {} }), "with_request_body.max_request_bytes"),
        (json!({ "with_request_body": { "max_request_bytes": 1, "later": 1 } }), "with_request_body.later"),
        (json!({ "status_on_error": 418 }), "status_on_error"),
        (json!({ "retries": 1 }), "retries"),
    ] {
        assert!(asks(more).unwrap_err().starts_with(reason), "{reason}");
    }
    assert!(refused("ext-authz", json!({ "upstream_id": "a" })).starts_with("protocol"), "which is HTTP where nothing is said");
    assert!(refused("ext-authz", json!({ "protocol": "grpc" })).starts_with("upstream_id"));
}

#[test]
fn only_upstreams_that_envoy_calls_as_our_agents_do_are_asked() {
    let upstream = |scheme: Scheme, pass_host: PassHost| Upstream { scheme, pass_host, ..Upstream::new("u") };
    assert_eq!(askable("u", Some(&upstream(Scheme::Grpc, PassHost::Pass))), Ok(()));
    assert_eq!(askable("u", Some(&upstream(Scheme::Grpcs, PassHost::Pass))), Ok(()));
    for (found, reason) in [
        (None, "is none of those that it is given"),
        (Some(upstream(Scheme::Https, PassHost::Pass)), "speaks no gRPC"),
        (Some(upstream(Scheme::Grpc, PassHost::Node)), "has a pass_host"),
        (Some(upstream(Scheme::Grpc, PassHost::Rewrite("a".into()))), "has a pass_host"),
    ] {
        let told = askable("u", found.as_ref()).unwrap_err();
        assert!(told.starts_with(&format!("plugin ext-authz: upstream u {reason}")), "{told}");
    }
}

#[test]
fn the_page_has_a_row_for_each_plugin_that_something_is_to_be_said_of() {
    let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let page = std::fs::read_to_string(docs.join("xds.md")).unwrap();
    let (_, table) = page.split_once("## Field by field").unwrap();
    let (table, _) = table.split_once("| other plugins | | withheld |").expect("the rest is withheld");
    let first = table.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    let rows: BTreeSet<&str> = first.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    let pages = std::fs::read_dir(docs.join("plugins")).unwrap().map(|entry| entry.unwrap().path());
    let plugins: Vec<String> = pages
        .filter(|page| page.extension().is_some_and(|end| end == "md"))
        .map(|page| page.file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|name| !["README", "migration"].contains(&name.as_str()))
        .collect();
    assert!(plugins.len() > 50, "{plugins:?}");
    let lacks = |name: &str| plugged(&[(name, json!({}))]).err().as_deref() == Some("Envoy has no counterpart");
    let wrong: Vec<&String> = plugins.iter().filter(|name| lacks(name) == rows.contains(name.as_str())).collect();
    assert!(wrong.is_empty(), "either a row too much, or one that is missing: {wrong:?}");
    assert!(refused("basic-auth", json!({})).contains("SHA-1"));
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        proptest::prelude::any::<bool>().prop_map(Value::from),
        proptest::prelude::any::<i64>().prop_map(Value::from),
        proptest::prelude::any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-z_]{1,8}", inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    /// Configurations are checked before, but nothing that could come makes the encoder stumble.
    #[test]
    fn no_configuration_makes_it_panic(
        name in proptest::sample::select(vec![
            "cors", "fault-injection", "redirect", "ip-restriction", "ua-restriction", "uri-blocker", "limit-count", "limit-req",
            "client-control", "buffering", "gzip", "headers", "proxy-rewrite", "response-rewrite", "proxy-mirror", "traffic-split", "key-auth",
            "jwt-auth", "forward-auth", "ext-authz", "brotli", "zstd", "request-id", "referer-restriction", "retry",
        ]),
        field in proptest::sample::select(vec![
            "allow_origins", "delay", "abort", "uri", "whitelist", "denylist", "block_rules", "count", "time_window", "rate", "burst", "average",
            "period", "max_body_size", "types", "min_length", "comp_level", "custom_request_headers", "headers", "host", "sample_ratio", "rules",
            "regex_uri", "rejected_code", "nodelay", "jwks_url", "issuers", "header_name", "lgwin", "upstream_id", "with_request_body", "headers_to_add", "allowed_headers", "protocol",
        ]),
        value in any_value(),
        nodelay in proptest::prelude::any::<bool>(),
    ) {
        let mut config = Map::from_iter([("nodelay".to_owned(), Value::from(nodelay)), ("count".to_owned(), Value::from(1))]);
        config.insert(field.to_owned(), value);
        let _ = plugged(&[(name, Value::Object(config))]);
    }
}

#[test]
fn bodies_are_bounded_before_anything_that_may_wait() {
    let chain = chain(&Filters::new());
    let first: Vec<&str> = chain.iter().take(3).map(|filter| &*filter.name).collect();
    assert_eq!(first, [CORS, SIZE, BUFFER], "what a filter before it keeps while it waits would come by uncounted");
}
