//! The parts that a pod gets, as the Kubernetes API has them: two containers and two volumes. It does not know the pod.

use serde_json::{Value, json};

use super::annotations::{BUNDLE, CONFIG, Wishes};
use super::configuration::{DATA, FILES};
use super::refuse::{CAPTURE, DATA_VOLUME, FILES_VOLUME, SIDECAR};
use super::settings::{Bundle, InjectSettings, PROBE_PORT, SIDECAR_UID, TOKEN_AUDIENCE, TOKEN_SECONDS};

/// Most that a sidecar keeps in memory as files: its last good configuration.
const DATA_SIZE: &str = "64Mi";

/// The proxy: an init container that goes on running, so that it is ready before the application starts and ends after it.
#[must_use]
pub fn sidecar(wishes: &Wishes, settings: &InjectSettings) -> Value {
    let field = |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
    let probe = |path: &str, period: u32, failures: u32| json!({ "httpGet": { "path": path, "port": PROBE_PORT }, "periodSeconds": period, "timeoutSeconds": 2, "failureThreshold": failures });
    let mut container = json!({
        "name": SIDECAR,
        "image": wishes.image,
        "args": ["agent", "-c", format!("{FILES}/sidecar.yaml")],
        "restartPolicy": "Always",
        "env": [
            field("HEDDLE_POD_NAME", "metadata.name"),
            field("HEDDLE_POD_NAMESPACE", "metadata.namespace"),
            field("HEDDLE_POD_IP", "status.podIP"),
        ],
        "ports": [
            { "name": "heddle-inbound", "containerPort": 15_006, "protocol": "TCP" },
            { "name": "heddle-probes", "containerPort": PROBE_PORT, "protocol": "TCP" },
        ],
        // Two minutes for the first identity; from then on readiness and liveness judge.
        "startupProbe": probe("/ready", 1, 120),
        "readinessProbe": probe("/ready", 5, 3),
        "livenessProbe": probe("/live", 10, 6),
        // The hook of a native sidecar runs as soon as the pod is to end, its SIGTERM comes after the application's end: what others call closes
        // first, what the application calls last.
        "lifecycle": { "preStop": { "exec": { "command": ["heddle", "drain", "--inbound"] } } },
        "resources": wishes.resources.to_value(),
        "securityContext": {
            "runAsUser": SIDECAR_UID,
            "runAsGroup": SIDECAR_UID,
            "runAsNonRoot": true,
            "privileged": false,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "volumeMounts": [
            { "name": FILES_VOLUME, "mountPath": FILES, "readOnly": true },
            { "name": DATA_VOLUME, "mountPath": DATA },
        ],
    });
    pull_policy(&mut container, settings);
    container
}

/// Sets up capture in the network of the pod and ends. It needs one capability, and root to have it.
#[must_use]
pub fn capture(arguments: &[String], wishes: &Wishes, settings: &InjectSettings) -> Value {
    let mut container = json!({
        "name": CAPTURE,
        "image": wishes.image,
        "args": arguments,
        "resources": { "requests": { "cpu": "10m", "memory": "16Mi" }, "limits": { "cpu": "1", "memory": "64Mi" } },
        "securityContext": {
            "runAsUser": 0,
            "runAsGroup": 0,
            "runAsNonRoot": false,
            "privileged": false,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"], "add": ["NET_ADMIN"] },
            "seccompProfile": { "type": "RuntimeDefault" },
        },
    });
    pull_policy(&mut container, settings);
    container
}

fn pull_policy(container: &mut Value, settings: &InjectSettings) {
    if let Some(policy) = &settings.image_pull_policy {
        container["imagePullPolicy"] = policy.as_str().into();
    }
}

/// What the sidecar reads and what it writes.
#[must_use]
pub fn volumes(settings: &InjectSettings) -> [Value; 2] {
    let annotation =
        |name: &str, file: &str| json!({ "path": file, "fieldRef": { "fieldPath": format!("metadata.annotations['{name}']") } });
    let token =
        json!({ "serviceAccountToken": { "audience": TOKEN_AUDIENCE, "expirationSeconds": TOKEN_SECONDS, "path": "token" } });
    let config = annotation(CONFIG, "sidecar.yaml");
    let sources = match &settings.bundle {
        Bundle::Inline(_) => vec![token, json!({ "downwardAPI": { "items": [config, annotation(BUNDLE, "root.pem")] } })],
        Bundle::ConfigMap(name) => vec![
            token,
            json!({ "downwardAPI": { "items": [config] } }),
            json!({ "configMap": { "name": name, "items": [ { "key": "root.pem", "path": "root.pem" } ] } }),
        ],
    };
    [
        // 292 is 0444: the sidecar's user is not the owner.
        json!({ "name": FILES_VOLUME, "projected": { "defaultMode": 292, "sources": sources } }),
        json!({ "name": DATA_VOLUME, "emptyDir": { "medium": "Memory", "sizeLimit": DATA_SIZE } }),
    ]
}
