//! Tests of `cors`.

#![allow(clippy::unwrap_used)]

use heddle_xds::catalog::{Catalog, Place};
use serde_json::{Value, json};

use super::super::testing::{answer, faults, filter_in, passes};
use super::super::{Keep, Registry};
use crate::exchange::testing::request;
use crate::http::{Fields, ResponseHead};

const ORIGIN: &str = "https://a.example";

fn response(config: &Value, fields: &[(&str, &str)]) -> Fields {
    let metadata = json!({"allow_origins": {"partners": "https://p.example,https://q.example"}});
    let filter = filter_in("cors", config, Some(&metadata), &Keep::default());
    let mut x = request("GET", "h", "/", fields);
    assert!(passes(filter.rewrite(&mut x)));
    let mut head = ResponseHead::new(200);
    filter.response_head(&mut x, &mut head);
    head.fields
}

fn allowed(config: Value, origin: &str) -> Option<String> {
    response(&config, &[("Origin", origin)]).get_str("access-control-allow-origin").map(str::to_owned)
}

#[test]
fn defaults_allow_everything_without_credentials() {
    let fields = response(&json!({}), &[("Origin", ORIGIN)]);
    let all: Vec<_> = fields.iter().map(|field| (field.name.to_ascii_lowercase(), field.value.to_vec())).collect();
    let expected = [
        ("access-control-allow-origin", "*"),
        ("access-control-allow-methods", "*"),
        ("access-control-max-age", "5"),
        ("access-control-allow-headers", "*"),
    ];
    assert_eq!(all, expected.map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())));
}

#[test]
fn every_option_is_told() {
    let config = json!({
        "allow_origins": "**", "allow_methods": "**", "allow_headers": "**", "expose_headers": "X-A,X-B",
        "max_age": 60, "allow_credential": true, "timing_allow_origins": "https://a.example",
    });
    let fields = response(&config, &[("Origin", ORIGIN), ("Access-Control-Request-Headers", "x-c")]);
    for (name, expected) in [
        ("access-control-allow-origin", ORIGIN),
        ("access-control-allow-methods", "GET,POST,PUT,DELETE,PATCH,HEAD,OPTIONS,CONNECT,TRACE"),
        ("access-control-allow-headers", "x-c"),
        ("access-control-expose-headers", "X-A,X-B"),
        ("access-control-max-age", "60"),
        ("access-control-allow-credentials", "true"),
        ("timing-allow-origin", ORIGIN),
        ("vary", "Origin"),
    ] {
        assert_eq!(fields.get_str(name), Some(expected), "{name}");
    }
}

#[test]
fn origins_come_from_lists_patterns_and_metadata() {
    let one = || json!({"allow_origins": ORIGIN});
    assert_eq!(allowed(one(), ORIGIN).as_deref(), Some(ORIGIN));
    assert_eq!(allowed(one(), "https://b.example").as_deref(), Some(ORIGIN));
    let several = || json!({"allow_origins": "https://a.example,https://b.example"});
    assert_eq!(allowed(several(), "https://b.example").as_deref(), Some("https://b.example"));
    assert_eq!(allowed(several(), "https://c.example"), None);
    let pattern = || json!({"allow_origins_by_regex": [".*\\.test$"]});
    assert_eq!(allowed(pattern(), "https://x.test").as_deref(), Some("https://x.test"));
    assert_eq!(allowed(pattern(), "https://x.example"), None);
    let metadata = || json!({"allow_origins": ORIGIN, "allow_origins_by_metadata": ["partners", "unknown"]});
    assert_eq!(allowed(metadata(), "https://q.example").as_deref(), Some("https://q.example"));
    let timing = response(&json!({"timing_allow_origins_by_regex": ["^https://"]}), &[("Origin", ORIGIN)]);
    assert_eq!(timing.get_str("timing-allow-origin"), Some(ORIGIN));
}

#[test]
fn preflights_are_answered_at_once() {
    let filter = filter_in("cors", &json!({}), None, &Keep::default());
    let preflight = answer(filter.rewrite(&mut request("OPTIONS", "h", "/", &[("Origin", ORIGIN)])));
    assert_eq!((preflight.head.status, preflight.body.len()), (200, 0));
}

