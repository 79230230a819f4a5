//! Secrets of plugins: kept elsewhere and looked up by the agent, or kept here, where they are neither stored nor shown in clear.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::Command;

use heddle_agent::filters::Registry;
use heddle_integration::client::send;
use heddle_integration::heddle::{Heddle, KEY, binary};
use heddle_integration::nginx::Nginx;
use heddle_integration::pages::{self, story};
use heddle_integration::place::Place;
use heddle_integration::process::{Process, until};
use heddle_xds::catalog::Catalog;
use serde_json::{Value, json};

#[test]
fn credentials_may_be_kept_in_files_beside_the_agent() {
    let (nginx, heddle) = (Nginx::saying("here"), Heddle::run());
    heddle.place.write("data/secrets/app/keys/jack", "jacks-key\n");
    heddle.put(
        "/consumers/jack",
        json!({ "username": "jack", "plugins": { "key-auth": { "key": "$secret://file/app/keys/jack" } } }),
    );
    heddle.put(
        "/consumers/jill",
        json!({ "username": "jill", "plugins": { "key-auth": { "key": "$secret://file/app/keys/jill" } } }),
    );
    let upstream = json!({ "nodes": { nginx.address.to_string(): 1 } });
    heddle.put("/routes/r", json!({ "uri": "/r", "plugins": { "key-auth": {} }, "upstream": upstream }));
    let status = |key: &str| send(heddle.http, "GET", "/r", &[("apikey", key)], b"").unwrap().status;
    until("the route", || (status("jacks-key") == 200).then_some(()));
    for wrong in ["$secret://file/app/keys/jack", "$secret://file/app/keys/jill", "", "***"] {
        assert_eq!(status(wrong), 401, "{wrong}");
    }
    let dump = send(heddle.agent, "GET", "/config_dump", &[], b"").unwrap().text();
    assert!(!dump.contains("jacks-key") && !heddle.process.output().contains("jacks-key"));
}

#[test]
fn managers_that_agents_cannot_ask_are_refused() {
    let heddle = Heddle::run();
    let aws = json!({ "access_key_id": "a", "secret_access_key": "b" });
    let answer = heddle.admin("PUT", "/secrets/aws/1", aws);
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert!(answer.text().contains("not supported"), "{}", answer.text());
    heddle.put("/secrets/vault/1", json!({ "uri": "http://127.0.0.1:1", "prefix": "kv", "token": "vaults-own-token" }));
    assert!(!stored(&heddle.place.path("data"), "vaults-own-token"));
}

/// The texts at a dotted path, through arrays.
fn texts<'a>(value: &'a Value, path: &[&str]) -> Vec<&'a str> {
    match (value, path) {
        (Value::Array(items), _) => items.iter().flat_map(|item| texts(item, path)).collect(),
        (Value::Object(map), [first, rest @ ..]) => map.get(*first).map_or_else(Vec::new, |next| texts(next, rest)),
        (Value::Object(map), []) => map.values().flat_map(|item| texts(item, path)).collect(),
        (Value::String(text), []) => vec![text],
        _ => Vec::new(),
    }
}

/// Whether a file below the folder has this text in clear. What the agent itself keeps to start with is not looked at.
fn stored(folder: &Path, text: &str) -> bool {
    std::fs::read_dir(folder).unwrap().flatten().any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return stored(&path, text);
        }
        let bytes = std::fs::read(&path).unwrap_or_default();
        !path.ends_with("last-good.xds") && bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

