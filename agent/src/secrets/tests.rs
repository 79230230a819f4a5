//! Tests of references: their form, how what they stand for is remembered, and a small server that speaks Vault's KV.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use serde_json::json;

use super::values::{NEGATIVE_TTL, TTL};
use super::*;

/// A Vault with KV version 1 at `kv` and version 2 at `kv2`, in the namespace `team`; it fails while told to.
struct FakeVault {
    address: SocketAddr,
    value: Arc<Mutex<String>>,
    down: Arc<AtomicBool>,
}

impl FakeVault {
    fn start() -> FakeVault {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let vault = FakeVault { address: listener.local_addr().unwrap(), value: Arc::default(), down: Arc::default() };
        *vault.value.lock() = "first".to_owned();
        let (value, down) = (vault.value.clone(), vault.down.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                let line = lines.next().unwrap_or_default();
                let fields: Vec<String> =
                    lines.take_while(|line| !line.is_empty()).map(|line| line.to_ascii_lowercase()).collect();
                let has = |field: &str| fields.iter().any(|line| line == field);
                let members = json!({ "password": *value.lock(), "port": 5432, "list": [] });
                let (status, body) = match line.split(' ').nth(1).unwrap_or_default() {
                    _ if down.load(Ordering::Relaxed) => (503, json!({ "errors": ["sealed"] })),
                    _ if !has("x-vault-token: hush") || !has("x-vault-namespace: team") => (403, json!({ "errors": [] })),
                    "/v1/kv/team/db" => (200, json!({ "data": members })),
                    "/v1/kv2/data/db" => (200, json!({ "data": { "data": members, "metadata": { "version": 3 } } })),
                    _ => (404, json!({ "errors": [] })),
                };
                let body = body.to_string();
                let _ =
                    write!(stream, "HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
            }
        });
        vault
    }

    /// As `secrets/vault/1` and `secrets/vault/2`.
    fn describe(&self, references: &References) {
        for (name, prefix) in [("secrets/vault/1", "kv"), ("secrets/vault/2", "/kv2/data/")] {
            let json = json!({ "uri": format!("http://{}", self.address), "prefix": prefix, "token": "$env://TOKEN", "namespace": "team" });
            references.manager(name, Some(json.to_string().into()));
        }
    }
}

