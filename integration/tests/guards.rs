//! What keeps requests out, and who they come from, through the real binary.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;

use heddle_integration::certificates::Authority;
use heddle_integration::client::{self, Answer};
use heddle_integration::heddle::{Heddle, Setup};
use heddle_integration::nginx::Nginx;
use heddle_integration::process::until;
use serde_json::{Value, json};

struct Story {
    heddle: Heddle,
    nginx: Nginx,
}

impl Story {
    /// Route `/p/*` with these plugins to an nginx that tells what it was asked.
    fn with(plugins: Value) -> Story {
        Story::on(Heddle::run(), plugins)
    }

    fn on(heddle: Heddle, plugins: Value) -> Story {
        let told = "$request_uri|$http_x_real_ip|$content_length|$http_x_forwarded_tls_client_cert_info";
        let story = Story { heddle, nginx: Nginx::start(&format!("location / {{ return 200 '{told}'; }}")) };
        story.route(plugins);
        story
    }

    fn route(&self, plugins: Value) {
        let upstream = json!({ "nodes": { self.nginx.address.to_string(): 1 } });
        self.heddle.put("/routes/p", json!({ "uri": "/p/*", "plugins": plugins, "upstream": upstream }));
        self.heddle.until_effective();
    }

    fn ask(&self, method: &str, target: &str, fields: &[(&str, &str)], body: &str) -> Answer {
        client::send(self.heddle.http, method, target, fields, body.as_bytes()).unwrap()
    }

    fn status(&self, target: &str, fields: &[(&str, &str)]) -> u16 {
        self.ask("GET", target, fields, "").status
    }
}

const JSON: (&str, &str) = ("Content-Type", "application/json");
const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

#[test]
fn clients_pages_and_targets_are_kept_out() {
    let story = Story::with(json!({
        "ua-restriction": { "denylist": ["(?i)spider"], "bypass_missing": true },
        "referer-restriction": { "blacklist": ["*.evil.example"], "bypass_missing": true },
        "uri-blocker": { "block_rules": ["root\\.exe"], "rejected_code": 404 },
    }));
    assert_eq!(story.status("/p/a", &[]), 200);
    assert_eq!(story.status("/p/a", &[("User-Agent", "Big Spider")]), 403);
    assert_eq!(story.status("/p/a", &[("Referer", "https://www.evil.example/x")]), 403);
    assert_eq!(story.status("/p/%72oot.exe", &[]), 404);
}