/// Whatever a plugin calls secret, in the example of its page.
#[test]
fn secrets_of_plugins_are_neither_stored_nor_shown_in_clear() {
    let heddle = Heddle::run();
    let mut put = 0;
    for descriptor in Registry::default().descriptors().iter().filter(|descriptor| !descriptor.encrypt_fields.is_empty()) {
        for step in story::steps(&pages::text(descriptor.name)) {
            let body = step.command.split('\'').nth(1).and_then(|body| serde_json::from_str::<Value>(body).ok());
            let Some(config) = body.as_ref().map(|body| &body["plugins"][descriptor.name]) else { continue };
            let paths = descriptor.encrypt_fields.iter().map(|path| path.split('.').collect::<Vec<_>>());
            let secrets: Vec<&str> =
                paths.flat_map(|path| texts(config, &path)).filter(|text| text.len() > 5 && !text.starts_with('$')).collect();
            let place = step
                .command
                .split("/apisix/admin")
                .nth(1)
                .and_then(|rest| rest.split([' ', '\n', '"']).next())
                .unwrap_or_default();
            if secrets.is_empty() || !step.command.contains("-X PUT") {
                continue;
            }
            heddle.put(place, body.clone().unwrap());
            put += 1;
            let shown =
                send(heddle.admin, "GET", &format!("/apisix/admin{place}"), &[("X-API-KEY", "viewer-key")], b"").unwrap().text();
            let dump = send(heddle.agent, "GET", "/config_dump", &[], b"").unwrap().text();
            for secret in secrets {
                assert!(!shown.contains(secret), "{}: a viewer reads `{secret}`", descriptor.name);
                assert!(!dump.contains(secret), "{}: the agent shows `{secret}`", descriptor.name);
                assert!(!stored(&heddle.place.path("data"), secret), "{}: `{secret}` is stored in clear", descriptor.name);
            }
        }
    }
    assert!(put > 0);
}

#[test]
fn the_key_of_secrets_comes_from_the_environment_or_a_file_and_a_wrong_one_opens_nothing() {
    const ONE: &str = "CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg=";
    const OTHER: &str = "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=";
    let place = Place::new();
    let (admin, xds) = (place.address(), place.address());
    let start = |store: &str, key: &str| {
        let text = format!(
            "node: {{ id: cp, data_dir: data }}\nadmin: {{ address: \"{admin}\", keys: [ {{ name: story, key: \"{KEY}\", role: admin }} ] }}\n\
             xds: {{ address: \"{xds}\" }}\nstore: {{ {store} }}\n"
        );
        place.write("heddle.yaml", &text);
        let mut command = Command::new(binary());
        command.args(["controlplane", "-c", "heddle.yaml"]).env("HEDDLE_SECRETS_KEY", key).current_dir(place.folder.path());
        std::fs::remove_file(place.path("heddle.log")).ok();
        Process::start(command, place.path("heddle.log"))
    };
    let ask = |method: &str, body: &[u8]| send(admin, method, "/apisix/admin/consumers/jack", &[("X-API-KEY", KEY)], body).ok();
    let jack = json!({ "username": "jack", "plugins": { "key-auth": { "key": "jacks-own-key" } } }).to_string();
    let environment = "secrets_key: \"${HEDDLE_SECRETS_KEY}\"";

    let mut first = start(environment, ONE);
    until("the consumer", || ask("PUT", jack.as_bytes()).filter(|answer| matches!(answer.status, 200 | 201)));
    first.signal("TERM");
    assert_eq!(first.wait().code(), Some(0));
    assert!(
        !place.path("data/secrets.key").exists()
            && !stored(&place.path("data"), "jacks-own-key")
            && !stored(&place.path("data"), ONE)
    );

    for (store, key, told) in [
        (environment, OTHER, "encrypted with another key"),
        (environment, "hush", "expected 32 bytes in base64"),
        ("secrets_key_file: nowhere.key", "", "key file nowhere.key"),
    ] {
        let mut wrong = start(store, key);
        assert_ne!(wrong.wait().code(), Some(0), "{store}");
        let output = wrong.output();
        assert!(output.contains(told) && !output.contains(OTHER) && !output.contains("hush"), "{store}: {output}");
    }
    assert!(!place.path("nowhere.key").exists(), "no key is made in the place of one that is missing");

    place.write("mounted.key", &format!("{ONE}\n"));
    let _file = start("secrets_key_file: mounted.key", "");
    let shown = until("the consumer again", || ask("GET", b"").filter(|answer| answer.status == 200));
    assert!(shown.text().contains("jacks-own-key"), "{}", shown.text());
}