fn references(folder: PathBuf) -> References {
    let environment = |name: &str| match name {
        "TOKEN" => Some("hush".to_owned()),
        "OBJECT" => Some(r#"{"a": "b", "n": 5}"#.to_owned()),
        _ => None,
    };
    References::new(Arc::new(environment), folder, Outbound::default())
}

fn some(texts: &[&str]) -> BTreeSet<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

async fn stands_for(references: &References, text: &str) -> Option<String> {
    references.fetch(some(&[text])).await;
    references.get(text).map(|value| value.to_string())
}

#[test]
fn references_have_one_form() {
    let managed = Reference::Managed { manager: "vault", id: "1", name: "team/db", key: "password" };
    assert_eq!(Reference::parse("$secret://vault/1/team/db/password"), Ok(managed));
    assert_eq!(Reference::parse("$ENV://A/b"), Ok(Reference::Env { name: "A", key: Some("b") }));
    for wrong in [
        "$env://",
        "$env://A/",
        "$secret://vault/1/db",
        "$secret://file/1/../x",
        "$secret://vault//a/b",
        "$secret://vault/1/a/b?c",
    ] {
        assert!(reference::is_reference(wrong) && Reference::parse(wrong).is_err(), "{wrong}");
    }
    assert!(!reference::is_reference("$remote_addr") && !reference::is_reference("x$env://A"));
    assert_eq!(reference::at(&json!({"a": [{"b": "c"}]}), "a[0].b"), Some("c"));
}

#[tokio::test(flavor = "current_thread")]
async fn environment_files_and_vaults_are_asked() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("app/db")).unwrap();
    std::fs::write(folder.path().join("app/db/password"), "from-file\n").unwrap();
    std::fs::write(folder.path().join("outside"), "no").unwrap();
    let (references, vault) = (references(folder.path().join("")), FakeVault::start());
    vault.describe(&references);
    for (text, wanted) in [
        ("$env://TOKEN", Some("hush")),
        ("$env://OBJECT/a", Some("b")),
        ("$env://OBJECT/n", Some("5")),
        ("$env://TOKEN/a", None),
        ("$env://NONE", None),
        ("$secret://file/app/db/password", Some("from-file")),
        ("$secret://file/app/db/none", None),
        ("$secret://file/app/../outside", None),
        ("$secret://vault/1/team/db/password", Some("first")),
        ("$secret://vault/1/team/db/port", Some("5432")),
        ("$secret://vault/1/team/db/list", None),
        ("$secret://vault/1/team/none/password", None),
        ("$secret://vault/2/db/password", Some("first")),
        ("$secret://vault/3/db/password", None),
        ("$secret://aws/1/db/password", None),
        ("$secret://nope/1/db/password", None),
    ] {
        assert_eq!(stands_for(&references, text).await.as_deref(), wanted, "{text}");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn the_last_good_value_outlives_a_vault_that_is_down() {
    let (references, vault) = (references(PathBuf::new()), FakeVault::start());
    let text = "$secret://vault/1/team/db/password";
    vault.describe(&references);
    assert_eq!(references.fetch(some(&[text])).await, some(&[text]));
    vault.down.store(true, Ordering::Relaxed);
    assert!(references.fetch(some(&[text])).await.is_empty());
    assert_eq!(references.get(text).as_deref(), Some("first"));
    vault.down.store(false, Ordering::Relaxed);
    assert!(references.fetch(some(&[text])).await.is_empty(), "nothing has changed");
    *vault.value.lock() = "second".to_owned();
    assert_eq!(references.fetch(some(&[text])).await, some(&[text]));
    assert_eq!(references.get(text).as_deref(), Some("second"));
}

#[tokio::test(flavor = "current_thread")]
async fn what_is_not_known_is_something_that_nobody_can_guess() {
    let references = references(PathBuf::new());
    let config = Arc::new(json!({ "key": "$env://NONE", "deep": [{ "token": "$env://TOKEN" }], "plain": "$remote_addr" }));
    references.fetch(wanted(&config)).await;
    let (resolved, complete) = references.resolved(&config);
    assert!(!complete);
    assert_eq!((&resolved["deep"][0]["token"], &resolved["plain"]), (&json!("hush"), &json!("$remote_addr")));
    let closed = resolved["key"].as_str().unwrap();
    assert!(closed.len() > 64 && closed != "$env://NONE" && !closed.ends_with(&"0".repeat(64)));
    let other = references.resolved(&Arc::new(json!({ "key": "$env://OTHER", "again": "$env://NONE" }))).0;
    assert_ne!(other["key"], closed, "what is shown of one does not open another");
    assert_eq!(other["again"], closed, "a change of tables changes nothing");
    let plain = Arc::new(json!({ "a": 1 }));
    assert!(Arc::ptr_eq(&references.resolved(&plain).0, &plain), "what has no references is not copied");
}

#[test]
fn values_grow_old_and_failures_sooner() {
    let (mut values, start) = (Values::default(), clock::now());
    assert!(values.learn("good", Some("1".into()), start));
    assert!(!values.learn("bad", None, start));
    assert!(values.unknown(some(&["good", "bad", "new"])) == some(&["new"]));
    assert!(values.due(start + NEGATIVE_TTL - TICK).is_empty());
    assert_eq!(values.due(start + NEGATIVE_TTL), some(&["bad"]));
    assert_eq!(values.due(start + TTL), some(&["bad", "good"]));
    assert!(!values.learn("good", None, start + TTL));
    assert_eq!(values.get("good", start + TTL).as_deref(), Some("1"));
    assert!(values.due(start + TTL + NEGATIVE_TTL).contains("good"));
    values.outdate(start);
    assert_eq!(values.due(start).len(), 2);
    values.due(start + TTL + Duration::from_secs(25 * 3600));
    assert!(values.get("good", start).is_none(), "what nobody uses is forgotten");
}

#[tokio::test(flavor = "current_thread")]
async fn the_keeper_looks_up_what_is_wanted_before_it_is_needed() {
    let references = references(PathBuf::new());
    let kept = references.keep().unwrap();
    kept.ready(some(&["$env://TOKEN", "$env://NONE"])).await;
    assert_eq!(references.get("$env://TOKEN").as_deref(), Some("hush"));
    assert_eq!(references.get("$env://NONE"), None);
}

proptest! {
    #[test]
    fn no_text_makes_a_reference_leave_its_folder(text in "\\$(secret|env)://[a-z./%\\\\]{0,40}") {
        if let Ok(Reference::Managed { manager, id, name, key }) = Reference::parse(&text) {
            for part in [manager, id, key].into_iter().chain(name.split('/')) {
                prop_assert!(!part.is_empty() && part != ".." && part != "." && !part.contains(['/', '\\', '%']));
            }
        }
    }
}
