//! What is put into a pod, what its annotations change, and which pods are left alone.

use super::*;

fn configuration(object: &Value) -> Value {
    let text = object["metadata"]["annotations"]["heddle.io/config"].as_str().unwrap();
    serde_saphyr::from_str(text).unwrap()
}

fn container<'v>(object: &'v Value, name: &str) -> Option<&'v Value> {
    ["initContainers", "containers"]
        .iter()
        .find_map(|list| object["spec"][list].as_array()?.iter().find(|one| one["name"] == name))
}

#[test]
fn the_sidecar_starts_before_the_application_and_may_do_nothing_but_its_work() {
    let pod = injected(&pod());
    let sidecar = container(&pod, "heddle").unwrap();
    assert_eq!(sidecar["restartPolicy"], "Always");
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        assert_eq!(sidecar[probe]["httpGet"]["port"], PROBE_PORT, "{probe}");
    }
    let context = &sidecar["securityContext"];
    assert_eq!(
        (&context["runAsUser"], &context["runAsNonRoot"], &context["readOnlyRootFilesystem"]),
        (&json!(SIDECAR_UID), &json!(true), &json!(true))
    );
    assert_eq!(
        (&context["capabilities"], &context["seccompProfile"]["type"]),
        (&json!({ "drop": ["ALL"] }), &json!("RuntimeDefault"))
    );
    let capture = container(&pod, "heddle-capture").unwrap();
    assert_eq!(capture["securityContext"]["capabilities"], json!({ "drop": ["ALL"], "add": ["NET_ADMIN"] }));
    assert!(capture.get("restartPolicy").is_none() && capture.get("volumeMounts").is_none());
    assert_eq!(
        capture["args"],
        json!(["capture", "apply", "--mode", "redirect", "--uid", "1337", "--exclude-inbound-ports", "15021"])
    );
    let token = &pod["spec"]["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"];
    assert_eq!((&token["audience"], &token["expirationSeconds"]), (&json!("heddle"), &json!(3600)));
    assert_eq!(pod["spec"]["volumes"][1]["emptyDir"]["medium"], "Memory");
    assert_eq!(pod["metadata"]["labels"]["heddle.io/injected"], "true");
}

#[test]
fn the_configuration_names_the_service_and_where_it_listens() {
    let configuration = configuration(&injected(&pod()));
    assert_eq!(
        configuration["service"],
        json!({ "name": "web", "namespace": "${HEDDLE_POD_NAMESPACE}", "address": "127.0.0.1:8080", "protocol": "http" })
    );
    assert_eq!((&configuration["role"], &configuration["outbound"]["capture"]), (&json!("sidecar"), &json!("redirect")));
}

#[test]
fn who_listens_at_the_address_of_the_pod_alone_is_called_there() {
    let address = |value: &str| configuration(&injected(&with_annotation("heddle.io/bind", value)))["service"]["address"].clone();
    assert_eq!(address("pod"), "[${HEDDLE_POD_IP}]:8080");
    assert_eq!(address("loopback"), "127.0.0.1:8080");
}

#[test]
fn further_ports_whose_names_say_what_they_speak_are_called_by_themselves() {
    let mut object = with_annotation("heddle.io/exclude-inbound-ports", "9100");
    object["spec"]["containers"][0]["ports"] = json!([
        { "containerPort": 8080, "name": "http" },
        { "containerPort": 9090, "name": "grpc-api" },
        { "containerPort": 9100, "name": "http-metrics" },
        { "containerPort": 5432, "name": "tcp-db" },
        { "containerPort": 7000, "name": "gossip" },
        { "containerPort": 5353, "name": "tcp-dns", "protocol": "UDP" },
    ]);
    let service = configuration(&injected(&object))["service"].clone();
    assert_eq!((&service["address"], &service["protocol"]), (&json!("127.0.0.1:8080"), &json!("http")));
    assert_eq!(service["ports"], json!([{ "port": 9090, "protocol": "grpc" }, { "port": 5432, "protocol": "tcp" }]));
}

#[test]
fn probes_reach_the_application_by_way_of_the_sidecar() {
    let pod = injected(&pod());
    let web = container(&pod, "web").unwrap();
    assert_eq!(web["readinessProbe"], json!({ "timeoutSeconds": 3, "httpGet": { "path": "/app/web/readiness", "port": 15021 } }));
    assert_eq!(web["livenessProbe"], json!({ "periodSeconds": 7, "httpGet": { "path": "/app/web/liveness", "port": 15021 } }));
    assert_eq!(web["startupProbe"], json!({ "exec": { "command": [ "true" ] } }));
    assert_eq!(
        configuration(&pod)["agent"]["probes"]["checks"],
        json!([
            { "path": "/app/web/readiness", "protocol": "http", "target": "/ready?a=$${b}", "headers": [ { "name": "X-A", "value": "1" } ], "port": 8080, "timeout": "3s" },
            { "path": "/app/web/liveness", "protocol": "tcp", "port": 8080, "timeout": "1s" },
        ])
    );
    for (annotation, value) in [("heddle.io/capture", "off"), ("heddle.io/probes", "keep")] {
        let kept = injected(&with_annotation(annotation, value));
        assert_eq!(kept["spec"]["containers"], super::pod()["spec"]["containers"], "{annotation}");
    }
}

