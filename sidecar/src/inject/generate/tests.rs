//! What is written for orchestrators: done twice it is done once, taken out it is gone, and what cannot be done is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;

use super::*;
use crate::inject::Capture;

const UNIT: &str = "[Unit]\nDescription=Shop\n\n[Service]\nExecStart=/bin/true\nUser=shop\n\n[X-Heddle]\nPort=8080\n";

fn wishes() -> ServiceWishes {
    ServiceWishes {
        namespace: "default".into(),
        outbound: vec!["api:9001".into(), "db.data:9002".into()],
        ..ServiceWishes::default()
    }
}

fn uncaptured() -> InjectSettings {
    InjectSettings { capture: Capture::Off, ..InjectSettings::default() }
}

#[test]
fn a_unit_gets_a_sidecar_that_starts_before_it_and_a_drop_in() {
    let files = systemd("/etc/systemd/system/web.service", UNIT, &wishes(), &uncaptured()).unwrap();
    let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["heddle-web.service", "web.service.d/heddle.conf", "/etc/heddle/web.yaml"]);
    for line in ["Type=notify", "Before=web.service", "CapabilityBoundingSet=", "LoadCredential=token:/etc/heddle/web.token"] {
        assert!(files[0].text.lines().any(|found| found == line), "{line}");
    }
    for line in ["Requires=heddle-web.service", "After=heddle-web.service", "BindsTo=heddle-web.service"] {
        assert!(files[1].text.lines().any(|found| found == line), "{line}");
    }
    let configuration: Value = serde_saphyr::from_str(&files[2].text).unwrap();
    assert_eq!(
        configuration["service"],
        json!({ "name": "web", "namespace": "default", "address": "127.0.0.1:8080", "protocol": "auto" })
    );
    assert_eq!(configuration["outbound"]["explicit"][1], json!({ "service": "data/db", "listen": "127.0.0.1:9002" }));
    assert_eq!(systemd("/etc/systemd/system/web.service", UNIT, &wishes(), &uncaptured()).unwrap(), files);
    assert_eq!(configuration.get("capture"), None);
    let settings = InjectSettings {
        exclude_outbound_ports: vec![25],
        exclude_outbound_cidrs: vec!["10.9.0.0/16".parse().unwrap()],
        ..InjectSettings::default()
    };
    let captured = systemd("web.service", UNIT, &wishes(), &settings).unwrap();
    let configuration: Value = serde_saphyr::from_str(&captured[2].text).unwrap();
    assert_eq!(configuration["outbound"]["capture"], "redirect", "what sets capture up reads it");
    // All but the user is in the file: who shows or verifies what is in force needs no flags but that.
    assert_eq!(
        configuration["capture"],
        json!({ "exclude_inbound_ports": [15_021, 22], "exclude_outbound_ports": [25], "exclude_outbound_cidrs": ["10.9.0.0/16"] })
    );
    assert_eq!(
        configuration["controlplane"]["token_file"],
        "${CREDENTIALS_DIRECTORY:-/run/credentials/heddle-web.service}/token"
    );
    let unit = &captured[0].text;
    for part in [
        "heddle capture apply -c /etc/heddle/web.yaml --expect-agent --uid \"$$(id -u heddle)\"'",
        "heddle capture remove -c /etc/heddle/web.yaml --service-result \"$$SERVICE_RESULT\"'",
        "RestartSec=5\n",
    ] {
        assert!(unit.contains(part), "{part} is not in: {unit}");
    }
}

#[test]
fn systemd_itself_finds_nothing_wrong_with_the_units() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for settings in [uncaptured(), InjectSettings::default()] {
        let mut paths = vec![folder.path().join("web.service")];
        std::fs::write(&paths[0], UNIT).unwrap();
        for file in systemd("web.service", UNIT, &wishes(), &settings).unwrap().iter().take(2) {
            let path = folder.path().join(&file.path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            // The binary lies elsewhere on the machine of a test.
            std::fs::write(&path, file.text.replace("/usr/bin/heddle ", "/bin/true ")).unwrap();
            paths.extend(path.extension().filter(|ending| *ending == "service").map(|_| path.clone()));
        }
        let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).args(&paths).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        let about: Vec<&str> = told
            .lines()
            .filter(|line| line.contains(&*folder.path().to_string_lossy()) || line.contains("web.service"))
            .collect();
        assert!(about.is_empty(), "{told}");
    }
}

