//! The Services of Kubernetes that came with a workload: whom they select, and which port of his each of theirs leads to. They are read leniently, since the
//! API server judges them; nothing is known here of sidecars.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::annotations::{Protocol, texts};
use super::super::workload::title;

/// The Services of a file, or of a list.
#[derive(Debug, Default)]
pub struct Services(Vec<Service>);

/// What a Service says of the pods that it selects.
#[derive(Debug)]
pub(in super::super) struct Service {
    /// `Service shop/web`, for messages.
    pub title: String,
    /// By which applications call it.
    pub name: String,
    namespace: Option<String>,
    selector: BTreeMap<String, String>,
    /// Its TCP ports.
    pub ports: Vec<ServicePort>,
}

/// A port of a Service.
#[derive(Debug)]
pub(in super::super) struct ServicePort {
    /// By which it is called.
    pub port: u16,
    /// Where it leads.
    pub target: Target,
    /// What is spoken there; `Auto` where that is not said.
    pub protocol: Protocol,
}

/// The port of a pod that a Service leads to.
#[derive(Debug)]
pub(in super::super) enum Target {
    /// By its number.
    Number(u16),
    /// By the name that a container gives it.
    Name(String),
}

impl Services {
    /// Those among objects, and among the items of lists.
    pub fn of<'v>(objects: impl IntoIterator<Item = &'v Value>) -> Services {
        let mut found = Vec::new();
        for object in objects {
            let items = object.get("items").and_then(Value::as_array).into_iter().flatten();
            found.extend(std::iter::once(object).chain(items).filter_map(service));
        }
        Services(found)
    }

    /// Those that select the pods of a workload. Who names no namespace is in the one that the file is applied to.
    pub(in super::super) fn selecting(&self, workload: &Value, template: &Value) -> Vec<&Service> {
        let namespace = workload.pointer("/metadata/namespace").and_then(Value::as_str);
        let labels = texts(template.get("metadata"), "labels");
        let is_near = |service: &Service| namespace.zip(service.namespace.as_deref()).is_none_or(|(one, other)| one == other);
        let selects = |service: &Service| {
            service.selector.iter().all(|(name, value)| labels.get(name.as_str()).is_some_and(|label| label == value))
        };
        self.0.iter().filter(|service| is_near(service) && selects(service)).collect()
    }
}

fn service(object: &Value) -> Option<Service> {
    let text = |key: &str| object.get(key).and_then(Value::as_str);
    if (text("apiVersion"), text("kind")) != (Some("v1"), Some("Service")) {
        return None;
    }
    let spec = object.get("spec")?;
    let selector: BTreeMap<String, String> =
        texts(Some(spec), "selector").into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let ports = spec.get("ports").and_then(Value::as_array).into_iter().flatten().filter_map(port).collect();
    let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str).map(str::to_owned);
    let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
    // One that selects nobody leads to endpoints that others write.
    (!selector.is_empty()).then(|| Service { title: title(object), name, namespace, selector, ports })
}

fn port(value: &Value) -> Option<ServicePort> {
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    if text("protocol").is_some_and(|protocol| protocol != "TCP") {
        return None;
    }
    let number = |value: &Value| u16::try_from(value.as_u64()?).ok().filter(|port| *port > 0);
    let port = number(value.get("port")?)?;
    let target = match value.get("targetPort") {
        None | Some(Value::Null) => Target::Number(port),
        Some(Value::String(name)) => Target::Name(name.clone()),
        Some(target) => Target::Number(number(target)?),
    };
    let protocol = match text("appProtocol") {
        Some("kubernetes.io/h2c") => Protocol::Http2,
        Some(said) => Protocol::parse(said).unwrap_or(Protocol::Auto),
        None => Protocol::of_port_name(text("name").unwrap_or_default()),
    };
    Some(ServicePort { port, target, protocol })
}
