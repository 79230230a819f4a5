//! Tests of `ldap-auth` against a small directory server on loopback that knows the bind operation alone; a story has a real one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::rc::Rc;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use heddle_xds::catalog::{Catalog, Place};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::testing::{answer, faults, filter, header, passes, settled};
use super::super::{Flow, Registry};
use crate::exchange::testing::{NOW_MS, at, consumer};
use crate::exchange::{ConsumerInfo, Directory, Exchange};
use crate::outbound::testing::{server, troubles};

/// Everybody has an entry below `ou=users`.
struct Users;

impl Directory for Users {
    fn find_credential(&self, plugin: &str, value: &[u8]) -> Option<Arc<ConsumerInfo>> {
        assert_eq!(plugin, "ldap-auth");
        let known = value == b"cn=ann,ou=users" || value == br"cn=a\2cou\3dadmins,ou=users";
        known.then(|| Arc::new(consumer("ann")))
    }

    fn consumer(&self, _: &str) -> Option<Arc<ConsumerInfo>> {
        None
    }
}

fn login(credentials: &str) -> Exchange {
    let value = format!("Basic {}", STANDARD.encode(credentials));
    at(NOW_MS, "GET", "h", "/", &[("Authorization", &value)], Rc::new(Users))
}

async fn decide(config: &Value, x: &mut Exchange) -> Flow {
    let filter = filter("ldap-auth", config);
    settled(filter.rewrite(x), x).await
}