#[test]
fn annotations_override_the_settings() {
    let mut object = pod();
    for (name, value) in [
        ("service", "shop-web"),
        ("protocol", "grpc"),
        ("port", "9090"),
        ("mode", "permissive"),
        ("outbound", "api:9001, db.data:9002"),
        ("exclude-inbound-ports", "9999"),
        ("exclude-outbound-ports", "25,465"),
        ("exclude-outbound-cidrs", "10.0.0.0/8, ::1"),
        ("image", "registry.example/heddle:2"),
        ("cpu-request", "250m"),
        ("cpu-limit", "2"),
        ("memory-request", "64Mi"),
        ("memory-limit", "128Mi"),
        ("log-level", "debug"),
        ("trust-domain", "shop.example"),
        ("dns-cluster-domain", "k8s.example"),
    ] {
        object["metadata"]["annotations"][format!("heddle.io/{name}")] = value.into();
    }
    let pod = injected(&object);
    let sidecar = container(&pod, "heddle").unwrap();
    assert_eq!(sidecar["image"], "registry.example/heddle:2");
    assert_eq!(
        sidecar["resources"],
        json!({ "requests": { "cpu": "250m", "memory": "64Mi" }, "limits": { "cpu": "2", "memory": "128Mi" } })
    );
    let arguments = container(&pod, "heddle-capture").unwrap()["args"].as_array().unwrap().clone();
    for (name, value) in [
        ("--exclude-inbound-ports", "15021,9999"),
        ("--exclude-outbound-ports", "25,465"),
        ("--exclude-outbound-cidrs", "10.0.0.0/8,::1/128"),
    ] {
        let at = arguments.iter().position(|argument| argument == name).unwrap();
        assert_eq!(arguments[at + 1], value);
    }
    let configuration = configuration(&pod);
    assert_eq!(
        (&configuration["service"]["name"], &configuration["service"]["address"], &configuration["service"]["protocol"]),
        (&json!("shop-web"), &json!("127.0.0.1:9090"), &json!("grpc"))
    );
    assert_eq!(configuration["inbound"], json!({ "address": "0.0.0.0:15006", "mode": "permissive" }));
    assert_eq!(
        configuration["outbound"]["explicit"],
        json!([{ "service": "api", "listen": "127.0.0.1:9001" }, { "service": "data/db", "listen": "127.0.0.1:9002" }])
    );
    assert_eq!(
        (&configuration["log"]["level"], &configuration["identity"]["trust_domain"]),
        (&json!("debug"), &json!("shop.example"))
    );
    assert_eq!(configuration["outbound"]["dns_cluster_domain"], "k8s.example");
    object["metadata"]["annotations"]["heddle.io/capture"] = "off".into();
    assert_eq!(self::configuration(&injected(&object))["outbound"]["dns_cluster_domain"], Value::Null, "it would lead nowhere");
    let off = injected(&with_annotation("heddle.io/capture", "off"));
    assert!(container(&off, "heddle-capture").is_none());
}

#[test]
fn wrong_values_are_told_with_object_annotation_and_what_was_expected() {
    for (name, value, expected) in [
        ("inject", "maybe", "`true` or `false`"),
        ("protocol", "htp", "`http`, `http2`, `grpc`, `tcp` or `auto`"),
        ("port", "70000", "a port number"),
        ("bind", "0.0.0.0", "`loopback` or `pod`"),
        ("mode", "lax", "`strict`, `permissive` or `disable`"),
        ("capture", "tproxy", "`off` or `redirect`"),
        ("exclude-inbound-ports", "80,x", "port numbers"),
        ("exclude-outbound-cidrs", "10.0.0.0/99", "networks such as"),
        ("image", "a b", "the name of an image"),
        ("cpu-request", "much", "a quantity"),
        ("memory-request", "1Gi", "at most the limit, found 1Gi of 256Mi"),
        ("log-level", "loud", "`error`, `warn`"),
        ("service", "Web_1", "a DNS label"),
        ("trust-domain", "A B", "a trust domain"),
        ("outbound", "api", "services with a local port"),
        ("outbound", "api:9001,db:9001", "each port once"),
        ("outbound", "api:8080", "a free port"),
        ("probes", "drop", "`rewrite` or `keep`"),
        ("dns-cluster-domain", ".local", "`off` or a domain"),
    ] {
        let told = refused(&with_annotation(&format!("heddle.io/{name}"), value));
        assert!(
            told.starts_with(&format!("Pod web-1: metadata.annotations[heddle.io/{name}]: expected ")) && told.contains(expected),
            "{told}"
        );
    }
}

