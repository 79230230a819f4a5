//! Pods that are left alone, each with the reason and what to do. It does not know how a pod is injected.

use serde_json::Value;

use super::annotations::{OWN, Wishes};
use super::fault::Faults;
use super::settings::{SIDECAR_PORTS, SIDECAR_UID};

/// The name of the sidecar.
pub const SIDECAR: &str = "heddle";
/// The name of the container that sets up capture.
pub const CAPTURE: &str = "heddle-capture";
/// The volume with configuration, token and roots.
pub const FILES_VOLUME: &str = "heddle-files";
/// The volume for what the sidecar keeps.
pub const DATA_VOLUME: &str = "heddle-data";

/// Containers by which other meshes are known.
const OTHER_MESHES: [(&str, &str); 10] = [
    ("istio-proxy", "Istio"),
    ("istio-init", "Istio"),
    ("istio-validation", "Istio"),
    ("linkerd-proxy", "Linkerd"),
    ("linkerd-init", "Linkerd"),
    ("kuma-sidecar", "Kuma"),
    ("kuma-init", "Kuma"),
    ("consul-dataplane", "Consul"),
    ("consul-connect-inject-init", "Consul"),
    ("osm-init", "Open Service Mesh"),
];

/// All containers of a pod spec with the list that they are in.
pub fn containers(spec: &Value) -> impl Iterator<Item = (&'static str, usize, &Value)> {
    ["initContainers", "containers"].into_iter().flat_map(|list| {
        let items = spec.get(list).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        items.iter().enumerate().map(move |(index, container)| (list, index, container))
    })
}

fn name_of(container: &Value) -> &str {
    container.get("name").and_then(Value::as_str).unwrap_or_default()
}

/// Says whether the template has the shape that Kubernetes demands, as far as we touch it.
pub fn misshapen(template: &Value, place: &str, faults: &mut Faults) {
    let path = |rest: &str| if place.is_empty() { rest.to_owned() } else { format!("{place}.{rest}") };
    let object_or_nothing = |value: Option<&Value>| value.is_none_or(|value| value.is_object() || value.is_null());
    let list_or_nothing = |value: Option<&Value>| value.is_none_or(|value| value.is_array() || value.is_null());
    let metadata = template.get("metadata");
    let spec = template.get("spec").filter(|spec| spec.is_object());
    if !object_or_nothing(metadata) {
        faults.push(path("metadata"), "expected a map");
    }
    for map in ["annotations", "labels"] {
        if !object_or_nothing(metadata.and_then(|metadata| metadata.get(map))) {
            faults.push(path(&format!("metadata.{map}")), "expected a map");
        }
    }
    let Some(spec) = spec else {
        faults.push(path("spec"), "expected the specification of a pod, found none");
        return;
    };
    for list in ["initContainers", "volumes"] {
        if !list_or_nothing(spec.get(list)) {
            faults.push(path(&format!("spec.{list}")), "expected a list");
        }
    }
    if spec.get("containers").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        faults.push(path("spec.containers"), "expected a list of at least one container");
    }
    for (list, index, container) in containers(spec) {
        if name_of(container).is_empty() {
            faults.push(path(&format!("spec.{list}[{index}].name")), "expected the name of the container, found none");
        }
    }
}

