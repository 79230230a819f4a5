//! Logins, sessions and tokens with a real OpenID provider behind the gateway, and with one that lies.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use heddle_integration::client::{self, Answer, curl};
use heddle_integration::heddle::{Heddle, binary};
use heddle_integration::nginx::Nginx;
use heddle_integration::place::Place;
use heddle_integration::process::{Process, until};
use heddle_integration::redis::Redis;
use rcgen::{KeyPair, PublicKeyData};
use serde_json::{Value, json};

/// The client of the stories, as `oidc/provider.mjs` knows it.
const SECRET: &str = "the secret of the shop, long enough";
/// `shop` and its secret, as a form encodes them, in base64.
const BASIC: &str = "Basic c2hvcDp0aGUlMjBzZWNyZXQlMjBvZiUyMHRoZSUyMHNob3AlMkMlMjBsb25nJTIwZW5vdWdo";
/// `{"sub":"uma"` in base64.
const UMA: &str = "eyJzdWIiOiJ1bWEi";

/// The program of the provider.
fn program() -> PathBuf {
    let target = binary().ancestors().nth(2).unwrap().to_owned();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("node.sh");
    let made = Command::new("bash").arg(script).env("CARGO_TARGET_DIR", &target).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8(made.stdout).unwrap().trim().into()
}

/// The public half of a key on P-256 (RFC 7518 section 6.2).
fn jwk(key: &KeyPair) -> Value {
    // A byte that says that both coordinates follow, 32 bytes each.
    let point = key.der_bytes();
    let part = |from: usize| URL_SAFE_NO_PAD.encode(&point[from..from + 32]);
    json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "k1", "x": part(1), "y": part(33) })
}

struct Story {
    heddle: Heddle,
    nginx: Nginx,
    provider: Process,
    issuer: SocketAddr,
    /// The key of the client `vault`, whose public half the provider knows.
    key: KeyPair,
}

impl Story {
    fn new() -> Story {
        let (heddle, program) = (Heddle::run(), program());
        let nginx = Nginx::start(
            "location / { return 200 '$request_uri|$http_x_access_token|$http_x_userinfo|$http_x_id_token|$http_cookie'; }",
        );
        let (issuer, key) = (Place::new().address(), KeyPair::generate().unwrap());
        let mut command = Command::new("node");
        command.arg(program).arg(issuer.to_string());
        command.args(["back", "out"].map(|page| format!("http://{}/app/{page}", heddle.http)));
        command.arg(jwk(&key).to_string());
        let provider = Process::start(command, heddle.place.path("provider.log"));
        until("the provider", || provider.output().contains("serving").then_some(()));
        Story { heddle, nginx, provider, issuer, key }
    }

    /// Puts a route `/NAME/*` with what is special about it, and waits for it.
    fn route(&self, name: &str, special: Value) {
        self.route_on(&self.heddle, name, special);
    }

    /// The same on another gateway.
    fn route_on(&self, heddle: &Heddle, name: &str, special: Value) {
        let mut config = json!({
            "client_id": "shop", "client_secret": SECRET, "scope": "openid email offline_access", "authorization_params": { "prompt": "consent" },
            "discovery": format!("http://{}/.well-known/openid-configuration", self.issuer), "redirect_uri": "/app/back",
            "logout_path": "/app/logout", "use_pkce": true, "use_nonce": true, "session": { "secret": "0123456789abcdef" },
        });
        config.as_object_mut().unwrap().extend(special.as_object().unwrap().clone());
        let upstream = json!({ "nodes": { self.nginx.address.to_string(): 1 } });
        let uri = format!("/{name}/*");
        let route = json!({ "uri": uri, "plugins": { "openid-connect": config }, "upstream": upstream });
        heddle.put(&format!("/routes/{name}"), route);
        heddle.until_effective();
    }

    /// What a jar holds as the session's cookie, as a field of a request says it.
    fn ticket(&self, jar: &str) -> String {
        let jar = std::fs::read_to_string(self.jar(jar)).unwrap();
        let values: Vec<&str> = jar.lines().filter_map(|line| line.split_once("\tsession\t").map(|(_, value)| value)).collect();
        assert!(values.len() == 1 && !jar.contains("\tsession_2\t"), "{jar}");
        format!("session={}", values[0])
    }

    fn url(&self, target: &str) -> String {
        format!("http://{}{target}", self.heddle.http)
    }

    fn jar(&self, name: &str) -> String {
        self.heddle.place.path(name).display().to_string()
    }