#[test]
fn vary_is_added_once() {
    let filter = filter_in("cors", &json!({"allow_origins": ORIGIN}), None, &Keep::default());
    for (vary, expected) in [("Accept", 2), ("accept, ORIGIN", 1), ("*", 1)] {
        let mut head = ResponseHead::new(200);
        head.fields.append("vary", vary);
        filter.response_head(&mut request("GET", "h", "/", &[]), &mut head);
        assert_eq!(head.fields.get_all("vary").count(), expected, "{vary}");
    }
}

#[test]
fn other_questions_about_options_go_upstream_on_demand() {
    let filter = filter_in("cors", &json!({"only_preflights": true}), None, &Keep::default());
    let (origin, method) = (("Origin", ORIGIN), ("Access-Control-Request-Method", "PUT"));
    for (fields, answered) in [(&[origin, method][..], true), (&[origin], false), (&[method], false), (&[], false)] {
        assert_eq!(!passes(filter.rewrite(&mut request("OPTIONS", "h", "/", fields))), answered, "{fields:?}");
    }
}

#[test]
fn each_field_is_exposed_by_its_name() {
    let filter = filter_in("cors", &json!({"expose_headers": "**"}), None, &Keep::default());
    let mut head = ResponseHead::new(200);
    for (name, value) in [("X-A", "1"), ("Set-Cookie", "a=b"), ("etag", "2")] {
        head.fields.append(name, value);
    }
    filter.response_head(&mut request("GET", "h", "/", &[]), &mut head);
    let exposed = head.fields.get_str("access-control-expose-headers").unwrap();
    assert_eq!(exposed, "X-A,etag");
}

#[test]
fn who_asks_is_remembered_when_the_field_is_taken_off() {
    let metadata = json!({"allow_origins": {"own": "https://m.example,https://a.example"}});
    for config in [
        json!({"allow_origins": "**"}),
        json!({"allow_origins": "https://b.example,https://a.example"}),
        json!({"allow_origins_by_regex": ["a\\.example$"]}),
        json!({"allow_origins": "https://b.example", "allow_origins_by_metadata": ["own"]}),
        json!({"allow_origins": "https://b.example,https://c.example", "allow_origins_by_metadata": ["own"]}),
        json!({"allow_origins": ORIGIN, "timing_allow_origins": "https://b.example,https://a.example"}),
    ] {
        let filter = filter_in("cors", &config, Some(&metadata), &Keep::default());
        let mut x = request("GET", "h", "/", &[("Origin", ORIGIN)]);
        assert!(passes(filter.rewrite(&mut x)));
        x.request.fields.remove("origin");
        let mut head = ResponseHead::new(200);
        filter.response_head(&mut x, &mut head);
        assert_eq!(head.fields.get_str("access-control-allow-origin"), Some(ORIGIN), "{config}");
        let timing = config.get("timing_allow_origins").is_some();
        assert_eq!(head.fields.get_str("timing-allow-origin"), timing.then_some(ORIGIN), "{config}");
    }
}

