//! `heddle inject` as a command: what goes in, what comes out, and with which exit code; and that the agent takes the configuration that is injected.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use heddle_integration::heddle::binary;
use serde_json::{Value, json};

const DEPLOYMENT: &str = "\
# kept as it is
apiVersion: v1
kind: Service
metadata: { name: web }
---
apiVersion: apps/v1
kind: Deployment
metadata: { name: web, namespace: shop }
spec:
  selector: { matchLabels: { app: web } }
  template:
    metadata:
      labels: { app: web }
      annotations: { heddle.io/outbound: \"api:9001\" }
    spec:
      containers:
      - name: web
        image: web:1
        ports: [ { name: http, containerPort: 8080 } ]
        readinessProbe: { httpGet: { path: /ready, port: http } }
";

fn heddle(folder: &Path, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(binary());
    command.args(arguments).current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that reads no input may be gone already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn printed(folder: &Path, arguments: &[&str], input: &str) -> String {
    let output = heddle(folder, arguments, input);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn refused(folder: &Path, arguments: &[&str], input: &str) -> String {
    let output = heddle(folder, arguments, input);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// A template's configuration of its sidecar.
fn configuration(object: &Value) -> String {
    object["metadata"]["annotations"]["heddle.io/config"].as_str().unwrap().to_owned()
}

#[test]
fn kubernetes_objects_get_their_sidecars_and_lose_them_again() {
    let folder = tempfile::tempdir().unwrap();
    let once = printed(folder.path(), &["inject", "-f", "-"], DEPLOYMENT);
    assert!(once.starts_with("# kept as it is\napiVersion: v1\nkind: Service\nmetadata: { name: web }\n---\n"), "{once}");
    assert!(once.contains("restartPolicy: Always") && once.contains("path: /app/web/readiness"), "{once}");
    std::fs::write(folder.path().join("once.yaml"), &once).unwrap();
    assert_eq!(printed(folder.path(), &["inject", "-f", "once.yaml"], ""), once);
    printed(folder.path(), &["inject", "-f", "once.yaml", "--uninject", "-o", "back.yaml"], "");
    let back = std::fs::read_to_string(folder.path().join("back.yaml")).unwrap();
    assert!(!back.contains("sidecar") && back.contains("heddle.io/outbound"), "{back}");
    assert_eq!(printed(folder.path(), &["inject", "-f", "back.yaml"], ""), once);
}

#[test]
fn a_service_in_another_document_of_the_file_says_which_port_is_meant() {
    let folder = tempfile::tempdir().unwrap();
    let services = DEPLOYMENT.replace(
        "metadata: { name: web }\n---",
        "metadata: { name: web }\nspec:\n  selector: { app: web }\n  ports: [ { port: 80, targetPort: http }, { port: 81, targetPort: 9090 } ]\n---",
    );
    let output = heddle(folder.path(), &["inject", "-f", "-"], &services);
    let (told, text) = (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success() && text.contains("127.0.0.1:9090"), "{told}{text}");
    assert!(told.contains("Service web leads its port 81 to 9090, which no container of the pod declares"), "{told}");
    let telling = services.replace("containerPort: 8080 }", "containerPort: 8080 }, { containerPort: 9090 }");
    let output = heddle(folder.path(), &["inject", "-f", "-"], &telling);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !told.contains("leads"), "{told}");
}

#[test]
fn mistakes_name_document_object_and_annotation_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let told = refused(folder.path(), &["inject", "-f", "-"], &DEPLOYMENT.replace("api:9001", "api"));
    assert!(
        told.contains(
            "standard input: document 2: Deployment shop/web: spec.template.metadata.annotations[heddle.io/outbound]: expected"
        ),
        "{told}"
    );
    let told = refused(
        folder.path(),
        &["inject", "-f", "-", "-o", "x.yaml"],
        &DEPLOYMENT.replace("containers:", "hostNetwork: true\n      containers:"),
    );
    assert!(told.contains("spec.template.spec.hostNetwork: "), "{told}");
    assert!(!folder.path().join("x.yaml").exists());
    assert!(
        refused(folder.path(), &["inject", "-f", "-", "--control-plane", "nowhere"], DEPLOYMENT)
            .contains("control plane: expected a URL")
    );
    assert!(refused(folder.path(), &["inject", "-f", "nothing.yaml"], "").contains("nothing.yaml: "));
    assert_eq!(heddle(folder.path(), &["inject"], "").status.code(), Some(2));
}

#[test]
fn an_agent_takes_the_configuration_that_is_injected() {
    let folder = tempfile::tempdir().unwrap();
    let template = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "web", "annotations": { "heddle.io/outbound": "api:9001,db.data:9002" } }, "spec": {
        "containers": [ { "name": "web", "ports": [ { "containerPort": 8080 } ], "readinessProbe": { "httpGet": { "path": "/a?b=${c}", "port": 8080, "scheme": "HTTPS" } },
            "livenessProbe": { "tcpSocket": { "port": 8080 } } } ] } });
    let mut without_port = template.clone();
    without_port["spec"]["containers"] = json!([{ "name": "job" }]);
    let mut of_the_pod = template.clone();
    of_the_pod["metadata"]["annotations"]["heddle.io/bind"] = "pod".into();
    let cases = [
        (&template, "10.0.0.7", "127.0.0.1:8080"),
        (&without_port, "10.0.0.7", "15021"),
        (&of_the_pod, "10.0.0.7", "10.0.0.7:8080"),
        (&of_the_pod, "fd00::7", "[fd00::7]:8080"),
    ];
    for (pod, ip, address) in cases {
        let text = printed(folder.path(), &["inject", "-f", "-"], &pod.to_string());
        std::fs::write(folder.path().join("sidecar.yaml"), configuration(&serde_json::from_str(&text).unwrap())).unwrap();
        let mut command = Command::new(binary());
        for (name, value) in [("HEDDLE_POD_NAME", "web-1"), ("HEDDLE_POD_NAMESPACE", "shop"), ("HEDDLE_POD_IP", ip)] {
            command.env(name, value);
        }
        let output = command.args(["validate", "-c", "sidecar.yaml", "--show"]).current_dir(folder.path()).output().unwrap();
        let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{told}");
        assert!(told.contains(address), "{told}");
        assert!(told.contains("15021"), "{told}");
    }
}

