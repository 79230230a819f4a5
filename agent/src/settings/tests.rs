//! Settings read from text, and what is said of wrong ones.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use heddle_node::config::{Document, Expansion, Format};
use heddle_xds::model::{MeshProtocol, PeerMode};

use super::*;

fn read(text: &str) -> Result<AgentSettings, String> {
    let document = Document::parse("heddle.yaml", text, Format::Yaml, Expansion::Off).map_err(|mistakes| mistakes.to_string())?;
    document.read(|root| AgentSettings::read(root, 4)).map_err(|mistakes| mistakes.to_string())
}

fn refused(text: &str, parts: &[&str]) {
    let told = read(text).unwrap_err();
    for part in parts {
        assert!(told.contains(part), "{part} is not in:\n{told}");
    }
}

#[test]
fn several_control_planes_are_reached_alike() {
    let text = r#"controlplane: { address: ["10.0.0.1:18000", "http://10.0.0.2:18000", "10.0.0.3:18000"] }"#;
    let access = read(text).unwrap().control_plane;
    assert_eq!(access.addresses(), ["http://10.0.0.1:18000", "http://10.0.0.2:18000", "http://10.0.0.3:18000"]);
    for (text, expected) in [
        (r#"["10.0.0.1:18000", "https://10.0.0.2:18000"]"#, "with the same scheme"),
        ("[]", "expected 1 to 16 addresses"),
        ("[ 5 ]", "expected host:port"),
    ] {
        let told = read(&format!("controlplane: {{ address: {text} }}")).unwrap_err();
        assert!(told.contains(expected), "{expected} is not in:\n{told}");
    }
}

#[test]
fn behind_mapped_ports_others_are_told_another_address() {
    let text = |inbound: &str| {
        format!(
            "role: sidecar\nservice: {{ name: web, address: \"127.0.0.1:8080\" }}\ncontrolplane: {{ address: \"https://cp.example.org:18000\", token_file: ./t, bundle: ./root.pem }}\ninbound: {inbound}\n"
        )
    };
    let told = |inbound: &str| {
        let instance = read(&text(inbound)).unwrap().mesh.instance().unwrap();
        (instance.address.to_string(), instance.port)
    };
    assert_eq!(told(r#"{ address: "0.0.0.0:15006" }"#), (String::new(), 15_006), "what the control plane sees");
    assert_eq!(told(r#"{ advertise: "10.0.0.7:25006" }"#), ("10.0.0.7".to_owned(), 25_006));
    for nowhere in ["0.0.0.0:25006", "10.0.0.7:0"] {
        refused(&text(&format!("{{ advertise: \"{nowhere}\" }}")), &["inbound.advertise"]);
    }
}

#[test]
fn nothing_said_is_all_defaults() {
    let settings = read("{}").unwrap();
    assert_eq!((settings.workers, settings.admin), (4, DEFAULT_ADMIN));
    assert_eq!(settings.control_plane.address.to_string(), format!("http://{DEFAULT_CONTROL_PLANE}"));
    assert_eq!((settings.identity, settings.mesh), (IdentitySettings::default(), MeshSettings::default()));
    assert_eq!(settings.access_log, Some(AccessLogSettings { path: None, format: None }));
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = "agent: { workers: 0, admin: nowhere, colour: red }\naccess_log: { enabled: 7 }";
    refused(text, &["agent.workers", "agent.admin", "agent.colour", "access_log.enabled"]);
}

#[test]
fn a_sidecar_is_read_as_a_whole() {
    let settings = read(
        r#"
role: sidecar
service: { name: web, namespace: shop, address: "127.0.0.1:8080", protocol: http, version: "2", labels: { track: canary } }
controlplane: { address: "https://cp.example.org:18000", token_file: ./join.token, bundle: ./root.pem }
identity: { trust_domain: mesh.example.org, persist: true, workload_api: ./workload.sock, workload_api_uids: [1000] }
inbound: { address: "0.0.0.0:15006" }
outbound:
  explicit: [ { service: api, listen: "127.0.0.1:9001" }, { service: other/db, listen: "127.0.0.1:9002" }, { service: mq, namespace: infra, listen: "127.0.0.1:9003" } ]
  http_proxy: "127.0.0.1:15001"
  capture: tproxy
  capture_address: "127.0.0.1:15011"
  other: refuse
"#,
    )
    .unwrap();
    let mesh = settings.mesh;
    let service = mesh.service.unwrap();
    assert_eq!((service.full_name().as_str(), service.protocol, &*service.version), ("shop/web", MeshProtocol::Http, "2"));
    assert_eq!(service.labels, [("track".into(), "canary".into())]);
    assert_eq!((mesh.role, mesh.inbound.unwrap().address.port()), (Role::Sidecar, 15_006));
    let explicit: Vec<&str> = mesh.outbound.explicit.iter().map(|explicit| &*explicit.service).collect();
    assert_eq!((explicit, mesh.outbound.capture), (vec!["shop/api", "other/db", "infra/mq"], Capture::Tproxy));
    assert_eq!((mesh.outbound.captured.unwrap().port(), mesh.outbound.other), (15_011, Other::Refuse));
    assert_eq!(mesh.outbound.dns.unwrap().port(), 15_053, "where connections are captured names are answered");
    assert_eq!(mesh.outbound.cluster_domain, ClusterDomain::OfHost, "those of Kubernetes, too");
    let access = settings.control_plane;
    assert!(access.address.tls && access.address.authority == "cp.example.org:18000");
    assert_eq!(access.proof, Some(ProofSettings::JoinToken("./join.token".into())));
    let identity = settings.identity;
    assert!(identity.persist && identity.trust_domain.unwrap().as_str() == "mesh.example.org");
    assert_eq!(identity.workload_api, Some(WorkloadApiSettings { path: "./workload.sock".into(), uids: vec![1000] }));
}

#[test]
fn names_of_kubernetes_are_answered_where_they_lead_somewhere() {
    let outbound = |text: &str| read(&format!("role: sidecar\nservice: {{ name: a }}\noutbound: {{ {text} }}"));
    for (text, expected) in [
        ("capture: redirect", ClusterDomain::OfHost),
        ("capture: redirect, dns_cluster_domain: off", ClusterDomain::Off),
        ("capture: tproxy, dns_cluster_domain: k8s.example", ClusterDomain::Named("k8s.example".into())),
        ("dns: \"127.0.0.1:15053\"", ClusterDomain::Off),
        ("dns_cluster_domain: off", ClusterDomain::Off),
    ] {
        assert_eq!(outbound(text).unwrap().mesh.outbound.cluster_domain, expected, "{text}");
    }
    for (text, part) in [
        ("capture: redirect, dns_cluster_domain: \".local\"", "outbound.dns_cluster_domain: expected the domain of a Kubernetes"),
        ("capture: redirect, dns_cluster_domain: Cluster.Local", "outbound.dns_cluster_domain: expected the domain"),
        ("capture: redirect, dns_cluster_domain: \"\"", "outbound.dns_cluster_domain"),
        ("dns_cluster_domain: cluster.local", "outbound.dns_cluster_domain: needs capture"),
    ] {
        assert!(outbound(text).unwrap_err().contains(part), "{text}");
    }
}

#[test]
fn a_sidecar_needs_little() {
    assert_eq!(
        read("role: sidecar\nservice: { name: nightly_job }").unwrap().mesh.service.unwrap().full_name(),
        "default/nightly_job"
    );
    let mesh = read("role: sidecar\nservice: { name: job }").unwrap().mesh;
    assert_eq!((mesh.inbound, mesh.outbound), (None, OutboundSettings::default()));
    let service = mesh.service.unwrap();
    assert_eq!((service.full_name().as_str(), service.protocol), ("default/job", MeshProtocol::Auto));
    let mesh = read("role: sidecar\nservice: { name: web, address: \"127.0.0.1:8080\" }").unwrap().mesh;
    assert_eq!(mesh.inbound, Some(InboundSettings::default()));
}

#[test]
fn an_application_may_have_further_ports() {
    let service = |text: &str| format!("role: sidecar\nservice: {{ name: a, {text} }}");
    let ports = r#"address: "127.0.0.1:80", ports: [ { port: 90, protocol: grpc }, { port: 25, protocol: tcp, address: "127.0.0.2:2525" } ]"#;
    let mesh = read(&service(ports)).unwrap().mesh;
    let places: Vec<String> =
        mesh.service.as_ref().unwrap().ports.iter().map(|place| format!("{} {}", place.port, place.address)).collect();
    assert_eq!(places, ["90 127.0.0.1:90", "25 127.0.0.2:2525"]);
    assert_eq!(mesh.instance().unwrap().ports, [(90, MeshProtocol::Grpc), (25, MeshProtocol::Tcp)]);
    for (text, part) in [
        (r#"address: "127.0.0.1:80", ports: [ { port: 90 } ]"#, "protocol"),
        (r#"address: "127.0.0.1:80", ports: [ { port: 90, protocol: udp } ]"#, "expected one of: http, http2, grpc, tcp, auto"),
        (r#"address: "127.0.0.1:80", ports: [ { port: 80, protocol: tcp } ]"#, "port 80 is given twice"),
        (r#"ports: [ { port: 80, protocol: tcp } ]"#, "service.ports: needs address"),
    ] {
        refused(&service(text), &[part]);
    }
}

#[test]
fn who_is_let_in_is_told_for_all_ports_and_for_single_ones() {
    let inbound = |text: &str| read(&format!("role: sidecar\nservice: {{ name: a, address: \"127.0.0.1:1\" }}\ninbound: {text}"));
    let told = inbound(
        r#"{ address: "[::]:2", mode: permissive, ports: { "9090": disable, "1": strict }, forward_client_cert: false, max_connection_age: 10m, max_connection_age_grace: 1m, idle_timeout: 2h }"#,
    );
    let told = told.unwrap().mesh.inbound.unwrap();
    assert_eq!(
        (told.mode, told.ports, told.forward_client_cert),
        (Some(PeerMode::Permissive), [(1, PeerMode::Strict), (9090, PeerMode::Disable)].into(), false)
    );
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    assert_eq!(
        (told.max_connection_age, told.max_connection_age_grace, told.idle_timeout),
        (minutes(10), minutes(1), minutes(120))
    );
    for (text, part) in [
        ("{ mode: strikt }", "inbound.mode: expected one of: strict, permissive, disable"),
        ("{ ports: { \"0\": strict } }", "inbound.ports: expected at most 256 ports"),
        ("{ ports: { http: strict } }", "inbound.ports: expected"),
        ("{ ports: [1] }", "inbound.ports: expected"),
    ] {
        assert!(inbound(text).unwrap_err().contains(part), "{text}");
    }
}

#[test]
fn what_a_sidecar_lacks_is_told() {
    refused("role: sidecar", &["the key `service` is missing"]);
    refused("role: sidecar\nservice: {}", &["service: the key `name` is missing"]);
    refused("role: sidekar", &["role: expected one of: gateway, sidecar"]);
    refused("role: sidecar\nservice: { name: web }\ninbound: { address: \"0.0.0.0:1\" }", &["inbound: needs service.address"]);
    refused("outbound: { capture: redirect }", &["outbound: only sidecars have it"]);
    let itself = |address: &str, inbound: &str| {
        let text =
            format!("role: sidecar\nservice: {{ name: a, address: \"{address}\" }}\ninbound: {{ address: \"{inbound}\" }}");
        read(&text).err().unwrap_or_default()
    };
    for (address, inbound) in [("127.0.0.1:9", "127.0.0.1:9"), ("127.0.0.1:9", "0.0.0.0:9"), ("[::1]:9", "[::]:9")] {
        let told = itself(address, inbound);
        assert!(told.contains(&format!("service.address: {address} is where the sidecar itself listens")), "{told}");
    }
    for (address, inbound) in [("127.0.0.1:9", "127.0.0.1:8"), ("127.0.0.1:9", "192.0.2.1:9"), ("127.0.0.1:0", "127.0.0.1:0")] {
        assert_eq!(itself(address, inbound), "");
    }
    refused("role: sidecar\nservice: { name: Web_1, protocol: htp }", &["service.name: expected at most 63", "service.protocol"]);
    refused("role: sidecar\nservice: { name: a, labels: { a: 1 } }", &["service.labels: expected at most 32"]);
    let twice = "role: sidecar\nservice: { name: a }\noutbound: { http_proxy: \"127.0.0.1:1\", explicit: [ { service: b, listen: \"127.0.0.1:1\" }, { service: c, listen: \"127.0.0.1:1\" }, { service: ../d, listen: x } ] }";
    refused(
        twice,
        &[
            "127.0.0.1:1 is given twice",
            "outbound.http_proxy: 127.0.0.1:1 is",
            "outbound.explicit[2].service",
            "outbound.explicit[2].listen",
        ],
    );
}

#[test]
fn addresses_of_control_planes() {
    for (text, shown) in [
        ("127.0.0.1:18000", "http://127.0.0.1:18000"),
        ("http://cp:18000", "http://cp:18000"),
        ("https://cp.example.org:18000/", "https://cp.example.org:18000"),
        ("https://[::1]:18000", "https://[::1]:18000"),
    ] {
        assert_eq!(ControlPlaneAddress::parse(text).unwrap().to_string(), shown);
    }
    for text in [
        "",
        "cp",
        "cp:",
        "cp:0",
        "cp:99999",
        ":1",
        "ftp://cp:1",
        "https://u@cp:1",
        "https://cp:1/x",
        "::1:1",
        "[::1:1",
        "https://cp:1?x",
    ] {
        assert_eq!(ControlPlaneAddress::parse(text), None, "{text}");
    }
}

#[test]
fn what_is_shown_to_the_control_plane_needs_tls() {
    refused("controlplane: { address: nowhere }", &["controlplane.address: expected host:port, http"]);
    refused(
        "controlplane: { address: \"cp:1\", token_file: a, bundle: b }",
        &["controlplane.token_file: needs TLS: set controlplane.address to \"https://cp:1\"", "controlplane.bundle: needs TLS"],
    );
    refused("controlplane: { address: \"https://cp:1\" }", &["controlplane: the key `bundle` is missing"]);
    refused(
        "controlplane: { address: \"https://cp:1\", bundle: b, token_file: a, service_account_token_file: c }",
        &["controlplane.service_account_token_file: excludes token_file"],
    );
    assert!(read("controlplane: { address: \"https://cp:1\" }\nidentity: { sds: /run/spire.sock }").is_ok());
}

#[test]
fn what_identities_lack_is_told() {
    refused("identity: { trust_domain: Mesh }", &["identity.trust_domain: expected a trust domain"]);
    refused("identity: { workload_api_uids: [0] }", &["identity.workload_api_uids: needs workload_api"]);
    refused(
        "identity: { workload_api: a, workload_api_uids: [root] }",
        &["identity.workload_api_uids: expected a list of numbers"],
    );
    refused("identity: { sds: a, persist: true }", &["identity.persist: keeps nothing"]);
}

#[test]
fn a_registration_at_consul_says_where_others_reach_the_node() {
    let registered = |text: &str| read(text).map(|settings| settings.mesh.registration().map(|(_, one)| one.clone()));
    assert_eq!(registered("service: { consul: { tags: [a] } }"), Ok(None), "nothing is registered that nobody asked for");
    let sidecar = "role: sidecar\nservice: { name: web, address: \"127.0.0.1:8080\", consul: { register: true } }";
    let one = registered(sidecar).unwrap().unwrap();
    assert_eq!((one.port, one.address, one.ttl), (15_006, None, Duration::from_secs(15)));
    assert_eq!(one.checks.len(), 1);
    assert_eq!((one.checks[0].protocol, one.checks[0].address.port(), one.checks[0].failures), (CheckProtocol::Tcp, 8_080, 2));
    let gateway = "service: { consul: { register: true, port: 9080, address: gw.example, ttl: 5s, reap_after: 2m, checks: [] } }";
    let one = registered(gateway).unwrap().unwrap();
    assert_eq!((one.port, one.address.as_deref(), one.checks.len()), (9_080, Some("gw.example"), 0));
    let checks = "service: { address: \"127.0.0.1:1\", consul: { register: true, port: 1, checks: [ { path: /healthz, interval: 2s, timeout: 100ms, failures: 3 }, { protocol: tcp, address: \"127.0.0.1:2\" } ] } }";
    let one = registered(checks).unwrap().unwrap();
    assert_eq!((one.checks[0].path.as_str(), one.checks[0].failures, one.checks[1].address.port()), ("/healthz", 3, 2));
    refused("service: { consul: { register: true } }", &["service.consul.port: expected the port"]);
    refused("role: sidecar\nservice: { name: job, consul: { register: true } }", &["service.consul.port"]);
    refused(
        "service: { consul: { register: true, port: 1, ttl: 0s, tags: [\"\"], meta: { \"a b\": c }, weights: { passing: 0 }, checks: [ { path: x } ] } }",
        &["consul.ttl", "consul.tags", "consul.meta", "weights.passing", "checks[0].path", "checks[0].address"],
    );
    let two = "consul: { addresses: [\"http://a\", \"http://b\"] }\nservice: { consul: { register: true, port: 1 } }";
    refused(two, &["consul.addresses: a service is registered at one agent"]);
}
