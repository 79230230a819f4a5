//! Plugins that ask somebody else, against real processes: services, policies, directories; well, gone, slow, and back again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use heddle_integration::certificates::Authority;
use heddle_integration::client::{self, Answer};
use heddle_integration::heddle::Heddle;
use heddle_integration::nginx::Nginx;
use heddle_integration::process::until;
use heddle_integration::slapd::Slapd;
use serde_json::{Value, json};

struct Story {
    heddle: Heddle,
    upstream: Nginx,
}

impl Story {
    fn begin() -> Story {
        let told = "$request_method|$http_x_user|$http_x_consumer_username|$http_authorization";
        Story { heddle: Heddle::run(), upstream: Nginx::saying(told) }
    }

    /// Routes `/p` through these plugins, and waits until the change is effective on all workers.
    fn route(&self, plugins: Value) {
        let upstream = json!({ "nodes": { self.upstream.address.to_string(): 1 } });
        self.heddle.put("/routes/p", json!({ "uri": "/p", "plugins": plugins, "upstream": upstream }));
        self.heddle.until_effective();
    }

    fn ask(&self, fields: &[(&str, &str)]) -> Answer {
        ask(self.heddle.http, fields)
    }

    fn log_in(&self, credentials: &str) -> Answer {
        self.ask(&[("Authorization", &format!("Basic {}", STANDARD.encode(credentials)))])
    }
}

fn ask(address: SocketAddr, fields: &[(&str, &str)]) -> Answer {
    client::send(address, "GET", "/p", fields, b"").unwrap()
}

#[test]
fn another_service_decides_until_it_is_gone() {
    let story = Story::begin();
    let decides = "location / { if ($http_authorization = 'Bearer good') { add_header X-User ann; return 200; } \
                   add_header WWW-Authenticate Bearer always; return 401 'who are you?'; }";
    let mut service = Nginx::start(decides);
    let uri = format!("http://{}/check", service.address);
    let config = json!({ "uri": uri, "request_headers": ["Authorization"], "upstream_headers": ["X-User"], "client_headers": ["WWW-Authenticate"], "status_on_error": 502 });
    story.route(json!({ "forward-auth": config }));
    let passed = story.ask(&[("Authorization", "Bearer good"), ("X-User", "forged")]);
    assert_eq!((passed.status, passed.text()), (200, "GET|ann||Bearer good".into()));
    let refused = story.ask(&[("X-User", "forged")]);
    assert_eq!((refused.status, refused.text(), refused.field("www-authenticate")), (401, "who are you?".into(), Some("Bearer")));
    service.process.kill();
    assert_eq!(story.ask(&[("Authorization", "Bearer good")]).status, 502);
    let mut config = config;
    config["allow_degradation"] = json!(true);
    story.route(json!({ "forward-auth": config }));
    let passed = story.ask(&[("X-User", "forged")]);
    assert_eq!((passed.status, passed.text()), (200, "GET|||".into()), "it passes, but as nobody");
}

#[test]
fn a_slow_service_slows_nobody_else() {
    let story = Story::begin();
    // It takes connections and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("http://{}/", silent.local_addr().unwrap());
    story.heddle.route("free", "/free", story.upstream.address);
    story.route(json!({ "forward-auth": { "uri": uri, "timeout": 2000 } }));
    let waiting: Vec<_> = (0..50)
        .map(|_| {
            let address = story.heddle.http;
            std::thread::spawn(move || ask(address, &[]).status)
        })
        .collect();
    let began = Instant::now();
    assert_eq!(story.heddle.get("/free").status, 200);
    assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
    for request in waiting {
        assert_eq!(request.join().unwrap(), 403);
    }
}

#[test]
fn a_policy_decides() {
    let story = Story::begin();
    let opa = Nginx::start(
        "location = /v1/data/open { return 200 '{\"result\": {\"allow\": true, \"headers\": {\"X-User\": \"ann\"}}}'; }\
         location = /v1/data/shut { return 200 '{\"result\": {\"allow\": false, \"status_code\": 418, \"reason\": \"tea only\"}}'; }\
         location / { return 200 '{}'; }",
    );
    let with = |policy: &str| {
        story.route(json!({ "opa": { "host": format!("http://{}", opa.address), "policy": policy, "send_headers_upstream": ["X-User"] } }))
    };
    with("open");
    assert_eq!(story.ask(&[("X-User", "forged")]).text(), "GET|ann||");
    with("shut");
    let refused = story.ask(&[]);
    assert_eq!((refused.status, refused.text()), (418, "tea only".into()));
    with("undefined");
    assert_eq!(story.ask(&[]).status, 503);
}

