//! By which numbers the ports of a pod are called: as its annotation says, as Services beside it lead to it, as its containers name them.

use super::*;

/// The ports of the sidecar's service, in few words: `port=address/protocol`, the first without a number of its own.
fn told(object: &Value) -> Vec<String> {
    let text = object.pointer("/metadata/annotations/heddle.io~1config").and_then(Value::as_str).unwrap();
    let configuration: Value = serde_saphyr::from_str(text).unwrap();
    let service = &configuration["service"];
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let further = service["ports"].as_array().into_iter().flatten();
    let further = further.map(|one| format!("{}={}/{}", one["port"], word(&one["address"]), word(&one["protocol"])));
    std::iter::once(format!("{}/{}", word(&service["address"]), word(&service["protocol"]))).chain(further).collect()
}

/// A pod whose application has HTTP at 8080, gRPC at 9090, and one more port that says nothing at 7000.
fn shop(annotations: Value) -> Value {
    let mut pod = pod();
    pod["metadata"]["annotations"] = annotations;
    pod["spec"]["containers"][0] = json!({ "name": "web", "ports": [
        { "containerPort": 8080, "name": "http" }, { "containerPort": 9090, "name": "grpc-api" }, { "containerPort": 7000, "name": "admin" } ] });
    pod
}

/// A Service for these pods.
fn service(ports: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web" }, "spec": { "selector": { "app": "web" }, "ports": ports } })
}

/// What becomes of the pod beside Services, and what its author is told.
fn beside(pod: Value, services: &[Value]) -> (Value, String) {
    let items: Vec<Value> = services.iter().cloned().chain([pod]).collect();
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
    let done = inject(&list, &InjectSettings::default()).unwrap();
    // Which account the control plane knows the pod by is another story.
    let warnings: Vec<String> = done.warnings.into_iter().filter(|warning| !warning.contains("service account")).collect();
    (done.object["items"].as_array().unwrap().last().unwrap().clone(), warnings.join("\n"))
}

#[test]
fn an_annotation_says_which_port_of_the_application_callers_of_another_one_mean() {
    let pod = injected(&shop(json!({ "heddle.io/ports": "81=9090, 82=7000/http2, 83=8080" })));
    let expected = ["127.0.0.1:8080/http", "81=127.0.0.1:9090/grpc", "82=127.0.0.1:7000/http2", "9090=-/grpc"];
    assert_eq!(told(&pod), expected, "what leads to the port that is meant anyway needs no word");
    let pod = injected(&shop(json!({ "heddle.io/ports": "81=7000", "heddle.io/bind": "pod" })));
    assert_eq!(told(&pod)[..2], ["[${HEDDLE_POD_IP}]:8080/http", "81=[${HEDDLE_POD_IP}]:7000/auto"]);
    for (value, expected) in [
        ("81", "81=9090"),
        ("81=9090/htp", "81=9090/grpc"),
        ("0=9090", "81=9090"),
        ("81=9090,81=7000", "each port once, found 81 twice"),
    ] {
        let told = refused(&shop(json!({ "heddle.io/ports": value })));
        assert!(told.contains("metadata.annotations[heddle.io/ports]: expected ") && told.contains(expected), "{value}: {told}");
    }
}

#[test]
fn a_service_of_the_same_list_leads_to_the_ports_that_it_means() {
    let ports = json!([
        { "port": 80, "targetPort": "http" },
        { "port": 81, "targetPort": "grpc-api" },
        { "port": 82, "targetPort": 7000, "appProtocol": "kubernetes.io/h2c" },
        { "port": 7000, "name": "tcp-admin" },
        { "port": 53, "protocol": "UDP" },
    ]);
    let (pod, warnings) = beside(shop(json!({})), &[service(ports)]);
    let expected = ["127.0.0.1:8080/http", "81=127.0.0.1:9090/grpc", "82=127.0.0.1:7000/http2", "7000=-/tcp", "9090=-/grpc"];
    assert_eq!((told(&pod), &*warnings), (expected.map(str::to_owned).to_vec(), ""));

    // The pod may say it better, and a port of its own is not what a Service calls so.
    let twisted = service(json!([ { "port": 81, "targetPort": 7000 }, { "port": 9090, "targetPort": 8080 } ]));
    let (pod, warnings) = beside(shop(json!({ "heddle.io/ports": "81=9090" })), &[twisted]);
    assert_eq!(told(&pod)[1..], ["81=127.0.0.1:9090/grpc", "9090=127.0.0.1:8080/http"]);
    assert_eq!(warnings, "");
}

