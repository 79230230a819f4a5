//! Tokens of a cluster that the tests have the keys of.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::settings::ServiceOf;

const NOW: u64 = 1_700_000_000;

struct Cluster {
    key: EcdsaKeyPair,
}

impl Cluster {
    fn new() -> Cluster {
        Cluster { key: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap() }
    }

    fn jwks(&self) -> String {
        let point = self.key.public_key().as_ref();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
        json!({ "keys": [{ "kty": "EC", "crv": "P-256", "use": "sig", "kid": "k1", "x": x, "y": y }] }).to_string()
    }

    fn sign(&self, header: Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(claims));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn token(&self, claims: &Value) -> String {
        self.sign(json!({ "alg": "ES256", "kid": "k1" }), claims)
    }
}

fn claims() -> Value {
    json!({
        "iss": "https://cluster", "aud": ["heddle"], "sub": "system:serviceaccount:shop:web-sa", "exp": NOW + 600, "nbf": NOW,
        "kubernetes.io": { "namespace": "shop", "serviceaccount": { "name": "web-sa", "uid": "1" } },
    })
}

fn kubernetes(cluster: &Cluster, folder: &std::path::Path) -> Kubernetes {
    let path = folder.join("jwks.json");
    std::fs::write(&path, cluster.jwks()).unwrap();
    let service = ServiceOf { namespace: "shop".into(), service_account: "web-sa".into(), service: "web".into() };
    Kubernetes::new(KubernetesSettings {
        issuer: "https://cluster".into(),
        audience: "heddle".into(),
        keys: JwksSource::File(path),
        services: vec![service],
    })
}

#[tokio::test]
async fn an_account_is_the_service_of_its_name_or_the_one_that_it_is_said_to_be() {
    let (cluster, folder) = (Cluster::new(), tempfile::tempdir().unwrap());
    let kubernetes = kubernetes(&cluster, folder.path());
    let account = kubernetes.verify(&cluster.token(&claims()), NOW).await.unwrap();
    assert_eq!((account.namespace.as_str(), kubernetes.service(&account)), ("shop", "web"));
    let mut other = claims();
    other["sub"] = "system:serviceaccount:shop:api".into();
    other["kubernetes.io"]["serviceaccount"]["name"] = "api".into();
    let account = kubernetes.verify(&cluster.token(&other), NOW).await.unwrap();
    assert_eq!(kubernetes.service(&account), "api");
}

#[tokio::test]
async fn what_is_not_good_is_refused() {
    let (cluster, folder) = (Cluster::new(), tempfile::tempdir().unwrap());
    let kubernetes = kubernetes(&cluster, folder.path());
    let with = |key: &str, value: Value| {
        let mut claims = claims();
        claims[key] = value;
        cluster.token(&claims)
    };
    let header = |header: Value| cluster.sign(header, &claims());
    let wrong = [
        (with("iss", "https://other".into()), "issuer"),
        (with("aud", "other".into()), "audience"),
        (with("aud", json!([])), "audience"),
        (with("exp", (NOW - 61).into()), "expired"),
        (with("nbf", (NOW + 61).into()), "not valid yet"),
        (with("exp", Value::Null), "claims"),
        (with("sub", "system:node:x".into()), "no service account"),
        (with("sub", "system:serviceaccount:shop:other".into()), "differ"),
        (Cluster::new().token(&claims()), "no key"),
        (header(json!({ "alg": "none", "kid": "k1" })), "algorithm"),
        (header(json!({ "alg": "HS256", "kid": "k1" })), "algorithm"),
        (header(json!({ "alg": "RS256", "kid": "k1" })), "no key"),
        (header(json!({ "alg": "ES256", "kid": "k2" })), "no key"),
        (header(json!({ "alg": "ES256", "kid": "k1", "crit": ["x"] })), "critical"),
        ("a.b".to_owned(), "JWT"),
        ("x".repeat(20_000), "bytes"),
    ];
    for (token, expected) in wrong {
        let told = kubernetes.verify(&token, NOW).await.unwrap_err();
        assert!(told.contains(expected), "{expected} is not in {told}");
    }
}

/// Serves its keys as API servers do: as a set of keys to those who take one, and 406 to all others.
async fn serves_keys(keys: String) -> std::net::SocketAddr {
    use axum::http::{HeaderMap, StatusCode, header};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = move |headers: HeaderMap| async move {
        let takes = headers.get(header::ACCEPT).and_then(|kinds| kinds.to_str().ok()).unwrap_or_default();
        let kind = "application/jwk-set+json";
        let taken = takes.split(',').any(|one| one.trim() == kind);
        let (status, body) = if taken { (StatusCode::OK, keys) } else { (StatusCode::NOT_ACCEPTABLE, String::new()) };
        (status, [(header::CONTENT_TYPE, kind)], body)
    };
    let router = axum::Router::new().route("/openid/v1/jwks", axum::routing::get(answer));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

#[tokio::test]
async fn a_token_as_an_api_server_makes_it_is_good_with_the_keys_that_it_serves() {
    let (cluster, folder) = (Cluster::new(), tempfile::tempdir().unwrap());
    let address = serves_keys(cluster.jwks()).await;
    let mut kubernetes = kubernetes(&cluster, folder.path());
    let url = format!("http://{address}/openid/v1/jwks");
    kubernetes.settings.keys = JwksSource::Url { url, ca_file: None, token_file: None };
    let claims: Value = serde_json::from_str(include_str!("tests/claims.json")).unwrap();
    kubernetes.settings.issuer = claims["iss"].as_str().unwrap().to_owned();
    let issued = claims["iat"].as_u64().unwrap();
    let account = kubernetes.verify(&cluster.token(&claims), issued).await.unwrap();
    assert_eq!((account.namespace.as_str(), account.name.as_str(), kubernetes.service(&account)), ("shop", "web", "web"));
    let late = claims["exp"].as_u64().unwrap() + 61;
    assert!(kubernetes.verify(&cluster.token(&claims), late).await.unwrap_err().contains("expired"));
}

#[test]
fn key_sets_are_read_with_care() {
    for wrong in [
        "",
        "{}",
        "{\"keys\":[]}",
        "{\"keys\":[{\"kty\":\"oct\",\"k\":\"AA\"}]}",
        "{\"keys\":[{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\"}]}",
    ] {
        assert!(Keys::read(wrong).is_err(), "{wrong}");
    }
}

proptest! {
    #[test]
    fn no_text_is_a_panic(text in "[ -~]{0,200}", parts in prop::collection::vec("[A-Za-z0-9_-]{0,40}", 0..5)) {
        let keys = Keys::default();
        for token in [text, parts.join(".")] {
            if let Ok(unverified) = token::Unverified::read(&token) {
                prop_assert!(unverified.verify(&keys, "i", "a", NOW).is_err());
            }
        }
    }
}
