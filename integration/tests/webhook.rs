//! `heddle controlplane` as an admission webhook: an API server posts to it over TLS, and a pod comes back with its sidecar.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};

use base64::Engine;
use heddle_integration::client;
use heddle_integration::heddle::{Heddle, KEY, Setup};
use heddle_integration::place::Place;
use heddle_integration::process::until;
use serde_json::{Value, json};

/// By this name an API server asks.
const NAME: &str = "heddle.heddle-system.svc";

/// A question as API servers send it.
fn question(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sidecar/src/webhook/tests/reviews");
    folder.join(name).display().to_string()
}

struct Story {
    control: Heddle,
    webhook: SocketAddr,
}

impl Story {
    fn start() -> Story {
        let webhook = Place::new().address();
        let more = format!("identity: {{ trust_domain: story.example }}\nwebhook: {{ address: \"{webhook}\" }}\n");
        let story = Story { control: Heddle::control_plane(Setup { more, ..Setup::default() }), webhook };
        until("the webhook", || story.ca().exists().then_some(()));
        story
    }

    /// Whom the API server is told to trust.
    fn ca(&self) -> std::path::PathBuf {
        self.control.place.path("data/webhook/ca.pem")
    }

    fn ask(&self, arguments: &[&str], path: &str) -> Output {
        let (url, at) = (format!("https://{NAME}:{}{path}", self.webhook.port()), self.webhook);
        let found = format!("{NAME}:{}:{}", at.port(), at.ip());
        Command::new("curl")
            .args(["-sS", "-m", "20", "--resolve", &found, &url])
            .args(arguments)
            .output()
            .expect("curl is installed")
    }

    /// What a question is answered.
    fn review(&self, name: &str, path: &str) -> Value {
        let (body, ca) = (format!("@{}", question(name)), self.ca().display().to_string());
        let output = self.ask(&["--cacert", &ca, "-H", "content-type: application/json", "--data-binary", &body], path);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stdout)))
    }

    fn metrics(&self) -> String {
        client::send(self.control.admin, "GET", "/admin/metrics", &[("X-API-KEY", KEY)], b"").unwrap().text()
    }
}

#[test]
fn an_api_server_that_asks_over_tls_gets_the_pod_with_its_sidecar() {
    let story = Story::start();
    let asked: Value = serde_json::from_slice(&std::fs::read(question("v1.36/create.json")).unwrap()).unwrap();
    let roots = String::from_utf8(story.control.cli(&["ca", "export"]).stdout).unwrap();
    let line = roots.lines().nth(1).expect("a line of a certificate");
    let patch = until("a pod that knows this control plane by its roots", || {
        let answer = story.review("v1.36/create.json", "/inject");
        assert_eq!((&answer["kind"], &answer["apiVersion"]), (&json!("AdmissionReview"), &json!("admission.k8s.io/v1")));
        let response = &answer["response"];
        assert_eq!((&response["uid"], &response["allowed"]), (&asked["request"]["uid"], &json!(true)));
        assert_eq!(response["patchType"], "JSONPatch");
        let patch = base64::engine::general_purpose::STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
        Some(String::from_utf8(patch).unwrap()).filter(|patch| patch.contains(line))
    });
    assert!(patch.contains("heddle-capture") && patch.contains("role: sidecar"), "{patch}");

    // What is not to be injected is let through as it is.
    let system = story.review("v1.20/system-namespace.json", "/inject")["response"].clone();
    assert_eq!((&system["allowed"], system.get("patch")), (&json!(true), None));
    let metrics = story.metrics();
    assert!(metrics.lines().any(|line| line.starts_with("heddle_webhook_reviews_total{") && !line.ends_with(" 0")), "{metrics}");

    // In clear nobody is answered, and nobody who does not trust it asks.
    let clear = client::send(story.webhook, "POST", "/inject", &[("Content-Type", "application/json")], b"{}");
    assert!(clear.is_err() || clear.is_ok_and(|answer| answer.status == 0));
    assert!(!story.ask(&["--data-binary", "{}"], "/inject").status.success(), "its authority is nobody's by itself");
}