#[test]
fn units_that_get_no_sidecar_are_told_why() {
    let refused = |name: &str, text: &str| systemd(name, text, &wishes(), &InjectSettings::default()).unwrap_err();
    let sidecar = systemd("web.service", UNIT, &wishes(), &uncaptured()).unwrap().swap_remove(0).text;
    for (name, text, expected) in [
        ("web.timer", UNIT, "ends in .service"),
        ("web@.service", UNIT, "template unit"),
        ("web.service", "[Unit]\n", "ExecStart="),
        ("web.service", &UNIT.replace("User=shop", "User=heddle"), "sidecar's own user"),
        ("web.service", &UNIT.replace("User=shop", "PrivateNetwork=yes"), "loopback"),
        ("web.service", &UNIT.replace("8080", "x"), "expected 1 to 65535"),
        ("heddle-web.service", &sidecar, "the unit of a sidecar itself"),
        ("Web_1.service", UNIT, "a DNS label"),
    ] {
        let told = refused(name, text);
        assert!(told.starts_with(name) && told.contains(expected), "{told}");
    }
}

fn job() -> Value {
    json!({ "Job": { "ID": "shop", "Name": "shop", "TaskGroups": [ {
        "Name": "web", "Meta": { "heddle.io/protocol": "http" },
        "Networks": [ { "Mode": "bridge", "DynamicPorts": [ { "Label": "http", "To": 8080 } ] } ],
        "Services": [ { "Name": "web", "PortLabel": "http" } ],
        "Tasks": [ { "Name": "app", "Driver": "docker", "Config": { "image": "web:1" } } ],
    }, { "Name": "batch", "Meta": { "heddle.io/inject": "false" }, "Tasks": [ { "Name": "b" } ] } ] } })
}

#[test]
fn a_job_gets_a_task_that_starts_before_the_others_and_stays() {
    let text = nomad("job.json", &job().to_string(), &wishes(), &InjectSettings::default()).unwrap();
    let done: Value = serde_json::from_str(&text).unwrap();
    let task = &done["Job"]["TaskGroups"][0]["Tasks"][0];
    assert_eq!((&task["Name"], &task["Lifecycle"]), (&json!("heddle"), &json!({ "Hook": "prestart", "Sidecar": true })));
    let configuration: Value = serde_saphyr::from_str(task["Templates"][0]["EmbeddedTmpl"].as_str().unwrap()).unwrap();
    assert_eq!(
        (&configuration["service"]["address"], &configuration["service"]["protocol"]),
        (&json!("127.0.0.1:8080"), &json!("http"))
    );
    assert_eq!(task["Resources"], json!({ "CPU": 100, "MemoryMB": 32, "MemoryMaxMB": 256 }));
    // Others come by the port that Nomad maps, and each allocation has a token of its own.
    assert_eq!(configuration["inbound"]["advertise"], json!("${NOMAD_ADDR_heddle}"));
    assert_eq!(done["Job"]["TaskGroups"][0]["Networks"][0]["DynamicPorts"][1], json!({ "Label": "heddle", "To": 15_006 }));
    let token = task["Templates"][2]["EmbeddedTmpl"].as_str().unwrap();
    assert!(token.contains("nomad/jobs/shop/web/heddle") && token.contains("NOMAD_ALLOC_INDEX"), "{token}");
    assert_eq!(done["Job"]["TaskGroups"][1], job()["Job"]["TaskGroups"][1]);
    assert_eq!(nomad("job.json", &text, &wishes(), &InjectSettings::default()).unwrap(), text);
    assert_eq!(serde_json::from_str::<Value>(&without_nomad("job.json", &text).unwrap()).unwrap(), job());
}

