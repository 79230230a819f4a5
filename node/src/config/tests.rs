//! Documents are read whole, located exactly, and never trusted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn environment(name: &str) -> Option<String> {
    match name {
        "HOST" => Some("example.org".into()),
        "PORT" => Some("9080".into()),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

fn yaml(text: &str) -> Result<Document, Mistakes> {
    Document::parse("heddle.yaml", text, Format::Yaml, Expansion::All(&environment))
}

fn json_of(text: &str) -> Value {
    yaml(text).unwrap().to_json()
}

fn fault(text: &str) -> String {
    yaml(text).unwrap_err().to_string()
}

#[test]
fn scalars_follow_the_core_schema() {
    let text = "a: [~, null, true, False, 12, -3, +4, 0x1F, 0o17, 1.5, 1e3, off, yes, 1.2.3.4, '12', \"true\", 12a, -, ., 18446744073709551615, 99999999999999999999]";
    let expected = json!([
        null,
        null,
        true,
        false,
        12,
        -3,
        4,
        31,
        15,
        1.5,
        1000.0,
        "off",
        "yes",
        "1.2.3.4",
        "12",
        "true",
        "12a",
        "-",
        ".",
        u64::MAX,
        1e20
    ]);
    assert_eq!(json_of(&text.replace(" -,", " \"-\","))["a"], expected);
    assert!(fault("a: .inf").contains("1:4: expected a finite number"), "{}", fault("a: .inf"));
}

#[test]
fn an_empty_file_is_nothing() {
    assert_eq!(json_of(""), Value::Null);
    assert_eq!(json_of("# only a comment\n#END\n"), Value::Null);
    assert_eq!(json_of("\u{feff}a: 1"), json!({"a": 1}));
}

#[test]
fn aliases_and_merge_keys_are_resolved() {
    let text = "base: &b {x: 1, y: 2}\nother: &o {y: 3, z: 4}\nall:\n  <<: [*b, *o]\n  x: 9\nlist: [*b]\n";
    let value = json_of(text);
    assert_eq!(value["all"], json!({"x": 9, "y": 2, "z": 4}));
    assert_eq!(value["list"], json!([{"x": 1, "y": 2}]));
    assert!(fault("a: &a [*a]").contains("1:8: expected an alias of an earlier value"));
    assert!(fault("<<: 3").contains("expected a map or a list of maps after `<<`"));
}

#[test]
fn alias_bombs_and_deep_nesting_are_refused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..12 {
        let before = i - 1;
        bomb.push_str(&format!("a{i}: &a{i} [{}]\n", vec![format!("*a{before}"); 10].join(", ")));
    }
    assert!(fault(&bomb).contains("aliases counted as often as they are used"));
    let deep = format!("{}{}", "[".repeat(70), "]".repeat(70));
    assert!(yaml(&deep).is_err());
    let blocks: String = (0..70).map(|i| format!("{}a:\n", " ".repeat(i))).collect();
    assert!(yaml(&blocks).is_err());
    let fine = format!("{}{}", "[".repeat(60), "]".repeat(60));
    assert!(yaml(&fine).is_ok());
}

#[test]
fn syntax_errors_have_a_place() {
    assert!(
        fault("a: 1\nb: [1, 2\n").starts_with("heddle.yaml:2:4: expected YAML: unclosed bracket"),
        "{}",
        fault("a: 1\nb: [1, 2\n")
    );
    assert!(fault("a: 1\na: 2\n").contains("2:1: the key `a` is given twice, first at line 1"));
    let many: String = (0..40).map(|i| format!("k{i}: 1\n")).collect();
    assert!(fault(&format!("{many}k7: 2\n")).contains("41:1: the key `k7` is given twice, first at line 8"));
    assert!(fault("a: 1\n---\nb: 2\n").contains("2:1: expected one document"));
    assert!(fault("a: !include x").contains("expected no tag of that name, found `!include`"));
    assert!(fault("x: { key: ${KEY} }").contains("must be quoted"), "{}", fault("x: { key: ${KEY} }"));
    let broken = Document::parse("r.yaml", b"a: 1\nb: \xff\n", Format::Yaml, Expansion::Off).unwrap_err();
    assert_eq!(broken.to_string(), "r.yaml:2:4: expected UTF-8 text, found other bytes");
    let error = Document::parse("r.json", "{\"a\": 1,\n \"b\": tru}", Format::Json, Expansion::Off).unwrap_err();
    assert!(error.to_string().starts_with("r.json:2:"), "{error}");
}