#[test]
fn units_jobs_and_registrations_get_theirs() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("web.service", "[Service]\nExecStart=/bin/true\n");
    let text = printed(folder.path(), &["inject", "--systemd", "web.service", "--port", "8080"], "");
    for path in
        ["# /etc/systemd/system/heddle-web.service", "# /etc/systemd/system/web.service.d/heddle.conf", "# /etc/heddle/web.yaml"]
    {
        assert!(text.contains(path), "{text}");
    }
    // Whoever asks about capture has the file, and nothing of the unit's environment.
    printed(folder.path(), &["inject", "--systemd", "web.service", "--port", "8080", "-o", "captured"], "");
    let show = ["capture", "show", "--dry-run", "-c", "captured/etc/heddle/web.yaml", "--uid", "991"];
    let rules = printed(folder.path(), &show, "");
    for rule in ["tcp dport { 22, 15001, 15006, 15021, 15053 } accept", "meta skuid { 991 } accept", "redirect to :15006"] {
        assert!(rules.contains(rule), "{rule} is not in: {rules}");
    }
    printed(folder.path(), &["inject", "--systemd", "web.service", "--port", "8080", "--capture", "off", "-o", "root"], "");
    let checked = Command::new(binary())
        .args(["validate", "-c", "root/etc/heddle/web.yaml", "--show"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let told = format!("{}{}", String::from_utf8_lossy(&checked.stdout), String::from_utf8_lossy(&checked.stderr));
    assert!(checked.status.success() && told.contains("/run/credentials/heddle-web.service/token"), "{told}");
    let unit = folder.path().join("root/etc/systemd/system/heddle-web.service");
    let ours = std::fs::read_to_string(&unit).unwrap();
    std::fs::write(&unit, "[Service]\nExecStart=/bin/true\n").unwrap();
    let away = ["inject", "--systemd", "web.service", "--uninject", "-o", "root"];
    assert!(refused(folder.path(), &away, "").contains("was not written by `heddle inject`"));
    assert!(folder.path().join("root/etc/heddle/web.yaml").exists(), "nothing was removed");
    std::fs::write(&unit, ours).unwrap();
    printed(folder.path(), &away, "");
    for gone in ["etc/heddle/web.yaml", "etc/systemd/system/heddle-web.service", "etc/systemd/system/web.service.d"] {
        assert!(!folder.path().join("root").join(gone).exists(), "{gone}");
    }
    let all = printed(folder.path(), &["inject", "--systemd", "web.service", "--uninject"], "");
    assert_eq!(all.lines().next(), Some("/etc/systemd/system/heddle-web.service"));
    let job = "job \"web\" {\n  # The shop.\n  group \"web\" {\n    network { mode = \"bridge\" }\n    task \"app\" { driver = \"exec\" }\n  }\n}\n";
    write("job.hcl", job);
    let text = printed(folder.path(), &["inject", "--nomad", "job.hcl", "--port", "8080"], "");
    assert!(text.contains("# The shop.") && text.contains("task \"heddle\"") && text.contains("to = 15006"), "{text}");
    write("job.hcl", &job.replace("bridge", "host"));
    assert!(refused(folder.path(), &["inject", "--nomad", "job.hcl"], "").contains("expected a network of mode `bridge`"));
    write("service.json", "{ \"service\": { \"name\": \"web\", \"port\": 8080 } }");
    let service: Value = serde_json::from_str(&printed(folder.path(), &["inject", "--consul", "service.json"], "")).unwrap();
    assert_eq!(service["service"]["port"], 15_006);
}

#[test]
fn the_configuration_of_the_webhook_is_printed_with_its_ca() {
    let folder = tempfile::tempdir().unwrap();
    let text = printed(folder.path(), &["inject", "--webhook-configuration", "--webhook-namespace", "mesh"], "");
    assert!(
        text.contains("kind: MutatingWebhookConfiguration") && text.contains("namespace: mesh") && !text.contains("caBundle"),
        "{text}"
    );
    std::fs::write(folder.path().join("ca.pem"), "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n").unwrap();
    assert!(printed(folder.path(), &["inject", "--webhook-configuration", "--webhook-ca", "ca.pem"], "").contains("caBundle: "));
    assert!(refused(folder.path(), &["inject", "--webhook-configuration", "--webhook-ca", "none.pem"], "").contains("none.pem"));
}

#[test]
fn who_gives_a_second_unit_of_a_host_a_sidecar_is_told_that_ports_meet() {
    let folder = tempfile::tempdir().unwrap();
    let told = |unit: &str| {
        std::fs::write(folder.path().join(unit), "[Service]\nExecStart=/bin/true\n").unwrap();
        let output = heddle(folder.path(), &["inject", "--systemd", unit, "--port", "8080", "-o", "root"], "");
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(!told("web.service").contains("warning"));
    assert!(!told("web.service").contains("warning"), "the same once more");
    let told = told("api.service");
    assert!(
        told.contains("root/etc/systemd/system/heddle-web.service is a sidecar of this host, too")
            && told.contains("inbound.address"),
        "{told}"
    );
}