/// What makes a good thing one that is refused.
type Spoil<'a> = &'a dyn Fn(&mut Value);

#[test]
fn jobs_that_get_no_sidecar_are_told_why() {
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut job = job();
        change(&mut job["Job"]["TaskGroups"][0]);
        nomad("job.json", &job.to_string(), &wishes(), &InjectSettings::default()).unwrap_err()
    };
    let cases: [(Spoil<'_>, &str); 5] = [
        (&|group| group["Networks"][0]["Mode"] = "host".into(), "expected a network of mode `bridge`"),
        (&|group| group["Services"][0]["Connect"] = json!({ "SidecarService": {} }), "Consul's own mesh"),
        (&|group| group["Tasks"][0]["Name"] = "heddle".into(), "rename it"),
        (&|group| group["Meta"]["heddle.io/port"] = "x".into(), "expected 1 to 65535"),
        (&|group| group["Meta"]["heddle.io/protocol"] = "htp".into(), "protocol: expected"),
    ];
    for (change, expected) in cases {
        let told = changed(change);
        assert!(told.starts_with("job.json: job shop: group web: ") && told.contains(expected), "{told}");
    }
}

/// A job as people write them.
const HCL: &str = r#"# The shop.
variable "image" { type = string }

job "shop" {
  datacenters = ["dc1"] # near us

  group "web" {
    count = 3
    network {
      mode = "bridge"
      port "http" { to = 8080 }
    }
    meta = { "heddle.io/protocol" = "http", "team" = "${var.team}" }

    service {
      name = "web"
      port = "http"
    }

    task "app" {
      driver = "docker"
      config {
        image = var.image
        args  = ["${NOMAD_PORT_http}", upper("x")]
      }
    }
  }

  group "batch" {
    meta = { "heddle.io/inject" = "false" }
    task "b" { driver = "exec" }
  }
}
"#;

#[test]
fn a_job_in_hcl_keeps_every_comment_variable_and_function() {
    let text = nomad("job.hcl", HCL, &wishes(), &InjectSettings::default()).unwrap();
    let group = hcl(&text);
    let task = group.get_blocks("task").find(|task| task.has_labels(&["heddle"])).unwrap();
    assert!(task.body.get_blocks("lifecycle").next().unwrap().body.get_attribute("sidecar").unwrap().value.as_bool().unwrap());
    let mut templates = task.body.get_blocks("template");
    let data = templates.next().unwrap().body.get_attribute("data").unwrap().value.as_heredoc_template().unwrap();
    let yaml = data.template.to_string().replace("$${", "${");
    let configuration: Value = serde_saphyr::from_str(&yaml).unwrap();
    assert_eq!(
        configuration["service"],
        json!({ "name": "web", "namespace": "default", "address": "127.0.0.1:8080", "protocol": "http" })
    );
    assert_eq!(configuration["inbound"]["advertise"], json!("${NOMAD_ADDR_heddle}"));
    let network = group.get_blocks("network").next().unwrap();
    assert_eq!(network.body.get_blocks("port").filter(|port| port.has_labels(&["heddle"])).count(), 1);
    // What was there is there, line by line, and what was put in can be taken out.
    assert!(HCL.lines().all(|line| text.lines().any(|other| other == line)), "{text}");
    assert_eq!(nomad("job.hcl", &text, &wishes(), &InjectSettings::default()).unwrap(), text);
    assert_eq!(without_nomad("job.hcl", &text).unwrap(), HCL);
}

/// The group `web` of the job.
fn hcl(text: &str) -> hcl_edit::structure::Body {
    let file = hcl_edit::parser::parse_body(text).unwrap();
    let job = file.get_blocks("job").next().unwrap();
    job.body.get_blocks("group").find(|group| group.has_labels(&["web"])).unwrap().body.clone()
}

