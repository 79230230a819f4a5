//! Stories of who is who on real processes: consumers prove themselves by keys, passwords, tokens and signatures that other programs have made.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use heddle_integration::client::{self, Answer};
use heddle_integration::heddle::Heddle;
use heddle_integration::nginx::Nginx;
use heddle_integration::openssl::{Signer, base64, run};
use serde_json::{Value, json};

struct Story {
    heddle: Heddle,
    nginx: Nginx,
}

impl Story {
    /// An nginx that tells whom it was told, and what was told besides.
    fn new() -> Story {
        let told = "$http_x_consumer_username|$http_x_credential_identifier|$http_authorization|$http_x_added";
        let nginx = Nginx::start(&format!("location / {{ return 200 '{told}'; }}"));
        Story { heddle: Heddle::run(), nginx }
    }

    /// Route `/p/*` with these plugins.
    fn route(&self, plugins: Value) {
        let upstream = json!({ "nodes": { self.nginx.address.to_string(): 1 } });
        self.heddle.put("/routes/p", json!({ "uri": "/p/*", "plugins": plugins, "upstream": upstream }));
        self.heddle.until_effective();
    }

    fn consumer(&self, name: &str, plugins: Value) {
        self.heddle.put(&format!("/consumers/{name}"), json!({ "username": name, "plugins": plugins }));
    }

    fn ask(&self, method: &str, fields: &[(&str, &str)]) -> Answer {
        client::send(self.heddle.http, method, "/p/a", fields, b"").unwrap()
    }

    /// Whom the upstream was told, or the status of the refusal.
    fn who(&self, fields: &[(&str, &str)]) -> Result<String, u16> {
        let answer = self.ask("GET", fields);
        if answer.status == 200 { Ok(answer.text().split('|').next().unwrap().to_owned()) } else { Err(answer.status) }
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64(format!("{user}:{password}").as_bytes()))
}

#[test]
fn passwords_in_plain_and_hashed() {
    let story = Story::new();
    story.consumer("jack", json!({ "basic-auth": { "username": "jack", "password": "open sesame" } }));
    let hash = String::from_utf8(run("openssl", &["passwd", "-apr1", "-stdin"], b"open sesame\n")).unwrap();
    story.consumer("rose", json!({ "basic-auth": { "username": "rose", "password": hash.trim() } }));
    let bcrypt = "$2y$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW";
    story.heddle.put(
        "/consumers/rose/credentials/other",
        json!({ "plugins": { "basic-auth": { "username": "rosa", "password": bcrypt } } }),
    );
    story.route(json!({ "basic-auth": { "hide_credentials": true } }));
    for (user, name, credential) in [("jack", "jack", ""), ("rose", "rose", ""), ("rosa", "rose", "other")] {
        for _ in 0..2 {
            let answer = story.ask("GET", &[("Authorization", &basic(user, "open sesame"))]);
            assert_eq!((answer.status, answer.text()), (200, format!("{name}|{credential}||")), "{user}");
        }
        assert_eq!(story.who(&[("Authorization", &basic(user, "guess"))]), Err(401));
    }
    let refused = story.ask("GET", &[("Authorization", &basic("nobody", "open sesame"))]);
    assert_eq!((refused.status, refused.field("www-authenticate")), (401, Some("Basic realm=\"basic\"")));
}

#[test]
fn tokens_that_openssl_has_signed() {
    let story = Story::new();
    let signers = ["RS256", "ES256", "EdDSA"].map(Signer::new);
    for signer in &signers {
        let name = signer.algorithm.to_ascii_lowercase();
        let auth = json!({ "key": format!("{name}-key"), "algorithm": signer.algorithm, "public_key": signer.public_key() });
        story.consumer(&name, json!({ "jwt-auth": auth }));
    }
    story.route(json!({
        "jwt-auth": { "hide_credentials": true },
        "proxy-rewrite": { "headers": { "set": { "X-Added": "$jwt_claim_role" } } }
    }));
    for (place, signer) in signers.iter().enumerate() {
        let name = signer.algorithm.to_ascii_lowercase();
        let claims = |exp: u64| json!({ "key": format!("{name}-key"), "role": "admin", "exp": exp });
        let answer = story.ask("GET", &[("Authorization", &signer.token(&claims(4_102_444_800)))]);
        assert_eq!((answer.status, answer.text()), (200, format!("{name}|||admin")), "{name}");
        assert_eq!(story.who(&[("Authorization", &signer.token(&claims(1_700_000_000)))]), Err(401), "expired");
        let other = &signers[(place + 1) % signers.len()];
        assert_eq!(story.who(&[("Authorization", &other.token(&claims(4_102_444_800)))]), Err(401), "another one's key");
    }
    let refused = story.ask("GET", &[("Authorization", "Bearer a.b.c")]);
    assert_eq!(refused.status, 401);
    assert!(refused.field("www-authenticate").unwrap().starts_with("Bearer realm=\"jwt\", error=\"invalid_token\""));
}