/// Every way of allowing origins with every kind of request: what the browser is told, and whether caches are.
#[test]
fn all_combinations_of_lists_and_askers() {
    const OTHER: &str = "https://other.example";
    let lists: &[(Option<&str>, [Option<&str>; 3])] = &[
        // The list, then what is told to the listed one, to another one, and to nobody.
        (None, [Some("*"), Some("*"), Some("*")]),
        (Some("*"), [Some("*"), Some("*"), Some("*")]),
        (Some("**"), [Some(ORIGIN), Some(OTHER), Some("*")]),
        (Some("null"), [Some("null"), Some("null"), Some("null")]),
        (Some(ORIGIN), [Some(ORIGIN), Some(ORIGIN), Some(ORIGIN)]),
        (Some("https://a.example,https://b.example"), [Some(ORIGIN), None, None]),
    ];
    let askers = [Some(ORIGIN), Some(OTHER), None];
    for (list, told) in lists {
        for (regex, metadata, credential) in
            [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1), (1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1)]
                .map(|(a, b, c)| (a == 1, b == 1, c == 1))
        {
            let mut config = json!({"allow_methods": "GET", "allow_headers": "X-A", "allow_credential": credential});
            if let Some(list) = list {
                config["allow_origins"] = json!(list);
            }
            if regex {
                config["allow_origins_by_regex"] = json!(["^https://(a|other)\\.example$"]);
            }
            if metadata {
                config["allow_origins_by_metadata"] = json!(["others"]);
            }
            // Patterns and metadata take the place of the default.
            let everybody = *list == Some("*") || (list.is_none() && !regex && !metadata);
            if credential && everybody {
                assert_eq!(faults("cors", &config), ["allow_origins"], "{config}");
                continue;
            }
            for (asker, told) in askers.iter().zip(told) {
                let named = asker.filter(|_| regex || (metadata && *asker == Some(OTHER)));
                let expected = match (list, *told) {
                    // The default gives way to what was written beside it.
                    (None, _) if regex || metadata => named,
                    (_, Some("*")) if *list != Some("**") => Some("*"),
                    (_, told) => {
                        if told == *asker {
                            told
                        } else {
                            named.or(told)
                        }
                    }
                };
                let fields = answered(&config, *asker);
                let context = format!("{config} {asker:?}");
                assert_eq!(fields.get_str("access-control-allow-origin"), expected, "{context}");
                let allowed = expected.is_some();
                assert_eq!(fields.get_str("access-control-allow-methods"), allowed.then_some("GET"), "{context}");
                assert_eq!(fields.get_str("access-control-allow-headers"), allowed.then_some("X-A"), "{context}");
                let credentials = (allowed && credential).then_some("true");
                assert_eq!(fields.get_str("access-control-allow-credentials"), credentials, "{context}");
                assert_eq!(fields.get_str("vary"), (!everybody).then_some("Origin"), "{context}");
            }
        }
    }
}

fn answered(config: &Value, asker: Option<&str>) -> Fields {
    let metadata = json!({"allow_origins": {"others": "https://other.example"}});
    let filter = filter_in("cors", config, Some(&metadata), &Keep::default());
    let fields: Vec<_> = asker.into_iter().map(|origin| ("Origin", origin)).collect();
    let mut x = request("GET", "h", "/", &fields);
    assert!(passes(filter.rewrite(&mut x)));
    let mut head = ResponseHead::new(200);
    filter.response_head(&mut x, &mut head);
    head.fields
}

#[test]
fn mistakes_are_refused() {
    assert_eq!(faults("cors", &json!({"allow_credential": true})), ["allow_origins", "allow_methods", "allow_headers"]);
    assert_eq!(faults("cors", &json!({"allow_origins": "a.example"})), ["allow_origins"]);
    assert_eq!(faults("cors", &json!({"allow_origins_by_regex": ["ok", "("]})), ["allow_origins_by_regex[1]"]);
    assert_eq!(faults("cors", &json!({"allow_origins_by_metadata": []})), ["allow_origins_by_metadata"]);
    assert_eq!(faults("cors", &json!({"expose_headers": "a\r\nb: c"})), ["expose_headers"]);
    let metadata = json!({"allow_origins": {"x": "nope"}});
    assert!(Registry::default().check("cors", Place::Metadata, &metadata).is_err());
}

#[test]
fn patterns_stand_for_the_default_also_with_credentials_and_empty_lists_are_not_told() {
    let config = json!({"allow_origins_by_regex": ["^https://[a-z]+\\.example$"], "allow_credential": true, "allow_methods": "", "allow_headers": ""});
    let fields = response(&config, &[("Origin", ORIGIN), ("Access-Control-Request-Headers", "x-c")]);
    for (name, expected) in [
        ("access-control-allow-origin", Some(ORIGIN)),
        ("access-control-allow-credentials", Some("true")),
        ("access-control-allow-methods", None),
        ("access-control-allow-headers", None),
    ] {
        assert_eq!(fields.get_str(name), expected, "{name}");
    }
    assert_eq!(allowed(config, "https://a.evil"), None);
    let everybody = json!({"allow_credential": true, "allow_methods": "GET", "allow_headers": "x"});
    assert_eq!(faults("cors", &everybody).len(), 1, "credentials are for nobody by default");
}