#[test]
fn services_for_others_say_nothing_of_a_pod() {
    let led = json!([ { "port": 81, "targetPort": 7000 } ]);
    let elsewhere = |change: &dyn Fn(&mut Value)| {
        let mut service = service(led.clone());
        change(&mut service);
        let mut pod = shop(json!({}));
        pod["metadata"]["namespace"] = "shop".into();
        told(&beside(pod, &[service]).0).len()
    };
    assert_eq!(elsewhere(&|_| ()), 3, "it names no namespace: that of the file");
    assert_eq!(elsewhere(&|service| service["metadata"]["namespace"] = "shop".into()), 3);
    assert_eq!(elsewhere(&|service| service["metadata"]["namespace"] = "other".into()), 2);
    assert_eq!(elsewhere(&|service| service["spec"]["selector"]["tier"] = "front".into()), 2);
    assert_eq!(elsewhere(&|service| service["spec"]["selector"] = json!({})), 2);
    assert_eq!(elsewhere(&|service| service["apiVersion"] = "serving.example/v1".into()), 2);
}

#[test]
fn who_declares_no_port_listens_where_the_service_says() {
    let mut pod = shop(json!({}));
    pod["spec"]["containers"][0]["ports"] = json!([]);
    let (pod, warnings) = beside(pod, &[service(json!([ { "port": 80, "targetPort": 8080, "appProtocol": "http" } ]))]);
    assert_eq!((told(&pod), &*warnings), (vec!["127.0.0.1:8080/http".to_owned()], ""));
}

#[test]
fn ports_that_would_lead_astray_are_warned_of() {
    let warned = |ports: Value| beside(shop(json!({})), &[service(ports)]).1;
    let told = warned(json!([ { "port": 81, "targetPort": "metrics" } ]));
    assert!(told.contains("Service web leads its port 81 to the port `metrics`, which no container of the pod has"), "{told}");
    let told = warned(json!([ { "port": 81, "targetPort": 9999 } ]));
    assert!(told.contains("Service web leads its port 81 to 9999, which no container of the pod declares"), "{told}");
    let told = warned(json!([ { "port": 8080, "targetPort": 9090 } ]));
    assert!(
        told.contains("port 8080 leads to 9090 of the application, but ") && told.contains("heddle.io/port: \"9090\""),
        "{told}"
    );
    let two = [service(json!([ { "port": 81, "targetPort": 9090 } ])), service(json!([ { "port": 81, "targetPort": 7000 } ]))];
    let told = beside(shop(json!({})), &two).1;
    assert!(told.contains("another Service leads it to 9090") && told.contains("heddle.io/ports: \"81=7000\""), "{told}");
}

#[test]
fn who_injects_again_without_the_service_keeps_what_it_said_and_taking_out_takes_it_away() {
    let settings = InjectSettings::default();
    let (pod, _) = beside(shop(json!({})), &[service(json!([ { "port": 81, "targetPort": "grpc-api" } ]))]);
    assert_eq!(inject(&pod, &settings).unwrap().change, Change::Unchanged);
    let newer = InjectSettings { image: "heddle:next".into(), ..settings };
    assert_eq!(told(&inject(&pod, &newer).unwrap().object), told(&pod));
    assert_eq!(uninject(&pod).unwrap().object, shop(json!({})));
    let (other, _) = beside(pod, &[service(json!([ { "port": 82, "targetPort": "grpc-api" } ]))]);
    assert_eq!(told(&other)[1], "82=127.0.0.1:9090/grpc", "the Service of now counts");
}

#[test]
fn whom_applications_call_by_a_name_that_the_mesh_does_not_know_is_warned_of() {
    let leads = |name: &str, pod: Value| {
        let ports = json!([ { "port": 8080, "targetPort": 8080 } ]);
        let service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "namespace": "shop" }, "spec": { "selector": { "app": "web" }, "ports": ports } });
        beside(pod, &[service]).1
    };
    let told = leads("cart", shop(json!({})));
    assert!(
        told.contains("Service shop/cart leads to these pods, which the mesh calls `web`")
            && told.contains("heddle.io/service: cart"),
        "{told}"
    );
    assert_eq!(leads("web", shop(json!({}))), "");
    assert_eq!(leads("cart", shop(json!({ "heddle.io/service": "cart" }))), "");
}