/// What makes a good thing one that is refused.
type Spoil<'a> = &'a dyn Fn(&mut Value);

#[test]
fn what_cannot_be_done_is_refused_with_the_reason() {
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut pod = pod();
        change(&mut pod);
        refused(&pod)
    };
    let cases: [(Spoil<'_>, &str); 12] = [
        (
            &|pod| pod["spec"]["containers"][0]["livenessProbe"] = json!({ "grpc": { "port": 9000 } }),
            "livenessProbe.grpc: the kubelet asks over gRPC",
        ),
        (&|pod| pod["spec"]["hostNetwork"] = true.into(), "spec.hostNetwork: a pod in the network of its node"),
        (&|pod| pod["spec"]["nodeSelector"] = json!({ "kubernetes.io/os": "windows" }), "a pod for Windows"),
        (&|pod| pod["spec"]["initContainers"] = json!([{ "name": "linkerd-init" }]), "`linkerd-init` is a container of Linkerd"),
        (
            &|pod| pod["spec"]["containers"][0]["name"] = "heddle".into(),
            "spec.containers[0].name: `heddle` is the name of a container of the sidecar",
        ),
        (&|pod| pod["spec"]["volumes"] = json!([{ "name": "heddle-data" }]), "spec.volumes[0].name"),
        (&|pod| pod["spec"]["securityContext"] = json!({ "runAsUser": 1337 }), "expected another user than 1337"),
        (&|pod| pod["spec"]["containers"][0]["ports"][0]["containerPort"] = 15001.into(), "15001 is a port of the sidecar"),
        (&|pod| pod["metadata"]["annotations"]["heddle.io/config"] = "x".into(), "is written by the injection only"),
        (&|pod| pod["spec"]["containers"] = json!([]), "expected a list of at least one container"),
        (
            &|pod| pod["spec"]["containers"][0]["readinessProbe"]["httpGet"]["port"] = "nowhere".into(),
            "readinessProbe.httpGet.port: expected a port number",
        ),
        (&|pod| pod["metadata"]["annotations"]["heddle.io/status"] = "x".into(), "expected what an injection wrote"),
    ];
    for (change, expected) in cases {
        let told = changed(change);
        assert!(told.contains(expected), "{expected} is not in: {told}");
    }
}

#[test]
fn labels_decide_before_annotations_and_other_objects_pass() {
    let settings = InjectSettings::default();
    let mut object = with_annotation("heddle.io/inject", "true");
    object["metadata"]["labels"]["heddle.io/inject"] = "false".into();
    assert_eq!(inject(&object, &settings).unwrap().change, Change::OptedOut);
    object["metadata"]["labels"]["heddle.io/inject"] = "true".into();
    object["metadata"]["annotations"]["heddle.io/inject"] = "false".into();
    assert_eq!(inject(&object, &settings).unwrap().change, Change::Changed);
    assert_eq!(inject(&with_annotation("heddle.io/inject", "false"), &settings).unwrap().change, Change::OptedOut);
    assert_eq!(inject(&json!({ "apiVersion": "v1", "kind": "Service" }), &settings).unwrap().change, Change::NotAWorkload);
}

#[test]
fn slips_of_the_finger_and_hooks_are_warned_of() {
    let mut object = with_annotation("heddle.io/prot", "8080");
    object["spec"]["containers"][0]["lifecycle"] = json!({ "preStop": { "httpGet": { "path": "/stop", "port": 8080 } } });
    let warnings = inject(&object, &InjectSettings::default()).unwrap().warnings.join("\n");
    assert!(
        warnings.contains("`heddle.io/prot` means nothing; did you mean `heddle.io/port`?")
            && warnings.contains("lifecycle.preStop"),
        "{warnings}"
    );
}

#[test]
fn what_others_added_after_the_injection_stays() {
    let settings = InjectSettings::default();
    let mut object = injected(&pod());
    object["spec"]["initContainers"][1]["terminationMessagePath"] = "/dev/termination-log".into();
    assert_eq!(inject(&object, &settings).unwrap().change, Change::Unchanged);
    object["spec"]["volumes"].as_array_mut().unwrap().push(json!({ "name": "late", "emptyDir": {} }));
    let back = uninject(&object).unwrap().object;
    assert_eq!(back["spec"]["volumes"], json!([{ "name": "late", "emptyDir": {} }]));
    let newer = InjectSettings { image: "heddle:next".into(), ..settings };
    let upgraded = inject(&object, &newer).unwrap();
    assert_eq!(
        (upgraded.change, &upgraded.object["spec"]["initContainers"][1]["image"]),
        (Change::Changed, &json!("heddle:next"))
    );
}