#[test]
fn variables_are_expanded_and_the_missing_ones_reported_together() {
    let value = json_of(
        "a: ${HOST}:${PORT}\nb: ${PORT}\nc: \"${PORT}\"\nd: ${NONE:-x}\ne: ${{PORT}}\nf: ${{NONE:=y}}z\ng: $${HOST}\nh: ${EMPTY:-d}",
    );
    let expected =
        json!({"a": "example.org:9080", "b": 9080, "c": "9080", "d": "x", "e": 9080, "f": "yz", "g": "${HOST}", "h": "d"});
    assert_eq!(value, expected);
    let text = fault("a: ${NONE}\nb:\n  - x${ALSO_NONE}\nc: ${bad name}\nd: ${open\n");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert!(lines[0].starts_with("heddle.yaml:1:4: environment variable NONE is not set"), "{text}");
    assert!(lines[1].starts_with("heddle.yaml:3:5: environment variable ALSO_NONE is not set"), "{text}");
    assert!(lines[2].contains("expected the name of an environment variable, found `bad name`"), "{text}");
    assert!(lines[3].contains("expected `}` after `${`"), "{text}");
}

#[test]
fn resources_keep_the_variables_of_requests() {
    let expansion = Expansion::DoubleBraces(&environment);
    let document = Document::parse("r.yaml", "a: https://${host}$request_uri\nb: ${{HOST}}", Format::Yaml, expansion).unwrap();
    assert_eq!(document.to_json(), json!({"a": "https://${host}$request_uri", "b": "example.org"}));
}

#[test]
fn paths_are_located() {
    let text = "routes:\n  - id: r1\n    plugins:\n      limit-count:\n        count: abc\n      a.b: {c: 1}\n  - id: r2\n";
    let document = yaml(text).unwrap();
    let at = |path: &str| document.locate(path).to_string();
    assert_eq!(at("routes[0].plugins.limit-count.count"), "5:16");
    assert_eq!(at("routes[0].plugins.limit-count.missing.deeper"), "4:7");
    assert_eq!(at("routes[0].plugins.a.b.c"), "6:16");
    assert_eq!(at("routes[0].plugins[\"a.b\"].c"), "6:16");
    assert_eq!(at("routes[0].plugins[\"nope\"].c"), "3:5");
    assert_eq!(at("routes[1].id"), "7:9");
    assert_eq!(at("routes[9]"), "1:1");
    assert_eq!(at(""), "1:1");
}

#[derive(Debug, PartialEq)]
struct Server {
    name: String,
    address: Option<std::net::SocketAddr>,
    timeout: Duration,
}

fn server(section: &mut Section<'_>) -> Server {
    Server {
        name: section.require("name").name("name").unwrap_or_default(),
        address: section.socket_addr("address"),
        timeout: section.duration("timeout").unwrap_or(Duration::from_secs(1)),
    }
}

#[test]
fn sections_report_every_mistake_at_once() {
    let text = "\
server: { name: a, adress: \"127.0.0.1:80\", timeout: 5 }
servers:
  - name: ''
    address: localhost
  - 7
  - timeout: 1h30m
mode: fsat
size: 3 KiB
workers: 0
debug: yes
trusted: [10.0.0.0/8, ::1, nonsense]
label: 5
other: 1
";
    let mistakes = yaml(text)
        .unwrap()
        .read(|section| {
            section.nested("server", server);
            section.list("servers", server);
            section.choice("mode", &[("fast", 1), ("slow", 2)]);
            assert_eq!(section.size("size"), Some(3072));
            section.count("workers", 1..=1024);
            section.bool("debug");
            assert_eq!(section.networks("trusted").unwrap().len(), 2);
            section.string("label");
        })
        .unwrap_err()
        .to_string();
    let expected = "\
heddle.yaml:1:20: server.adress: unknown key `adress`; did you mean `address`?
heddle.yaml:1:53: server.timeout: expected a duration with unit (200ms, 5s, 1m30s, 2h), found `5`
heddle.yaml:3:11: servers[0].name: expected some text, found an empty string
heddle.yaml:4:14: servers[0].address: expected an address with port (127.0.0.1:9080, [::1]:9080), found `localhost`
heddle.yaml:5:5: servers[1]: expected a map, found a number
heddle.yaml:6:5: servers[2]: the key `name` is missing
heddle.yaml:7:7: mode: expected one of: fast, slow, found `fsat`; did you mean `fast`?
heddle.yaml:9:10: workers: expected a whole number between 1 and 1024, found `0`
heddle.yaml:10:8: debug: expected true or false, found `yes`
heddle.yaml:11:28: trusted[2]: expected a network (10.0.0.0/8) or an IP address, found `nonsense`
heddle.yaml:12:8: label: expected a string, found a number (quote it)
heddle.yaml:13:1: other: unknown key `other`; expected one of: server, servers, mode, size, workers, debug, trusted, label";
    assert_eq!(mistakes, expected);
}

#[test]
fn absent_sections_read_as_their_defaults() {
    let read =
        |section: &mut Section<'_>| (section.nested("a", |s| s.u16("x").unwrap_or(7)), section.optional("b", |s| s.u16("x")));
    assert_eq!(yaml("").unwrap().read(read).unwrap(), (7, None));
    assert_eq!(yaml("a:\nb: {}\n").unwrap().read(read).unwrap(), (7, Some(None)));
    assert!(yaml("- 1").unwrap().read(read).unwrap_err().to_string().contains("1:1: expected a map, found a list"));
}