/// A directory server whose passwords are all `secret`: a bind is refused unless it ends with that. Remembers what it was sent.
async fn directory() -> (String, Arc<Mutex<Vec<Vec<u8>>>>) {
    let asked: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let remembered = asked.clone();
    let address = server(move |mut stream, _| {
        let asked = remembered.clone();
        async move {
            let mut buffer = [0; 1024];
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                let message = &buffer[..read];
                // A bind request is [APPLICATION 0], behind the message's length and number.
                if message.get(5) != Some(&0x60) {
                    return;
                }
                asked.lock().push(message.to_vec());
                let code = if message.ends_with(b"secret") {
                    0
                } else if message.ends_with(b"busy") {
                    51
                } else {
                    49
                };
                let reply = [0x30, 0x0c, 0x02, 0x01, message[4], 0x61, 0x07, 0x0a, 0x01, code, 0x04, 0x00, 0x04, 0x00];
                if stream.write_all(&reply).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    (address.to_string(), asked)
}

fn has(message: &[u8], text: &str) -> bool {
    message.windows(text.len()).any(|part| part == text.as_bytes())
}

#[tokio::test]
async fn a_password_that_the_directory_takes_identifies() {
    let (uri, asked) = directory().await;
    let mut config = json!({"ldap_uri": uri, "base_dn": "ou=users"});
    let mut x = login("ann:secret");
    assert!(passes(decide(&config, &mut x).await));
    assert_eq!((&*x.consumer.as_ref().unwrap().username, header(&x, "X-Consumer-Username")), ("ann", Some("ann")));
    assert!(header(&x, "authorization").is_some());
    assert!(has(&asked.lock().remove(0), "cn=ann,ou=users"));
    config["hide_credentials"] = json!(true);
    let mut x = login("ann:secret");
    assert!(passes(decide(&config, &mut x).await));
    assert_eq!(header(&x, "authorization"), None);
    // A name is one part of the entry's name, whatever it holds.
    assert!(passes(decide(&config, &mut login("a,ou=admins:secret")).await));
    assert!(has(&asked.lock()[1], r"cn=a\2cou\3dadmins,ou=users"));
}

#[tokio::test]
async fn refusals_tell_nothing_about_users() {
    let (uri, asked) = directory().await;
    let config = json!({"ldap_uri": uri, "base_dn": "ou=users", "realm": "staff"});
    let told = async |x: &mut Exchange| {
        let refusal = answer(decide(&config, x).await);
        assert_eq!(refusal.head.fields.get_str("www-authenticate"), Some("Basic realm=\"staff\""));
        (refusal.head.status, serde_json::from_slice::<Value>(&refusal.body).unwrap()["message"].as_str().unwrap().to_owned())
    };
    let wrong = (401, "Invalid user authorization".to_owned());
    assert_eq!(told(&mut login("ann:guessed")).await, wrong);
    assert_eq!(told(&mut login("nobody:secret")).await, wrong, "the directory knows it and no consumer does");
    asked.lock().clear();
    let malformed = (401, "Invalid authorization in request".to_owned());
    assert_eq!(told(&mut login("ann:")).await, malformed);
    assert_eq!(told(&mut login("ann")).await, malformed);
    let missing = (401, "Missing authorization in request".to_owned());
    assert_eq!(told(&mut at(NOW_MS, "GET", "h", "/", &[], Rc::new(Users))).await, missing);
    assert!(asked.lock().is_empty(), "an empty password never reaches the directory");
}

#[tokio::test]
async fn proofs_are_kept_on_demand() {
    let (uri, asked) = directory().await;
    let filter_of = |ttl: u64| filter("ldap-auth", &json!({"ldap_uri": uri, "base_dn": "ou=users", "cache_ttl": ttl}));
    for (ttl, questions) in [(0, 2), (60, 1)] {
        let filter = filter_of(ttl);
        for _ in 0..2 {
            let mut x = login("ann:secret");
            assert!(passes(settled(filter.rewrite(&mut x), &mut x).await));
        }
        assert_eq!(asked.lock().len(), questions);
        asked.lock().clear();
        for _ in 0..2 {
            let mut x = login("ann:guessed");
            assert_eq!(answer(settled(filter.rewrite(&mut x), &mut x).await).head.status, 401);
        }
        assert_eq!(std::mem::take(&mut *asked.lock()).len(), 2, "failures are never kept");
    }
}

#[tokio::test]
async fn a_directory_in_trouble_proves_nothing() {
    let (busy, _) = directory().await;
    let mut places = vec![("busy", busy)];
    places.extend(troubles().await.into_iter().map(|(what, address)| (what, address.to_string())));
    for (what, uri) in places {
        let mut config = json!({"ldap_uri": uri, "base_dn": "ou=users", "timeout": 300});
        let mut x = login("ann:busy");
        assert_eq!(answer(decide(&config, &mut x).await).head.status, 401, "{what}");
        config["status_on_error"] = json!(503);
        let refusal = answer(decide(&config, &mut x).await);
        assert_eq!((refusal.head.status, refusal.head.fields.get("www-authenticate")), (503, None), "{what}");
        assert!(x.consumer.is_none());
        for secured in ["use_tls", "use_starttls"] {
            config[secured] = json!(true);
            assert_eq!(answer(decide(&config, &mut login("ann:secret")).await).head.status, 503, "{what} {secured}");
            config[secured] = json!(false);
        }
    }
}

#[tokio::test]
async fn a_silent_directory_holds_a_bounded_number_of_requests() {
    let silent = troubles().await[1].1;
    let filter = filter(
        "ldap-auth",
        &json!({"ldap_uri": silent.to_string(), "base_dn": "ou=users", "max_connections": 2, "status_on_error": 503}),
    );
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let Flow::Wait(mut future) = filter.rewrite(&mut login("ann:secret")) else { panic!("it must wait") };
        assert!(futures_util::poll!(&mut future).is_pending());
        waiting.push(future);
    }
    let mut x = login("ann:secret");
    assert_eq!(answer(settled(filter.rewrite(&mut x), &mut x).await).head.status, 503);
    waiting.pop();
    let Flow::Wait(mut future) = filter.rewrite(&mut login("ann:secret")) else { panic!("it must wait") };
    assert!(futures_util::poll!(&mut future).is_pending(), "whoever gives up makes room");
}

#[test]
fn wrong_configurations_are_told() {
    let config = json!({
        "base_dn": "", "ldap_uri": "http://x", "uid": "a=b", "use_tls": true, "use_starttls": true, "ca": "x", "realm": "\"", "timeout": 0,
        "max_connections": 0, "cache_ttl": 3601, "status_on_error": 200
    });
    let expected = [
        "base_dn",
        "ldap_uri",
        "uid",
        "use_starttls",
        "ca",
        "realm",
        "timeout",
        "max_connections",
        "cache_ttl",
        "status_on_error",
    ];
    assert_eq!(faults("ldap-auth", &config), expected);
    let registry = Registry::default();
    assert!(registry.check("ldap-auth", Place::Consumer, &json!({"user_dn": ""})).is_err());
    assert!(registry.check("ldap-auth", Place::Consumer, &json!({"user_dn": "cn=a"})).is_ok());
    assert!(registry.check("ldap-auth", Place::Metadata, &json!({})).is_err());
}
