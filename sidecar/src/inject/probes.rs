//! The application's own probes under capture. The kubelet has no identity of the mesh, so its probes are answered by the sidecar, which asks the application in its place. It does not know where the answers are put.

use serde_json::{Map, Value, json};

use super::fault::Faults;
use super::settings::PROBE_PORT;

/// The probes of a container and what they are called in the paths of the sidecar.
const KINDS: [(&str, &str); 3] = [("readinessProbe", "readiness"), ("livenessProbe", "liveness"), ("startupProbe", "startup")];
/// How a probe may ask over the network. `exec` asks inside of the container, which capture does not touch.
const HANDLERS: [&str; 3] = ["httpGet", "tcpSocket", "grpc"];

/// What became of the probes of a pod.
#[derive(Debug, Default)]
pub struct Rewritten {
    /// What the sidecar has to ask, as its configuration has it.
    pub checks: Vec<Value>,
    /// The original handlers: container, then probe, then handler.
    pub originals: Map<String, Value>,
}

/// Points the probes of all containers at the sidecar.
pub fn rewrite(spec: &mut Value, place: &str, faults: &mut Faults) -> Rewritten {
    let mut out = Rewritten::default();
    // A native sidecar of the application is an init container with probes.
    for list in ["initContainers", "containers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for (index, container) in containers.into_iter().flatten().enumerate() {
            let here = format!("{place}{list}[{index}]");
            of_container(container, &here, &mut out, faults);
        }
    }
    out
}

fn of_container(container: &mut Value, place: &str, out: &mut Rewritten, faults: &mut Faults) {
    let name = container.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let ports = container.get("ports").cloned().unwrap_or_default();
    let mut kept = Map::new();
    for (field, kind) in KINDS {
        let Some(probe) = container.get_mut(field).and_then(Value::as_object_mut) else { continue };
        let Some(handler) = HANDLERS.into_iter().find(|handler| probe.get(*handler).is_some_and(Value::is_object)) else {
            continue;
        };
        if probe[handler].get("host").and_then(Value::as_str).is_some_and(|host| !host.is_empty()) {
            // It asks somebody else, or the node: nothing that capture of this pod touches.
            continue;
        }
        if handler == "grpc" {
            let message = "the kubelet asks over gRPC without an identity of the mesh; use `httpGet` or `exec`, or say `heddle.io/probes: keep` and list the port in heddle.io/exclude-inbound-ports";
            faults.push(format!("{place}.{field}.grpc"), message);
            continue;
        }
        let Some(port) = port_of(&probe[handler], &ports) else {
            faults.push(
                format!("{place}.{field}.{handler}.port"),
                "expected a port number, or the name of a port of this container",
            );
            continue;
        };
        let path = format!("/app/{name}/{kind}");
        let timeout = probe.get("timeoutSeconds").and_then(Value::as_u64).unwrap_or(1).clamp(1, 3600);
        out.checks.push(check(&path, handler, &probe[handler], port, timeout));
        if let Some(original) = probe.shift_remove(handler) {
            kept.insert(field.to_owned(), json!({ handler: original }));
        }
        probe.insert("httpGet".to_owned(), json!({ "path": path, "port": PROBE_PORT }));
    }
    if !kept.is_empty() {
        out.originals.insert(name, Value::Object(kept));
    }
}

fn port_of(handler: &Value, ports: &Value) -> Option<u16> {
    let port = handler.get("port")?;
    if let Some(number) = port.as_u64() {
        return u16::try_from(number).ok().filter(|port| *port > 0);
    }
    let name = port.as_str()?;
    let named = ports.as_array()?.iter().find(|port| port.get("name").and_then(Value::as_str) == Some(name));
    match named {
        Some(named) => u16::try_from(named.get("containerPort")?.as_u64()?).ok(),
        None => name.parse().ok().filter(|port: &u16| *port > 0),
    }
}

/// What the sidecar asks. Texts of the application are protected against being taken for variables of the configuration.
fn check(path: &str, handler: &str, original: &Value, port: u16, timeout: u64) -> Value {
    let text = |key| original.get(key).and_then(Value::as_str);
    let mut check = json!({ "path": path });
    match handler {
        "httpGet" => {
            let https = text("scheme").is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
            let target = text("path").filter(|path| !path.is_empty()).unwrap_or("/");
            let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
            check["protocol"] = if https { "https" } else { "http" }.into();
            check["target"] = literal(&target).into();
            let headers: Vec<Value> = original
                .get("httpHeaders")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(|header| {
                    let (name, value) = (header.get("name")?.as_str()?, header.get("value")?.as_str()?);
                    Some(json!({ "name": literal(name), "value": literal(value) }))
                })
                .collect();
            if !headers.is_empty() {
                check["headers"] = headers.into();
            }
        }
        _ => check["protocol"] = "tcp".into(),
    }
    check["port"] = port.into();
    check["timeout"] = format!("{timeout}s").into();
    check
}

fn literal(text: &str) -> String {
    text.replace("${", "$${")
}

/// Puts the original handlers back.
pub fn restore(spec: &mut Value, originals: &Map<String, Value>) {
    for list in ["initContainers", "containers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(name) = container.get("name").and_then(Value::as_str) else { continue };
            let Some(kept) = originals.get(name).and_then(Value::as_object) else { continue };
            for (field, handler) in kept {
                let Some(probe) = container.get_mut(field).and_then(Value::as_object_mut) else { continue };
                let ours = probe
                    .get("httpGet")
                    .is_some_and(|get| get.get("port").and_then(Value::as_u64) == Some(u64::from(PROBE_PORT)));
                let (true, Some(handler)) = (ours, handler.as_object()) else { continue };
                probe.shift_remove("httpGet");
                probe.extend(handler.iter().map(|(name, value)| (name.clone(), value.clone())));
            }
        }
    }
}

/// Hooks that ask over the network come from the kubelet as well, but what they start must not be open to everybody: they are not rewritten.
pub fn warn_of_hooks(spec: &Value, warnings: &mut Vec<String>) {
    for container in spec.get("containers").and_then(Value::as_array).into_iter().flatten() {
        let name = container.get("name").and_then(Value::as_str).unwrap_or_default();
        for hook in ["postStart", "preStop"] {
            let handler = container.get("lifecycle").and_then(|lifecycle| lifecycle.get(hook));
            if handler.is_some_and(|handler| handler.get("httpGet").is_some() || handler.get("tcpSocket").is_some()) {
                warnings.push(format!(
                    "container `{name}`: the kubelet calls lifecycle.{hook} over the network without an identity; use `exec`, or list its port in heddle.io/exclude-inbound-ports"
                ));
            }
        }
    }
}