#[test]
fn a_network_of_one_line_is_opened_for_the_port() {
    let one_line =
        "job \"shop\" {\n  group \"web\" {\n    network { mode = \"bridge\" }\n    task \"app\" { driver = \"exec\" }\n  }\n}\n";
    let wishes = ServiceWishes { port: Some(8080), ..wishes() };
    let text = nomad("job.hcl", one_line, &wishes, &InjectSettings::default()).unwrap();
    let network = hcl(&text).get_blocks("network").next().unwrap().clone();
    assert_eq!(network.body.get_attribute("mode").unwrap().value.as_str(), Some("bridge"));
    assert!(network.body.get_blocks("port").next().is_some_and(|port| port.has_labels(&["heddle"])), "{text}");
}

#[test]
fn jobs_in_hcl_that_get_no_sidecar_are_told_why() {
    for (from, to, expected) in [
        ("mode = \"bridge\"", "mode = var.mode", "expected a literal"),
        ("mode = \"bridge\"", "", "expected a network of mode `bridge`"),
        ("name = \"web\"", "connect {}", "Consul's own mesh"),
        ("task \"app\"", "task \"heddle\"", "rename it"),
        ("port \"http\"", "port \"heddle\"", "rename it"),
        ("\"http\", \"team\"", "var.spoken, \"team\"", "expected a literal"),
        ("count = 3", "count = ", "expected a job, as HCL"),
    ] {
        let told = nomad("job.hcl", &HCL.replacen(from, to, 1), &wishes(), &InjectSettings::default()).unwrap_err();
        assert!(told.starts_with("job.hcl: ") && told.contains(expected), "{from} -> {to}: {told}");
    }
    for (text, expected) in [("", "expected a `job` block"), ("job \"a\" {\n task \"b\" {}\n}\n", "outside of a group")] {
        assert!(nomad("job.hcl", text, &wishes(), &InjectSettings::default()).unwrap_err().contains(expected));
    }
}

#[test]
fn clients_of_consul_are_told_the_port_of_the_sidecar() {
    let file = json!({ "service": { "name": "web", "port": 8080, "check": { "http": "http://127.0.0.1:8080/health", "interval": "10s" } } });
    let api = json!({ "Name": "web", "ID": "web-1", "Port": 8080, "Meta": { "team": "shop" }, "Checks": [ { "TCP": "127.0.0.1:8080", "Interval": "5s" } ] });
    let several = json!({ "services": [ { "name": "a", "port": 1 }, { "name": "b", "port": 2, "meta": {}, "checks": [] } ] });
    for original in [file, api, several] {
        let text = consul("service.json", &original.to_string(), &wishes(), &InjectSettings::default()).unwrap();
        let done: Value = serde_json::from_str(&text).unwrap();
        assert!(
            text.contains(": 15006") && text.contains("http://127.0.0.1:15021/ready") && text.contains("ns/default/svc/"),
            "{text}"
        );
        if let Some(service) = done.get("service") {
            assert_eq!(service["check"], original["service"]["check"]);
        }
        assert_eq!(consul("service.json", &text, &wishes(), &InjectSettings::default()).unwrap(), text);
        assert_eq!(serde_json::from_str::<Value>(&without_consul("service.json", &text).unwrap()).unwrap(), original);
    }
}

#[test]
fn registrations_that_get_no_sidecar_are_told_why() {
    for (text, expected) in [
        ("service { }", "expected a registration as JSON"),
        ("{}", "expected `service`"),
        ("{\"service\":{\"name\":\"web\"}}", "expected a `port`"),
        ("{\"service\":{\"name\":\"web\",\"port\":80,\"connect\":{\"sidecar_service\":{}}}}", "Consul's own mesh"),
        ("{\"service\":{\"name\":\"Web 1\",\"port\":80}}", "a DNS label"),
        ("{\"service\":{\"name\":\"web\",\"port\":15006}}", "another port"),
    ] {
        let told = consul("service.json", text, &wishes(), &InjectSettings::default()).unwrap_err();
        assert!(told.starts_with("service.json: ") && told.contains(expected), "{told}");
    }
}