    /// What a browser with this jar of cookies gets: status, where it is sent, body.
    fn browse(&self, jar: &str, url: &str) -> (u16, String, String) {
        let jar = self.jar(jar);
        let told = curl(&["-c", &jar, "-b", &jar, "-w", "\n%{http_code} %{redirect_url}", url]);
        let (body, last) = told.rsplit_once('\n').unwrap();
        let (status, sent_to) = last.split_once(' ').unwrap();
        (status.parse().unwrap(), sent_to.to_owned(), body.to_owned())
    }

    /// Walks from redirect to redirect until the next one starts so.
    fn walk(&self, jar: &str, from: &str, until: &str) -> String {
        let mut url = from.to_owned();
        for _ in 0..10 {
            let (status, sent_to, body) = self.browse(jar, &url);
            assert!(matches!(status, 302 | 303), "{url}: {status} {body}");
            if sent_to.starts_with(until) {
                return sent_to;
            }
            url = sent_to;
        }
        panic!("no end of redirects at {url}");
    }

    /// Logs in with a jar and gives what the upstream was told of `target`.
    fn log_in(&self, jar: &str, target: &str) -> String {
        let back = self.walk(jar, &self.url(target), &self.url("/app/back"));
        let (status, sent_to, body) = self.browse(jar, &back);
        assert_eq!((status, sent_to), (302, self.url(target)), "{body}");
        let (status, _, body) = self.browse(jar, &self.url(target));
        assert_eq!(status, 200, "{body}");
        body
    }

    /// A token that the provider gives to a program.
    fn token(&self, scope: &str) -> String {
        let fields = [("Authorization", BASIC), ("Content-Type", "application/x-www-form-urlencoded")];
        let form = format!("grant_type=client_credentials{scope}");
        let answer = client::send(self.issuer, "POST", "/token", &fields, form.as_bytes()).unwrap();
        answer.json()["access_token"].as_str().unwrap_or_else(|| panic!("{}", answer.text())).to_owned()
    }

    fn bearer(&self, target: &str, token: &str) -> Answer {
        client::send(self.heddle.http, "GET", target, &[("Authorization", &format!("Bearer {token}"))], b"").unwrap()
    }
}

#[test]
fn people_log_in_stay_and_log_out() {
    let story = Story::new();
    story.route("app", json!({ "post_logout_redirect_uri": "/app/out", "revoke_tokens_on_logout": true }));
    let told = story.log_in("jar", "/app/cart?item=1");
    let parts: Vec<&str> = told.trim_end().split('|').collect();
    assert_eq!(parts[0], "/app/cart?item=1");
    assert!(!parts[1].is_empty() && parts[2].starts_with(UMA) && parts[3].starts_with("eyJ"), "{told}");
    assert_eq!(parts.len(), 5);
    assert!(!parts[4].trim().split("; ").any(|cookie| cookie.starts_with("session")), "upstreams see no cookies of ours: {told}");
    // Access tokens of this provider last for 4 s.
    let first = parts[1].to_owned();
    until("a renewed token", || {
        let (status, _, body) = story.browse("jar", &story.url("/app/cart"));
        assert_eq!(status, 200, "{body}");
        (body.split('|').nth(1)? != first).then_some(())
    });
    std::fs::copy(story.jar("jar"), story.jar("stolen")).unwrap();
    let (status, out, _) = story.browse("jar", &story.url("/app/logout"));
    assert!(status == 302 && out.starts_with(&format!("http://{}/session/end?id_token_hint=", story.issuer)), "{out}");
    assert_eq!(story.browse("jar", &out).0, 200, "the provider asks whether its own session shall end too");
    for jar in ["jar", "stolen"] {
        assert_eq!(story.browse(jar, &story.url("/app/cart")).0, 302);
    }
}

#[test]
fn what_belongs_to_no_login_is_refused() {
    let story = Story::new();
    story.route("app", json!({}));
    let back = story.walk("jar", &story.url("/app/x"), &story.url("/app/back"));
    let forged = format!("{}?code=c&state=forged", story.url("/app/back"));
    assert_eq!(story.browse("jar", &forged).0, 400);
    assert_eq!(story.browse("other", &back).0, 400, "another browser");
    std::fs::copy(story.jar("jar"), story.jar("before")).unwrap();
    assert_eq!(story.browse("jar", &back).0, 302);
    assert_eq!(story.browse("jar", &back).0, 400, "the same browser, once more");
    let (status, _, body) = story.browse("before", &back);
    assert!(status == 401 && body.contains("invalid_grant"), "a code counts once: {status} {body}");
}

