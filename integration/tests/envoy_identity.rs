//! The real Envoy knows consumers by keys and tokens as a gateway of Heddle does: one story, told to both.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use heddle_integration::client::{self, Answer, Conversation};
use heddle_integration::envoy::{both, everywhere};
use heddle_integration::heddle::Heddle;
use heddle_integration::nginx::Nginx;
use heddle_integration::openssl::Signer;
use heddle_integration::process::until;
use serde_json::{Value, json};

/// An upstream that says whom it was told.
fn teller() -> Nginx {
    Nginx::start("location / { return 200 '$http_x_consumer_username|$http_x_credential_identifier|$http_apikey|$arg_apikey'; }")
}

fn consumer(heddle: &Heddle, name: &str, plugins: Value) {
    heddle.put(&format!("/consumers/{name}"), json!({ "username": name, "plugins": plugins }));
}

fn route(heddle: &Heddle, id: &str, upstream: &Nginx, plugins: Value) {
    let upstream = json!({ "nodes": { upstream.address.to_string(): 1 } });
    heddle.put(&format!("/routes/{id}"), json!({ "uri": format!("/{id}/*"), "plugins": plugins, "upstream": upstream }));
}

fn ask(heddle: &Heddle, target: &str, fields: &[(&str, &str)]) -> Answer {
    client::send(heddle.http, "GET", target, fields, b"").expect("an answer")
}

/// Asks until there is an answer with this text.
fn until_told(heddle: &Heddle, target: &str, fields: &[(&str, &str)], told: &str) {
    let mut last = Answer::default();
    let asked = || {
        last = ask(heddle, target, fields);
        (last.status == 200 && last.text() == told).then_some(())
    };
    until(&format!("{target} to be told {told}"), asked);
}

#[test]
fn consumers_are_known_by_their_keys() {
    let nginx = teller();
    everywhere(|heddle| {
        consumer(heddle, "jack", json!({ "key-auth": { "key": "jacks" } }));
        consumer(heddle, "rose", json!({ "key-auth": { "key": "roses" } }));
        route(heddle, "keyed", &nginx, json!({ "key-auth": {} }));
        route(heddle, "hidden", &nginx, json!({ "key-auth": { "header": "x-key", "hide_credentials": true } }));
        until_told(heddle, "/keyed/a", &[("apikey", "jacks")], "jack||jacks|");
        until_told(heddle, "/keyed/a?apikey=roses", &[], "rose|||roses");
        let forged = [("apikey", "roses"), ("X-Consumer-Username", "jack"), ("X-Credential-Identifier", "root")];
        until_told(heddle, "/keyed/a", &forged, "rose||roses|");
        until_told(heddle, "/hidden/a?b=1&apikey=jacks", &[], "jack|||");
        assert_eq!(ask(heddle, "/keyed/a", &[("apikey", "guess")]).status, 401);
        assert_eq!(ask(heddle, "/keyed/a", &[]).status, 401);
        consumer(heddle, "rose", json!({ "key-auth": { "key": "new" } }));
        until_told(heddle, "/keyed/a", &[("apikey", "new")], "rose||new|");
        until("the old key to be refused", || (ask(heddle, "/keyed/a", &[("apikey", "roses")]).status == 401).then_some(()));
    });
}