/// Says why a template cannot be injected. It bears no sidecar of ours, or that was taken out before.
pub fn impossible(template: &Value, place: &str, faults: &mut Faults) {
    let path = |rest: &str| if place.is_empty() { rest.to_owned() } else { format!("{place}.{rest}") };
    let Some(spec) = template.get("spec") else { return };
    let truth = |key: &str| spec.get(key).and_then(Value::as_bool) == Some(true);
    if truth("hostNetwork") {
        faults.push(
            path("spec.hostNetwork"),
            "a pod in the network of its node is not injected: capture would take the traffic of the whole node; run `heddle agent` on the node, or say `heddle.io/inject: \"false\"`",
        );
    }
    let os = spec.pointer("/os/name").and_then(Value::as_str);
    let selected =
        ["kubernetes.io/os", "beta.kubernetes.io/os"].iter().find_map(|key| spec.get("nodeSelector")?.get(key)?.as_str());
    if os == Some("windows") || selected == Some("windows") {
        faults.push(
            path("spec"),
            "a pod for Windows is not injected: the sidecar and its capture are for Linux; say `heddle.io/inject: \"false\"`",
        );
    }
    let annotations = template.pointer("/metadata/annotations");
    for own in OWN {
        if annotations.and_then(|annotations| annotations.get(own)).is_some() {
            faults.push(path(&format!("metadata.annotations[{own}]")), "is written by the injection only; remove it");
        }
    }
    if annotations.and_then(|annotations| annotations.get("kubernetes.io/config.mirror")).is_some() {
        faults.push(path("metadata"), "a static pod is not injected: it may have no service-account token, hence no identity");
    }
    names(spec, &path, faults);
    users(spec, &path, faults);
}

fn names(spec: &Value, path: &dyn Fn(&str) -> String, faults: &mut Faults) {
    for (list, index, container) in containers(spec) {
        let (name, here) = (name_of(container), path(&format!("spec.{list}[{index}].name")));
        if let Some((_, mesh)) = OTHER_MESHES.iter().find(|(other, _)| *other == name) {
            faults.push(
                here,
                format!(
                    "`{name}` is a container of {mesh}; two meshes cannot both have the traffic of a pod: take the pod out of one"
                ),
            );
        } else if name == SIDECAR || name == CAPTURE {
            faults.push(here, format!("`{name}` is the name of a container of the sidecar, and this is another one; rename it"));
        }
    }
    for (index, volume) in spec.get("volumes").and_then(Value::as_array).into_iter().flatten().enumerate() {
        if matches!(name_of(volume), FILES_VOLUME | DATA_VOLUME) {
            faults.push(
                path(&format!("spec.volumes[{index}].name")),
                format!("`{}` is the name of a volume of the sidecar; rename it", name_of(volume)),
            );
        }
    }
}

/// Whoever runs as the sidecar's user escapes capture.
fn users(spec: &Value, path: &dyn Fn(&str) -> String, faults: &mut Faults) {
    let message = format!("expected another user than {SIDECAR_UID}, which is the sidecar's: its traffic is not captured");
    let is_ours =
        |value: &Value| value.pointer("/securityContext/runAsUser").and_then(Value::as_u64) == Some(u64::from(SIDECAR_UID));
    if is_ours(spec) {
        faults.push(path("spec.securityContext.runAsUser"), message.clone());
    }
    for (list, index, container) in containers(spec) {
        if is_ours(container) {
            faults.push(path(&format!("spec.{list}[{index}].securityContext.runAsUser")), message.clone());
        }
    }
}

/// Ports that both the application and the sidecar want, and explicit outbound ports that somebody has.
pub fn ports(spec: &Value, wishes: &Wishes, place: &str, faults: &mut Faults) {
    let path = |rest: String| if place.is_empty() { rest } else { format!("{place}.{rest}") };
    let mut taken = Vec::new();
    for (list, index, container) in containers(spec) {
        for (at, port) in container.get("ports").and_then(Value::as_array).into_iter().flatten().enumerate() {
            let Some(number) = port.get("containerPort").and_then(Value::as_u64) else { continue };
            taken.push(number);
            if SIDECAR_PORTS.iter().any(|own| u64::from(*own) == number) {
                let here = path(format!("spec.{list}[{index}].ports[{at}].containerPort"));
                faults.push(here, format!("{number} is a port of the sidecar ({}); use another", list_of(&SIDECAR_PORTS)));
            }
        }
    }
    for outbound in &wishes.outbound {
        if SIDECAR_PORTS.contains(&outbound.port) || taken.contains(&u64::from(outbound.port)) {
            let message =
                format!("expected a free port for `{}`, found {}, which the pod uses already", outbound.service, outbound.port);
            faults.push(path("metadata.annotations[heddle.io/outbound]".to_owned()), message);
        }
    }
}

fn list_of(ports: &[u16]) -> String {
    ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
}