#[test]
fn a_session_ends_when_its_time_is_over() {
    let story = Story::new();
    story.route("app", json!({ "session": { "secret": "0123456789abcdef", "absolute_timeout": 3 } }));
    story.log_in("jar", "/app/x");
    until("the end", || (story.browse("jar", &story.url("/app/x")).0 == 302).then_some(()));
}

#[test]
fn sessions_in_a_redis_are_shared_sealed_and_end_everywhere() {
    let (story, mut redis, other) = (Story::new(), Redis::with(&["--requirepass", "secret"]), Heddle::run());
    let place = json!({ "host": redis.address.ip(), "port": redis.address.port(), "password": "secret", "prefix": "shop" });
    let special = json!({ "session": { "secret": "0123456789abcdef", "storage": "redis", "redis": place } });
    story.route("app", special.clone());
    story.route_on(&other, "app", special);
    let told = story.log_in("jar", "/app/x");
    let ticket = story.ticket("jar");
    assert!(ticket.len() < 100, "the browser keeps a ticket only: {ticket}");
    let say = |redis: &Redis, command: &str| redis.say(&format!("AUTH secret\r\n{command}"));
    let keys = |redis: &Redis| -> Vec<String> {
        say(redis, "KEYS *").lines().filter(|line| line.starts_with("shop:")).map(str::to_owned).collect()
    };
    let first = keys(&redis)[0].clone();
    let (kept, token) = (say(&redis, &format!("GET {first}")), told.split('|').nth(1).unwrap());
    assert!(kept.len() > token.len() && !kept.contains(token) && !ticket.contains(&first["shop:".len()..]), "sealed: {kept}");
    let left: i64 =
        say(&redis, &format!("TTL {first}")).lines().find_map(|line| line.strip_prefix(':')).unwrap().parse().unwrap();
    assert!((1..=900).contains(&left), "it ends by itself: {left}");
    let asks =
        |heddle: &Heddle, ticket: &str| client::send(heddle.http, "GET", "/app/x", &[("Cookie", ticket)], b"").unwrap().status;
    assert_eq!(asks(&other, &ticket), 200, "all gateways know it");
    // Whoever writes in the Redis makes nobody somebody else.
    story.log_in("second", "/app/x");
    let second = keys(&redis).into_iter().find(|key| *key != first).unwrap();
    say(&redis, &format!("COPY {second} {first} REPLACE"));
    assert_eq!(asks(&other, &ticket), 302);
    // Renewed tokens are kept there, and a logout ends copies on all gateways.
    let ticket = story.ticket("second");
    let before = say(&redis, &format!("GET {second}"));
    until("a renewed session", || {
        assert_eq!(asks(&other, &ticket), 200);
        (say(&redis, &format!("GET {second}")) != before).then_some(())
    });
    assert_eq!(story.browse("second", &story.url("/app/logout")).0, 302);
    assert_eq!((asks(&other, &ticket), asks(&story.heddle, &ticket)), (302, 302));
    // Nobody is taken for somebody, nor sent to log in for nothing, while nobody can be looked up.
    story.log_in("third", "/app/x");
    let ticket = story.ticket("third");
    redis.process.kill();
    until("the Redis is missed", || (asks(&story.heddle, &ticket) == 503).then_some(()));
    redis.start_again();
    // Each worker finds it again by itself.
    until("the Redis is found again", || (0..20).all(|_| asks(&story.heddle, &ticket) == 302).then_some(()));
    story.log_in("third", "/app/x");
}

#[test]
fn pushed_parameters_and_public_clients_log_in_too() {
    let story = Story::new();
    story.route("app", json!({ "par": { "enabled": true } }));
    story.log_in("pushed", "/app/x");
    let session = json!({ "secret": "fedcba9876543210" });
    story.route("app", json!({ "client_id": "spa", "client_secret": null, "session": session }));
    story.log_in("public", "/app/x");
}