#[test]
fn secrets_do_not_show() {
    let secret = yaml("key: hunter2").unwrap().read(|s| s.secret("key")).unwrap().unwrap();
    assert_eq!(format!("{secret:?} {secret} {}", serde_json::to_string(&secret).unwrap()), "*** *** \"***\"");
    assert_eq!(secret.reveal(), "hunter2");
    assert!(!yaml("key: 12345").unwrap().read(|s| s.secret("key")).unwrap_err().to_string().contains("12345"));
}

#[test]
fn units_are_exact() {
    assert_eq!(parse_duration("1.5s"), Some(Duration::from_millis(1500)));
    assert_eq!(parse_duration("1m30s"), Some(Duration::from_secs(90)));
    for wrong in ["", "5", "s", "5 s", "-1s", "1.s", ".5s", "1..5s", "0.5ns", "1x", "5s3", "999999999999d"] {
        assert_eq!(parse_duration(wrong), None, "{wrong}");
    }
    assert_eq!(parse_size("64KiB"), Some(65536));
    assert_eq!(parse_size("1.5 MB"), Some(1_500_000));
    for wrong in ["", "KiB", "1kb", "1.5", "-1", "99999999999GiB", "0.3B"] {
        assert_eq!(parse_size(wrong), None, "{wrong}");
    }
    assert_eq!(parse_duration("1m30s200ms"), Some(Duration::from_millis(90_200)));
}

#[test]
fn suggestions_are_near() {
    let known = ["upstreams", "routes", "services"];
    assert_eq!(suggest("upstream", known), Some("upstreams"));
    assert_eq!(suggest("Routse", known), Some("routes"));
    assert_eq!(suggest("listeners", known), None);
    assert_eq!(suggest("x", ["y"]), None);
}

/// What YAML allows unescaped in quotes (section 5.1); JSON would also let DEL and the C1 controls stand, which nobody writes.
const TEXT: &str = "[^\u{7f}-\u{9f}\u{feff}\u{fffe}\u{ffff}]{0,20}";

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e300..1e300f64).prop_map(Value::from),
        TEXT.prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(TEXT, inner, 0..6).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn json_reads_as_itself(value in any_json(), tabs in any::<bool>()) {
        let mut text = serde_json::to_string_pretty(&value).unwrap();
        if tabs {
            text = text.lines().map(|line| {
                let bare = line.trim_start_matches(' ');
                format!("{}{bare}", "\t".repeat((line.len() - bare.len()) / 2))
            }).collect::<Vec<_>>().join("\n");
        }
        let document = Document::parse("x.json", &text, Format::Json, Expansion::Off);
        prop_assert_eq!(document.map(|d| d.to_json()).map_err(|e| format!("{e}\n{text}")), Ok(value));
    }

    #[test]
    fn random_text_never_panics(text in "[ \n\t:{}\\[\\],&*a-c0-9\"'|>#!$%~<-]{0,80}", path in "[a-c.\\[\\]0-9]{0,12}") {
        for format in [Format::Yaml, Format::Json] {
            if let Ok(document) = Document::parse("x", &text, format, Expansion::All(&environment)) {
                let _ = document.locate(&path);
                let _ = document.read(|section| {
                    section.list("a", server);
                    section.duration("b");
                    section.named("c", |_, section| section.size("a"));
                });
            }
        }
    }

    #[test]
    fn random_bytes_never_panic(text in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = Document::parse("x", &text, Format::Yaml, Expansion::DoubleBraces(&environment));
    }

    #[test]
    fn durations_read_back(nanoseconds in 0..u64::MAX / 2) {
        let duration = Duration::from_nanos(nanoseconds);
        prop_assert_eq!(parse_duration(&format!("{nanoseconds}ns")), Some(duration));
        let (seconds, rest) = (duration.as_secs(), duration.subsec_nanos());
        prop_assert_eq!(parse_duration(&format!("{seconds}s{rest}ns")), Some(duration));
    }

    #[test]
    fn sizes_read_back(bytes in any::<u64>()) {
        prop_assert_eq!(parse_size(&format!("{bytes}B")), Some(bytes));
    }

    #[test]
    fn units_never_panic(text in "[0-9.smhdKMGiB ]{0,40}") {
        let _ = parse_duration(&text);
        let _ = parse_size(&text);
    }
}

#[test]
fn several_floors_may_read_keys_of_one_map() {
    let text = "identity: { ttl: 1h, persist: yes, colour: red }";
    let document = Document::parse("heddle.yaml", text, Format::Yaml, Expansion::Off).unwrap();
    let told = document.read(|root| {
        root.nested("identity", |section| (section.duration("ttl"), section.bool("persist")));
        root.nested("identity", |section| section.bool("persist"));
        root.nested("identity", |section| section.name("trust_domain"));
    });
    let told = told.unwrap_err().to_string();
    assert_eq!(
        told,
        "heddle.yaml:1:31: identity.persist: expected true or false, found `yes`\n\
         heddle.yaml:1:36: identity.colour: unknown key `colour`; expected one of: ttl, persist, trust_domain"
    );
}