#[test]
fn whoever_changes_something_brings_the_token_back() {
    let story = Story::with(json!({ "csrf": { "key": "story" } }));
    let seen = story.ask("GET", "/p/a", &[], "");
    let cookie = seen.field("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let token = cookie.split_once('=').unwrap().1.to_owned();
    assert_eq!(story.ask("POST", "/p/a", &[("Cookie", &cookie)], "x").status, 401);
    assert_eq!(story.ask("POST", "/p/a", &[("Cookie", &cookie), ("apisix-csrf-token", &token)], "x").status, 200);
}

#[test]
fn the_address_of_the_client_comes_from_where_it_stands() {
    let story = Story::with(json!({
        "real-ip": { "source": "http_x_client", "trusted_addresses": ["127.0.0.0/8"] },
        "ip-restriction": { "whitelist": ["203.0.113.0/24"], "response_code": 404 },
    }));
    let answer = story.ask("GET", "/p/a", &[("X-Client", "203.0.113.9:80")], "");
    assert_eq!((answer.status, answer.text().as_str()), (200, "/p/a|203.0.113.9||"));
    assert_eq!(story.status("/p/a", &[("X-Client", "198.51.100.1")]), 404);
    assert_eq!(story.status("/p/a", &[]), 404);
    story.route(json!({ "ip-restriction": { "whitelist": ["203.0.113.0/24"], "ip_strategy": { "depth": 1 } } }));
    assert_eq!(story.status("/p/a", &[("X-Forwarded-For", "203.0.113.9")]), 200);
}

#[test]
fn a_request_fits_its_schema_or_is_refused() {
    let story = Story::with(json!({ "request-validation": {
        "body_schema": { "type": "object", "required": ["name"], "properties": { "name": { "type": "string" }, "n": { "default": 1 } } },
        "max_req_body_size": 64,
    } }));
    let answer = story.ask("POST", "/p/a", &[JSON], r#"{"n": 2}"#);
    assert_eq!((answer.status, answer.text().as_str()), (400, "\"name\" is a required property"));
    let put_in = r#"{"name":"jack","n":1}"#.len();
    assert_eq!(story.ask("POST", "/p/a", &[JSON], r#"{"name": "jack"}"#).text(), format!("/p/a|127.0.0.1|{put_in}|"));
    assert_eq!(story.ask("POST", "/p/a", &[FORM], "name=jack").status, 200);
    assert_eq!(story.ask("POST", "/p/a", &[JSON], &format!("{{\"name\": \"{}\"}}", "x".repeat(64))).status, 413);
}

#[test]
fn a_condition_may_look_at_the_body() {
    let story = Story::with(json!({ "ip-restriction": {
        "blacklist": ["0.0.0.0/0"], "_meta": { "filter": [["OR", ["post_arg.user.role", "==", "admin"], ["graphql_operation", "==", "mutation"]]] }
    } }));
    for (kind, body, status) in [
        (JSON, r#"{"user": {"role": "admin"}}"#, 403),
        (JSON, r#"{"user": {"role": "guest"}}"#, 200),
        (JSON, r#"{"query": "mutation { pay }"}"#, 403),
        (FORM, "user=admin", 200),
        (("Content-Type", "text/plain"), r#"{"user": {"role": "admin"}}"#, 200),
    ] {
        let answer = story.ask("POST", "/p/a", &[kind], body);
        assert_eq!(answer.status, status, "{body}");
        assert!(status != 200 || answer.text() == format!("/p/a|127.0.0.1|{}|", body.len()), "{}", answer.text());
    }
    assert_eq!(story.ask("POST", "/p/a", &[JSON], &" ".repeat(1024 * 1024 + 1)).status, 413);
}

#[test]
fn logs_do_not_show_what_is_masked() {
    let format = "access_log: { format: \"seen $request_uri $http_authorization $post_arg_pin end\" }";
    let heddle = Heddle::run_with(Setup { more: format!("{format}\n"), ..Setup::default() });
    let story = Story::on(
        heddle,
        json!({
            "data-mask": { "request": [
                { "type": "query", "name": "token", "action": "remove" },
                { "type": "header", "name": "Authorization", "action": "replace", "value": "***" },
                { "type": "body", "body_format": "urlencoded", "name": "pin", "action": "regex", "regex": "[0-9]", "value": "#" },
            ] },
            "response-rewrite": { "headers": { "set": { "X-Pin": "$post_arg_pin" } } },
        }),
    );
    let answer = story.ask("POST", "/p/a?token=secret&b=1", &[("Authorization", "Basic secret"), FORM], "pin=1234");
    assert!(answer.text().starts_with("/p/a?token=secret&b=1|"), "{}", answer.text());
    assert_eq!(answer.field("x-pin"), Some("1234"));
    until("the line", || story.heddle.process.output().contains("seen /p/a?b=1 *** #### end").then_some(()));
    assert!(!story.heddle.process.output().contains("secret"));
}

#[test]
fn the_upstream_is_told_of_the_clients_certificate() {
    let story = Story::with(json!({ "pass-client-cert": { "info": { "subject": { "common_name": true }, "sans": true } } }));
    let (authority, clients) = (Authority::new(), Authority::new());
    let (server, client) = (authority.issue(&["mtls.example"]), clients.issue(&["alice.example"]));
    story.heddle.put(
        "/ssls/mtls",
        json!({ "snis": ["mtls.example"], "cert": server.certificate, "key": server.key, "client": { "ca": clients.pem() } }),
    );
    let place = &story.heddle.place;
    let file = |name: &str, text: &str| place.write(name, text).display().to_string();
    let (ca, cert, key) =
        (file("ca.pem", &authority.pem()), file("alice.pem", &client.certificate), file("alice.key", &client.key));
    let port = story.heddle.https.port();
    let (resolve, url) = (format!("mtls.example:{port}:{}", story.heddle.https.ip()), format!("https://mtls.example:{port}/p/a"));
    let forged = "X-Forwarded-Tls-Client-Cert-Info: forged";
    let arguments = ["--cacert", &ca, "--cert", &cert, "--key", &key, "--resolve", &resolve, "-H", forged, &url];
    let told = until("the certificate", || {
        let output = Command::new("curl").args(["-sS", "--max-time", "30"]).args(arguments).output().expect("curl is installed");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    });
    // What the client shows beyond its own certificate comes behind a comma.
    assert!(told.contains("|Subject%3D%22CN%3Dalice.example%22%3BSAN%3D%22alice.example%22"), "{told}");
    assert!(story.ask("GET", "/p/a", &[("X-Forwarded-Tls-Client-Cert-Info", "forged")], "").text().ends_with("||"));
}