#[test]
fn a_directory_proves_passwords() {
    let story = Story::begin();
    let mut slapd = Slapd::start();
    story.heddle.put(
        "/consumers/ann",
        json!({ "username": "ann", "plugins": { "ldap-auth": { "user_dn": "cn=ann,ou=users,dc=example,dc=org" } } }),
    );
    let config =
        json!({ "ldap_uri": slapd.uri(), "base_dn": "ou=users,dc=example,dc=org", "hide_credentials": true, "timeout": 2000 });
    story.route(json!({ "ldap-auth": config }));
    let passed = story.log_in("ann:ann opens");
    assert_eq!((passed.status, passed.text()), (200, "GET||ann|".into()));
    for wrong in ["ann:guessed", "ann:", "nobody:ann opens", "bob:bob opens", "ann,ou=users:ann opens", "*:ann opens"] {
        let refused = story.log_in(wrong);
        assert_eq!((refused.status, refused.field("www-authenticate")), (401, Some("Basic realm=\"ldap\"")), "{wrong}");
    }
    assert_eq!(story.ask(&[]).status, 401);
    slapd.process.kill();
    assert_eq!(story.log_in("ann:ann opens").status, 401, "whoever cannot be proven is nobody");
    slapd.start_again();
    assert_eq!(story.log_in("ann:ann opens").status, 200);
}

#[test]
fn a_directory_is_trusted_over_tls_by_its_certificate() {
    let story = Story::begin();
    let authority = Authority::new();
    let pair = authority.issue(&["localhost", "127.0.0.1"]);
    let slapd = Slapd::over_tls(&pair.certificate, &pair.key);
    story.heddle.put(
        "/consumers/ann",
        json!({ "username": "ann", "plugins": { "ldap-auth": { "user_dn": "cn=ann,ou=users,dc=example,dc=org" } } }),
    );
    // The story's address is in no certificate: only who does not verify, or asks for no name, gets through.
    let config = |verify: bool, ca: &str| json!({ "ldap-auth": { "ldap_uri": slapd.uri(), "base_dn": "ou=users,dc=example,dc=org", "tls_verify": verify, "ca": ca, "timeout": 2000, "status_on_error": 503 } });
    story.route(config(false, &authority.pem()));
    assert_eq!(story.log_in("ann:ann opens").status, 200);
    assert_eq!(story.log_in("ann:guessed").status, 401);
    story.route(config(true, &authority.pem()));
    assert_eq!(story.log_in("ann:ann opens").status, 503, "the certificate is for another name");
    story.route(config(true, &Authority::new().pem()));
    assert_eq!(story.log_in("ann:ann opens").status, 503, "nobody trusts its authority");
}

#[test]
fn rules_decide_and_follow_their_metadata() {
    let story = Story::begin();
    let model = "[request_definition]\nr = sub, obj, act\n[policy_definition]\np = sub, obj, act\n[policy_effect]\n\
                 e = some(where (p.eft == allow))\n[matchers]\nm = r.sub == p.sub && keyMatch(r.obj, p.obj) && r.act == p.act\n";
    let rules = |who: &str| {
        story.heddle.put("/plugin_metadata/authz-casbin", json!({ "model": model, "policy": format!("p, {who}, /p*, GET") }))
    };
    rules("ann");
    story.route(json!({ "authz-casbin": { "username": "X-User" } }));
    assert_eq!(
        (story.ask(&[("X-User", "ann")]).status, story.ask(&[("X-User", "bob")]).status, story.ask(&[]).status),
        (200, 403, 403)
    );
    rules("bob");
    until("the new rules", || (story.ask(&[("X-User", "bob")]).status == 200).then_some(()));
    assert_eq!(story.ask(&[("X-User", "ann")]).status, 403);
}