#[test]
fn keys_that_are_published_follow_their_issuer() {
    let story = Story::new();
    let signer = Signer::new("EdDSA");
    let issuer = Nginx::start(&format!("location /keys {{ return 200 '{}'; }}", signer.published()));
    story.consumer("jack", json!({ "jwt-auth": { "key": "jack", "secret": "not used here" } }));
    let claims = json!({ "sub": "jack", "iss": "issuer", "aud": ["shop", "cafe"] });
    let config = json!({ "jwks_url": format!("http://{}/keys", issuer.address), "key_claim_name": "sub", "issuers": ["issuer"], "audiences": ["shop"] });
    story.route(json!({ "jwt-auth": config }));
    assert_eq!(story.who(&[("Authorization", &signer.token(&claims))]), Ok("jack".to_owned()));
    assert_eq!(story.who(&[("Authorization", &Signer::new("EdDSA").token(&claims))]), Err(401));
    assert_eq!(
        story.who(&[("Authorization", &signer.token(&json!({ "sub": "jack", "iss": "other", "aud": "shop" })))]),
        Err(401)
    );
    // The issuer goes down: what it has published is good on.
    drop(issuer);
    assert_eq!(story.who(&[("Authorization", &signer.token(&claims))]), Ok("jack".to_owned()));
    story.route(json!({ "jwt-auth": { "jwks_url": "http://127.0.0.1:1/keys", "key_claim_name": "sub" } }));
    assert_eq!(story.who(&[("Authorization", &signer.token(&claims))]), Err(503));
}

#[test]
fn signatures_over_the_request_and_its_body() {
    let story = Story::new();
    story.consumer("jack", json!({ "hmac-auth": { "key_id": "jacks-id", "secret_key": "jacks-secret" } }));
    story.route(json!({ "hmac-auth": { "validate_request_body": true, "signed_headers": ["date", "digest"] } }));
    let date = String::from_utf8(run("sh", &["-c", "LC_ALL=C TZ=GMT date '+%a, %d %b %Y %H:%M:%S GMT'"], b"")).unwrap();
    let date = date.trim();
    let send = |secret: &str, digested: &[u8], sent: &[u8]| {
        let digest = format!("SHA-256={}", base64(&run("openssl", &["dgst", "-sha256", "-binary"], digested)));
        let text = format!("jacks-id\nPOST /p/a?b=1\ndate: {date}\ndigest: {digest}\n");
        let signature = base64(&run("openssl", &["dgst", "-sha256", "-hmac", secret, "-binary"], text.as_bytes()));
        let value = format!(
            "Signature keyId=\"jacks-id\",algorithm=\"hmac-sha256\",headers=\"@request-target date digest\",signature=\"{signature}\""
        );
        let fields = [("Authorization", &*value), ("Date", date), ("Digest", &*digest)];
        client::send(story.heddle.http, "POST", "/p/a?b=1", &fields, sent).unwrap()
    };
    let answer = send("jacks-secret", b"content", b"content");
    assert_eq!((answer.status, answer.text().split('|').next()), (200, Some("jack")));
    assert_eq!(send("jacks-secret", b"content", b"other").json()["message"], "client request can't be validated: Invalid digest");
    assert_eq!(send("guess", b"content", b"content").json()["message"], "client request can't be validated: Invalid signature");
}

#[test]
fn one_of_several_proofs_is_enough_and_guests_come_last() {
    let story = Story::new();
    story.consumer("jack", json!({ "basic-auth": { "username": "jack", "password": "$2y$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW" }, "key-auth": { "key": "jacks-key" } }));
    story.consumer("guest", json!({}));
    let both = json!([{ "basic-auth": {} }, { "key-auth": {} }]);
    story.route(json!({ "multi-auth": { "auth_plugins": both } }));
    let (right, wrong) = (basic("jack", "open sesame"), basic("jack", "guess"));
    assert_eq!(story.who(&[("Authorization", &right)]), Ok("jack".to_owned()));
    assert_eq!(story.who(&[("Authorization", &wrong), ("apikey", "jacks-key")]), Ok("jack".to_owned()));
    assert_eq!(story.ask("GET", &[("Authorization", &wrong)]).json()["message"], "Authorization Failed");
    let both = json!([{ "basic-auth": { "anonymous_consumer": "guest" } }, { "key-auth": {} }]);
    story.route(json!({
        "multi-auth": { "auth_plugins": both },
        "consumer-restriction": { "allowed_by_methods": [{ "user": "guest", "methods": ["GET"] }] }
    }));
    assert_eq!(story.who(&[("apikey", "jacks-key")]), Ok("jack".to_owned()));
    assert_eq!(story.who(&[("X-Consumer-Username", "jack")]), Ok("guest".to_owned()));
    assert_eq!(story.ask("POST", &[]).json()["message"], "The consumer_name is forbidden.");
    assert_eq!(story.ask("POST", &[("apikey", "jacks-key")]).status, 200);
}

#[test]
fn digests_that_curl_answers() {
    let story = Story::new();
    story.consumer("jack", json!({ "digest-auth": { "username": "jack", "password": "open-sesame" } }));
    // MD5 of `trae:digest:fik`.
    let ha1 = String::from_utf8(run("openssl", &["dgst", "-md5", "-r"], b"trae:digest:fik")).unwrap();
    story.consumer("trae", json!({ "digest-auth": { "username": "trae", "ha1": ha1.split(' ').next().unwrap() } }));
    let url = format!("http://{}/p/a?b=1", story.heddle.http);
    for (algorithms, user, name) in
        [(json!(["MD5"]), "trae:fik", "trae"), (json!(["SHA-256", "MD5"]), "jack:open-sesame", "jack")]
    {
        story.route(json!({ "digest-auth": { "algorithms": algorithms, "hide_credentials": true } }));
        let told = client::curl(&["-s", "--digest", "-u", user, &url]);
        assert!(told.ends_with(&format!("{name}|||")), "{told}");
    }
    let told = client::curl(&["-s", "--digest", "-u", "jack:guess", &url]);
    assert!(told.contains("Invalid user authorization"), "{told}");
}