#[test]
fn consumers_are_known_by_their_tokens_and_name_nobody_else() {
    let nginx = teller();
    let signers = ["HS256", "RS256", "ES256", "EdDSA"].map(Signer::new);
    everywhere(|heddle| {
        for signer in &signers {
            let name = signer.algorithm.to_ascii_lowercase();
            let key = match signer.algorithm {
                "HS256" => json!({ "key": format!("{name}-key"), "secret": "open sesame" }),
                _ => json!({ "key": format!("{name}-key"), "algorithm": signer.algorithm, "public_key": signer.public_key() }),
            };
            consumer(heddle, &name, json!({ "jwt-auth": key }));
        }
        route(heddle, "signed", &nginx, json!({ "jwt-auth": { "claims_to_verify": ["exp"] } }));
        for (place, signer) in signers.iter().enumerate() {
            let name = signer.algorithm.to_ascii_lowercase();
            let claims = |exp: u64| json!({ "key": format!("{name}-key"), "exp": exp });
            let token = signer.token(&claims(4_102_444_800));
            let (bare, told) = (token.strip_prefix("Bearer ").unwrap(), format!("{name}|||"));
            let who = |fields: &[(&str, &str)]| ask(heddle, "/signed/a", fields).status;
            until_told(heddle, "/signed/a", &[("Authorization", &token), ("X-Consumer-Username", "root")], &told);
            until_told(heddle, "/signed/a", &[("Authorization", bare)], &told);
            until_told(heddle, &format!("/signed/a?jwt={bare}"), &[], &told);
            until_told(heddle, "/signed/a", &[("Cookie", &format!("a=b; jwt={bare}"))], &told);
            assert_eq!(who(&[("Authorization", &signer.token(&claims(1_700_000_000)))]), 401, "expired");
            let endless = json!({ "key": format!("{name}-key") });
            assert_eq!(who(&[("Authorization", &signer.token(&endless))]), 401, "without an end");
            // Who signs for another one is refused: with 401 by us, and with 403 by Envoy.
            let other = &signers[(place + 1) % signers.len()];
            assert!([401, 403].contains(&who(&[("Authorization", &other.token(&claims(4_102_444_800)))])), "of {name}");
        }
        assert_eq!(ask(heddle, "/signed/a", &[]).status, 401);
        assert_eq!(ask(heddle, "/signed/a", &[("Authorization", "Bearer a.b.c")]).status, 401);
    });
}

#[test]
fn a_connection_that_stands_passes_by_no_guard() {
    let nginx = teller();
    both(|heddle, _| {
        let plugins = json!({ "key-auth": { "key": "jacks" }, "jwt-auth": { "key": "jack", "secret": "open sesame" } });
        consumer(heddle, "jack", plugins);
        for plugin in ["key-auth", "jwt-auth"] {
            route(heddle, plugin, &nginx, json!({}));
            heddle.until_status(&format!("/{plugin}/a"), 200);
            let request = format!("GET /{plugin}/a HTTP/1.1\r\nHost: a\r\n\r\n");
            let mut old = Conversation::open(heddle.http);
            assert_eq!(old.ask(&request).status, 200, "nothing guards it yet");
            route(heddle, plugin, &nginx, json!({ plugin: {} }));
            heddle.until_status(&format!("/{plugin}/a"), 401);
            let told = old.ask(&request).status;
            assert!([401, 403].contains(&told), "{plugin}: {told}");
        }
    });
}

#[test]
fn tokens_of_an_issuer_are_verified_with_what_it_publishes() {
    let nginx = teller();
    let signer = Signer::new("EdDSA");
    let issuer = Nginx::start(&format!("location /keys {{ return 200 '{}'; }}", signer.published()));
    let config = json!({ "jwks_url": format!("http://{}/keys", issuer.address), "key_claim_name": "sub", "issuers": ["issuer"],
        "audiences": ["shop"] });
    everywhere(|heddle| {
        consumer(heddle, "jack", json!({ "jwt-auth": { "key": "jack", "secret": "not used here" } }));
        route(heddle, "issued", &nginx, json!({ "jwt-auth": config }));
        let token = |claims: Value| signer.token(&claims);
        let good = token(json!({ "sub": "jack", "iss": "issuer", "aud": ["shop", "cafe"] }));
        until_told(heddle, "/issued/a", &[("Authorization", &good)], "jack|||");
        for (claims, status) in [
            (json!({ "sub": "jack", "iss": "other", "aud": "shop" }), 401),
            (json!({ "sub": "nobody", "iss": "issuer", "aud": "shop" }), 403),
            (json!({ "sub": "jack", "iss": "issuer", "aud": "cafe" }), 403),
        ] {
            let told = ask(heddle, "/issued/a", &[("Authorization", &token(claims.clone()))]).status;
            assert!(told == 401 || told == status, "{claims}: {told}");
        }
        let forged = Signer::new("EdDSA").token(&json!({ "sub": "jack", "iss": "issuer", "aud": "shop" }));
        assert_eq!(ask(heddle, "/issued/a", &[("Authorization", &forged)]).status, 401);
    });
}