#[test]
fn a_client_proves_itself_by_its_key() {
    let story = Story::new();
    let by_key = json!({
        "client_id": "vault", "client_secret": null, "token_endpoint_auth_method": "private_key_jwt",
        "client_rsa_private_key": story.key.serialize_pem(), "client_rsa_private_key_id": "k1",
    });
    story.route("app", by_key.clone());
    let told = story.log_in("jar", "/app/x");
    let first = told.split('|').nth(1).unwrap().to_owned();
    until("a renewed token", || {
        let (status, _, body) = story.browse("jar", &story.url("/app/x"));
        assert_eq!(status, 200, "{body}");
        (body.split('|').nth(1)? != first).then_some(())
    });
    let mut asks = by_key.clone();
    asks["bearer_only"] = json!(true);
    asks["introspection_endpoint_auth_method"] = json!("private_key_jwt");
    story.route("asks", asks);
    assert_eq!(story.bearer("/asks/x", "guessed").status, 401, "the provider knows who asks, and not the token");
    let mut other = by_key;
    other["client_rsa_private_key"] = json!(KeyPair::generate().unwrap().serialize_pem());
    other["session"] = json!({ "secret": "fedcba9876543210" });
    story.route("app", other);
    let back = story.walk("other", &story.url("/app/x"), &story.url("/app/back"));
    let (status, _, body) = story.browse("other", &back);
    assert!(status == 503 || status == 401, "another key proves nothing: {status} {body}");
}

#[test]
fn programs_bring_tokens_and_known_keys_outlive_the_provider() {
    let mut story = Story::new();
    let issuer = story.issuer;
    story.route("app", json!({}));
    story.route("keys", json!({ "bearer_only": true, "use_jwks": true, "required_scopes": ["api"] }));
    story.route("asks", json!({ "bearer_only": true }));
    story.route("late", json!({ "discovery": format!("http://{issuer}/.well-known/openid-configuration?late") }));
    let (signed, later, opaque) = (story.token("&scope=api"), story.token("&scope=api"), story.token(""));
    let told = story.bearer("/keys/x", &signed);
    assert!(told.status == 200 && told.text().contains(&signed), "{}", told.text());
    let broken = format!("{}AAAA", &signed[..signed.len() - 4]);
    let refused = story.bearer("/keys/x", &broken);
    assert_eq!(refused.status, 401);
    assert!(refused.field("www-authenticate").unwrap().contains("invalid_token"));
    assert_eq!(story.bearer("/keys/x", &opaque).status, 401);
    assert_eq!(client::get(story.heddle.http, "/keys/x").unwrap().status, 401);
    assert_eq!(story.bearer("/asks/x", &opaque).status, 200);
    assert_eq!(story.bearer("/asks/x", "guessed").status, 401);
    let back = story.walk("jar", &story.url("/app/x"), &story.url("/app/back"));
    story.log_in("in", "/app/x");
    story.provider.kill();
    assert_eq!(story.bearer("/keys/x", &later).status, 200);
    let (status, _, body) = story.browse("jar", &back);
    assert!(status == 503 && body.contains("identity provider cannot be reached"), "{status} {body}");
    let (status, _, body) = story.browse("new", &story.url("/late/x"));
    assert!(status == 503 && body.contains("identity provider cannot be reached"), "{status} {body}");
    let log = story.heddle.process.output();
    let code = back.split(['?', '&']).find_map(|pair| pair.strip_prefix("code=")).unwrap();
    assert!(
        [signed.as_str(), &later, &opaque, code].iter().all(|secret| !log.contains(secret)),
        "tokens and codes are never logged"
    );
}

#[test]
fn a_provider_that_does_not_sign_is_not_believed() {
    let story = Story::new();
    let liar = liar();
    story.route("app", json!({ "discovery": format!("http://{liar}/document") }));
    let (_, sent_to, _) = story.browse("jar", &story.url("/app/x"));
    let state = sent_to.split('&').find_map(|pair| pair.strip_prefix("state=")).unwrap();
    let (status, _, body) = story.browse("jar", &format!("{}?code=c&state={state}", story.url("/app/back")));
    assert!(status == 401 && body.contains("not signed"), "{status} {body}");
}

/// A provider whose ID tokens have no signature.
fn liar() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut asked = Vec::new();
            while !asked.windows(4).any(|window| window == b"\r\n\r\n") {
                let mut piece = [0; 4096];
                let read = stream.read(&mut piece).unwrap();
                asked.extend_from_slice(&piece[..read]);
            }
            let url = |path: &str| format!("http://{address}/{path}");
            // {"alg":"none"} and {"iss":"x"}
            let unsigned = "eyJhbGciOiJub25lIn0.eyJpc3MiOiJ4In0.";
            let body = if asked.starts_with(b"GET /document") {
                json!({ "issuer": "x", "authorization_endpoint": url("auth"), "token_endpoint": url("token"), "jwks_uri": url("jwks") })
            } else {
                json!({ "access_token": "a", "token_type": "Bearer", "id_token": unsigned })
            };
            let body = body.to_string();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
        }
    });
    address
}
