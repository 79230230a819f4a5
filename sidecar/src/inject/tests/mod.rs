//! Injection as a whole: every kind, what is refused, what probes become, and that taking out undoes putting in.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod kinds;
mod pods;
mod ports;
mod random;

use serde_json::{Value, json};

use super::*;

/// A template with a service, a port and a probe of each sort.
fn template() -> Value {
    json!({
        "metadata": { "labels": { "app": "web" }, "annotations": { "team": "shop" } },
        "spec": {
            "containers": [ {
                "name": "web", "image": "web:1", "ports": [ { "name": "http", "containerPort": 8080 } ],
                "readinessProbe": { "httpGet": { "path": "/ready?a=${b}", "port": "http", "httpHeaders": [ { "name": "X-A", "value": "1" } ] }, "timeoutSeconds": 3 },
                "livenessProbe": { "tcpSocket": { "port": 8080 }, "periodSeconds": 7 },
                "startupProbe": { "exec": { "command": [ "true" ] } },
            } ],
        },
    })
}

fn pod() -> Value {
    let mut pod = template();
    pod["apiVersion"] = "v1".into();
    pod["kind"] = "Pod".into();
    pod["metadata"]["name"] = "web-1".into();
    pod
}

fn with_annotation(name: &str, value: &str) -> Value {
    let mut pod = pod();
    pod["metadata"]["annotations"][name] = value.into();
    pod
}

fn injected(object: &Value) -> Value {
    let done = inject(object, &InjectSettings::default()).unwrap();
    assert_eq!(done.change, Change::Changed, "{:?}", done.warnings);
    done.object
}

fn refused(object: &Value) -> String {
    inject(object, &InjectSettings::default()).unwrap_err().to_string()
}
