//! The messages of xDS between plain values and protobuf. What comes in is bounded here; it knows no stream.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use heddle_proto::envoy::config::core::v3::node::UserAgentVersionType;
use heddle_proto::envoy::config::core::v3::{ControlPlane, Locality, Node};
use heddle_proto::envoy::service::discovery::v3 as wire;
use heddle_proto::envoy::r#type::v3::SemanticVersion;
use heddle_proto::google::rpc::Status;
use prost::Message;
use prost_types::value::Kind as ValueKind;
use prost_types::{Any, Struct, Value};

use super::names::Ask;
use super::{DeltaRequest, DeltaResponse, MAX_NAMES, NodeInfo, RawResource, SotwRequest, SotwResponse, Station, Types};
use crate::model::{Instance, Kind, MeshProtocol};
use crate::snapshot::NodeScope;

/// Bytes of a name, a version or a nonce.
pub(super) const MAX_NAME: usize = 1024;
/// Characters of a program and its version.
const LONGEST_VERSION: usize = 128;
/// `INVALID_ARGUMENT` of gRPC: the code of our NACKs.
const INVALID_ARGUMENT: i32 = 3;
/// Labels of an instance.
const MAX_LABELS: usize = 64;
/// Further ports of an application.
const MAX_PORTS: usize = 64;
/// Whole numbers up to this one are exact in what numbers of metadata are.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;
/// What we call ourselves.
pub(crate) const AGENT: &str = "heddle";

/// Why a request is not even looked at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// A type that we do not serve. The stream goes on.
    #[error("type {0:?} is not served here")]
    UnknownType(String),
    /// Something about the node that cannot be read. The stream ends.
    #[error("{0} cannot be read")]
    Malformed(&'static str),
    /// Too much of something. The stream ends.
    #[error("{what} has {found} elements or bytes, at most {most} are accepted")]
    TooMuch {
        /// The field.
        what: &'static str,
        /// How much was sent.
        found: usize,
        /// How much is accepted.
        most: usize,
    },
}

/// What every message starts with: who speaks and about which type.
fn kind_of(types: Types, type_url: &str) -> Result<Kind, BadRequest> {
    types.kind(type_url).ok_or_else(|| BadRequest::UnknownType(type_url.chars().take(200).collect()))
}

fn names(what: &'static str, names: Vec<String>) -> Result<Vec<Arc<str>>, BadRequest> {
    if names.len() > MAX_NAMES {
        return Err(BadRequest::TooMuch { what, found: names.len(), most: MAX_NAMES });
    }
    names.into_iter().map(|name| short(what, name)).collect()
}

pub(super) fn short(what: &'static str, text: String) -> Result<Arc<str>, BadRequest> {
    if text.len() > MAX_NAME {
        return Err(BadRequest::TooMuch { what, found: text.len(), most: MAX_NAME });
    }
    Ok(text.into())
}

fn strings(names: Vec<Arc<str>>) -> Vec<String> {
    names.into_iter().map(|name| name.to_string()).collect()
}

fn status(error: Option<String>) -> Option<Status> {
    error.map(|message| Status { code: INVALID_ARGUMENT, message, details: Vec::new() })
}

/// Who opens a stream, as a message.
pub(crate) fn node_to_wire(node: &NodeInfo) -> Node {
    let mut fields = BTreeMap::from([("role".to_string(), text(&node.scope.role))]);
    if !node.scope.service.is_empty() {
        fields.insert("namespace".to_string(), text(&node.scope.namespace));
        fields.insert("service".to_string(), text(&node.scope.service));
    }
    if let Some(instance) = &node.instance {
        fields.insert("instance".to_string(), instance_to_wire(instance));
    }
    Node {
        id: node.scope.id.to_string(),
        cluster: node.scope.role.to_string(),
        metadata: Some(Struct { fields }),
        locality: Some(Locality { zone: node.scope.zone.to_string(), ..Default::default() }),
        user_agent_name: AGENT.to_string(),
        user_agent_version_type: Some(UserAgentVersionType::UserAgentVersion(node.version.to_string())),
        ..Default::default()
    }
}

/// Who opens a stream. The role is that of the metadata, else the cluster.
pub(crate) fn node_from_wire(node: Node) -> Result<NodeInfo, BadRequest> {
    let mut fields = node.metadata.map(|metadata| metadata.fields).unwrap_or_default();
    let role = take_text(&mut fields, "role").unwrap_or(node.cluster);
    let namespace = take_text(&mut fields, "namespace").unwrap_or_default();
    let service = take_text(&mut fields, "service").unwrap_or_default();
    let mut instance = fields.remove("instance").map(instance_from_wire).transpose()?;
    let station = Station::take(&mut fields)?;
    // A proxy of others says it beside its instance. Bytes it takes in tunnels of members alone, whatever is written: of those nothing is known.
    if let Some((instance, at)) = instance.as_mut().zip(station.application)
        && matches!(instance.protocol, MeshProtocol::Http | MeshProtocol::Http2 | MeshProtocol::Grpc)
    {
        instance.application = at.port();
    }
    let version = program(&node.user_agent_name, node.user_agent_version_type);
    Ok(NodeInfo {
        scope: NodeScope {
            id: short("node.id", node.id)?,
            role: short("node.metadata.role", role)?,
            zone: short("node.locality.zone", node.locality.map(|locality| locality.zone).unwrap_or_default())?,
            namespace: short("node.metadata.namespace", namespace)?,
            service: short("node.metadata.service", service)?,
            alone: false,
            zoneless: false,
            translates: false,
        },
        version: version.into(),
        instance,
        station,
    })
}

/// Which program opens a stream, and its version: by that alone our own. It is shown to people, whatever somebody writes there.
fn program(name: &str, version: Option<UserAgentVersionType>) -> String {
    let version = match version {
        Some(UserAgentVersionType::UserAgentVersion(version)) => version,
        Some(UserAgentVersionType::UserAgentBuildVersion(build)) => {
            let number = |at: SemanticVersion| format!("{}.{}.{}", at.major_number, at.minor_number, at.patch);
            build.version.map(number).unwrap_or_default()
        }
        None => String::new(),
    };
    let both = if name == AGENT { version } else { format!("{name} {version}") };
    let is_shown = |c: &char| c.is_ascii_graphic() || *c == ' ';
    both.trim().chars().filter(is_shown).take(LONGEST_VERSION).collect()
}

fn text(text: &str) -> Value {
    Value { kind: Some(ValueKind::StringValue(text.to_string())) }
}

pub(super) fn take_text(fields: &mut BTreeMap<String, Value>, name: &str) -> Option<String> {
    match fields.remove(name)?.kind {
        Some(ValueKind::StringValue(text)) => Some(text),
        _ => None,
    }
}

fn instance_to_wire(instance: &Instance) -> Value {
    let labels = instance.labels.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    let ports = instance.ports.iter().map(|(port, protocol)| (port.to_string(), text(protocol.as_str()))).collect();
    let fields = BTreeMap::from([
        ("address".to_string(), text(&instance.address)),
        ("port".to_string(), Value { kind: Some(ValueKind::NumberValue(instance.port.into())) }),
        ("protocol".to_string(), text(instance.protocol.as_str())),
        ("ports".to_string(), Value { kind: Some(ValueKind::StructValue(Struct { fields: ports })) }),
        ("version".to_string(), text(&instance.version)),
        ("labels".to_string(), Value { kind: Some(ValueKind::StructValue(Struct { fields: labels })) }),
        ("draining".to_string(), Value { kind: Some(ValueKind::BoolValue(instance.draining)) }),
        ("process".to_string(), Value { kind: Some(ValueKind::NumberValue(instance.process as f64)) }),
        ("application".to_string(), Value { kind: Some(ValueKind::NumberValue(instance.application.into())) }),
    ]);
    Value { kind: Some(ValueKind::StructValue(Struct { fields })) }
}

/// An instance. What it leaves out is as if it were empty; a port that is none is refused.
fn instance_from_wire(value: Value) -> Result<Instance, BadRequest> {
    let Some(ValueKind::StructValue(Struct { mut fields })) = value.kind else {
        return Err(BadRequest::Malformed("node.metadata.instance"));
    };
    let port = match fields.remove("port").and_then(|port| port.kind) {
        Some(ValueKind::NumberValue(port)) if port.fract() == 0.0 && (1.0..=65_535.0).contains(&port) => port as u16,
        _ => return Err(BadRequest::Malformed("node.metadata.instance.port")),
    };
    let protocol = take_text(&mut fields, "protocol").unwrap_or_default();
    let draining = matches!(fields.remove("draining").and_then(|flag| flag.kind), Some(ValueKind::BoolValue(true)));
    let mut whole = |name: &str, most: f64| match fields.remove(name).and_then(|value| value.kind) {
        Some(ValueKind::NumberValue(number)) if number.fract() == 0.0 && (0.0..=most).contains(&number) => Ok(number as u64),
        None => Ok(0),
        _ => Err(()),
    };
    let process = whole("process", MAX_EXACT).map_err(|()| BadRequest::Malformed("node.metadata.instance.process"))?;
    let application = whole("application", 65_535.0).map_err(|()| BadRequest::Malformed("node.metadata.instance.application"))?;
    let mut labels = Vec::new();
    if let Some(ValueKind::StructValue(Struct { fields: named })) = fields.remove("labels").and_then(|labels| labels.kind) {
        if named.len() > MAX_LABELS {
            return Err(BadRequest::TooMuch { what: "node.metadata.instance.labels", found: named.len(), most: MAX_LABELS });
        }
        for (name, value) in named {
            if let Some(ValueKind::StringValue(value)) = value.kind {
                labels.push((short("node.metadata.instance.labels", name)?, short("node.metadata.instance.labels", value)?));
            }
        }
    }
    Ok(Instance {
        address: short("node.metadata.instance.address", take_text(&mut fields, "address").unwrap_or_default())?,
        port,
        protocol: MeshProtocol::named(&protocol).unwrap_or_default(),
        version: short("node.metadata.instance.version", take_text(&mut fields, "version").unwrap_or_default())?,
        ports: ports_from_wire(fields.remove("ports"))?,
        labels,
        draining,
        process,
        application: application as u16,
        is_seen: false,
    })
}

/// Further ports of an application by number. What is spoken there is told or found out.
fn ports_from_wire(value: Option<Value>) -> Result<Vec<(u16, MeshProtocol)>, BadRequest> {
    let Some(ValueKind::StructValue(Struct { fields })) = value.and_then(|value| value.kind) else { return Ok(Vec::new()) };
    if fields.len() > MAX_PORTS {
        return Err(BadRequest::TooMuch { what: "node.metadata.instance.ports", found: fields.len(), most: MAX_PORTS });
    }
    let port = |(port, mut value): (String, Value)| {
        let port = port.parse().ok().filter(|port| *port > 0).ok_or(BadRequest::Malformed("node.metadata.instance.ports"))?;
        let protocol = match value.kind.take() {
            Some(ValueKind::StringValue(text)) => MeshProtocol::named(&text).unwrap_or_default(),
            _ => MeshProtocol::default(),
        };
        Ok((port, protocol))
    };
    fields.into_iter().map(port).collect()
}

/// The node of a request (only the first one needs it) and the request.
pub(crate) type Incoming<T> = (Option<Result<NodeInfo, BadRequest>>, Result<T, BadRequest>);

pub(crate) fn delta_request_from_wire(message: wire::DeltaDiscoveryRequest, types: Types) -> Incoming<DeltaRequest> {
    let node = message.node.map(node_from_wire);
    let read = || -> Result<DeltaRequest, BadRequest> {
        let initial: BTreeMap<String, String> = message.initial_resource_versions;
        if initial.len() > MAX_NAMES {
            return Err(BadRequest::TooMuch { what: "initial_resource_versions", found: initial.len(), most: MAX_NAMES });
        }
        let pair =
            |(name, version)| Ok((short("initial_resource_versions", name)?, short("initial_resource_versions", version)?));
        Ok(DeltaRequest {
            kind: kind_of(types, &message.type_url)?,
            subscribe: names("resource_names_subscribe", message.resource_names_subscribe)?,
            unsubscribe: names("resource_names_unsubscribe", message.resource_names_unsubscribe)?,
            initial: initial.into_iter().map(pair).collect::<Result<_, BadRequest>>()?,
            nonce: short("response_nonce", message.response_nonce)?,
            error: message.error_detail.map(|status| status.message),
        })
    };
    (node, read())
}

pub(crate) fn delta_request_to_wire(request: DeltaRequest, node: Option<&NodeInfo>) -> wire::DeltaDiscoveryRequest {
    wire::DeltaDiscoveryRequest {
        node: node.map(node_to_wire),
        type_url: request.kind.type_url().to_string(),
        resource_names_subscribe: strings(request.subscribe),
        resource_names_unsubscribe: strings(request.unsubscribe),
        initial_resource_versions: request
            .initial
            .iter()
            .map(|(name, version)| (name.to_string(), version.to_string()))
            .collect(),
        response_nonce: request.nonce.to_string(),
        error_detail: status(request.error),
    }
}

pub(crate) fn delta_response_to_wire(response: DeltaResponse, types: Types) -> wire::DeltaDiscoveryResponse {
    wire::DeltaDiscoveryResponse {
        system_version_info: response.version.to_string(),
        resources: response.resources.into_iter().map(resource_to_wire).collect(),
        type_url: types.url(response.kind).to_string(),
        nonce: response.nonce.to_string(),
        removed_resources: strings(response.removed),
        control_plane: Some(ControlPlane { identifier: AGENT.to_string() }),
    }
}

pub(crate) fn delta_response_from_wire(message: wire::DeltaDiscoveryResponse) -> Result<DeltaResponse, BadRequest> {
    let mut urls = HashMap::new();
    Ok(DeltaResponse {
        kind: kind_of(Types::Heddle, &message.type_url)?,
        version: message.system_version_info.into(),
        nonce: message.nonce.into(),
        resources: message.resources.into_iter().map(|resource| resource_from_wire(resource, &mut urls)).collect(),
        removed: message.removed_resources.into_iter().map(Arc::from).collect(),
    })
}

pub(crate) fn sotw_request_from_wire(ask: Ask, types: Types) -> Incoming<SotwRequest> {
    let message = ask.rest;
    let node = message.node.map(node_from_wire);
    let read = || -> Result<SotwRequest, BadRequest> {
        Ok(SotwRequest {
            kind: kind_of(types, &message.type_url)?,
            version: short("version_info", message.version_info)?,
            names: ask.names,
            nonce: short("response_nonce", message.response_nonce)?,
            error: message.error_detail.map(|status| status.message),
        })
    };
    (node, read())
}

pub(crate) fn sotw_request_to_wire(request: SotwRequest, node: Option<&NodeInfo>) -> wire::DiscoveryRequest {
    wire::DiscoveryRequest {
        version_info: request.version.to_string(),
        node: node.map(node_to_wire),
        resource_names: request.names.texts(),
        type_url: request.kind.type_url().to_string(),
        response_nonce: request.nonce.to_string(),
        error_detail: status(request.error),
    }
}

pub(crate) fn sotw_response_to_wire(response: SotwResponse, types: Types) -> wire::DiscoveryResponse {
    let any = |raw: RawResource| Any { type_url: raw.type_url.to_string(), value: raw.body.into() };
    wire::DiscoveryResponse {
        version_info: response.version.to_string(),
        resources: response.resources.into_iter().map(any).collect(),
        type_url: types.url(response.kind).to_string(),
        nonce: response.nonce.to_string(),
        control_plane: Some(ControlPlane { identifier: AGENT.to_string() }),
    }
}

pub(crate) fn sotw_response_from_wire(message: wire::DiscoveryResponse) -> Result<SotwResponse, BadRequest> {
    let mut urls = HashMap::new();
    let resource = |any: Any| RawResource {
        name: "".into(),
        version: "".into(),
        type_url: share(&mut urls, any.type_url),
        body: Bytes::from(any.value),
    };
    Ok(SotwResponse {
        kind: kind_of(Types::Heddle, &message.type_url)?,
        version: message.version_info.into(),
        nonce: message.nonce.into(),
        resources: message.resources.into_iter().map(resource).collect(),
    })
}

/// The resources of a response nearly always share one type: keep it once.
fn share(urls: &mut HashMap<String, Arc<str>>, url: String) -> Arc<str> {
    urls.entry(url).or_insert_with_key(|url| Arc::from(url.as_str())).clone()
}

/// A held resource, as the file of last good state keeps it.
pub(crate) fn stored_to_bytes(type_url: &str, name: &str, version: &str, body: &[u8]) -> Vec<u8> {
    let any = Any { type_url: type_url.to_owned(), value: body.to_vec() };
    let resource =
        wire::Resource { name: name.to_owned(), version: version.to_owned(), resource: Some(any), ..Default::default() };
    resource.encode_to_vec()
}

/// A held resource out of the file of last good state.
pub(crate) fn stored_from_bytes(bytes: &[u8]) -> Result<RawResource, prost::DecodeError> {
    wire::Resource::decode(bytes).map(|resource| resource_from_wire(resource, &mut HashMap::new()))
}

fn resource_to_wire(raw: RawResource) -> wire::Resource {
    wire::Resource {
        name: raw.name.to_string(),
        version: raw.version.to_string(),
        resource: Some(Any { type_url: raw.type_url.to_string(), value: raw.body.into() }),
        ..Default::default()
    }
}

fn resource_from_wire(resource: wire::Resource, urls: &mut HashMap<String, Arc<str>>) -> RawResource {
    let any = resource.resource.unwrap_or_default();
    RawResource {
        name: resource.name.into(),
        version: resource.version.into(),
        type_url: share(urls, any.type_url),
        body: Bytes::from(any.value),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use heddle_proto::envoy::config::core::v3::BuildVersion;

    use super::*;

    fn node() -> NodeInfo {
        let scope = NodeScope { id: "gw-1".into(), role: "gateway".into(), zone: "eu-1a".into(), ..NodeScope::default() };
        NodeInfo { scope, version: "1.2.3".into(), ..NodeInfo::default() }
    }

    #[test]
    fn which_program_a_node_is_is_said_with_its_version() {
        let said = |name: &str, version| {
            let node = Node { user_agent_name: name.into(), user_agent_version_type: version, ..node_to_wire(&node()) };
            node_from_wire(node).unwrap().version.to_string()
        };
        let number = SemanticVersion { major_number: 1, minor_number: 40, patch: 2 };
        let build = |version| Some(UserAgentVersionType::UserAgentBuildVersion(BuildVersion { version }));
        assert_eq!(said("envoy", build(Some(number))), "envoy 1.40.2");
        assert_eq!((said("envoy", build(None)), said("envoy", None)), ("envoy".to_owned(), "envoy".to_owned()));
        let text = |version: &str| Some(UserAgentVersionType::UserAgentVersion(version.into()));
        assert_eq!(said("gRPC Go", text("1.75.0")), "gRPC Go 1.75.0");
        assert_eq!((said(AGENT, text("1.2.3")), said(AGENT, build(Some(number)))), ("1.2.3".to_owned(), "1.40.2".to_owned()));
        assert_eq!(said("odd\x1b[31m\u{202e}", text("1\n2")), "odd[31m 12", "what is shown says nothing to a terminal");
        assert_eq!(said("long", text(&"9".repeat(5_000))).len(), LONGEST_VERSION);
        // As Envoy 1.40 encodes it, with what it says besides of its build.
        let bytes = b"\x0a\x02e1\x32\x05envoyB\x0d\x0a\x04\x08\x01\x10\x28\x12\x05\x0a\x03\x0a\x01a";
        assert_eq!(&*node_from_wire(Node::decode(&bytes[..]).unwrap()).unwrap().version, "envoy 1.40.0");
    }

    #[test]
    fn a_sidecar_says_beside_which_instance_it_stands() {
        let instance = Instance {
            address: "10.0.0.7".into(),
            port: 15006,
            protocol: MeshProtocol::Grpc,
            ports: vec![(5432, MeshProtocol::Tcp), (9090, MeshProtocol::Http)],
            version: "v2".into(),
            labels: vec![("canary".into(), "yes".into())],
            draining: true,
            process: 1_767_607_872_123,
            application: 8080,
            is_seen: false,
        };
        let scope = NodeScope { role: "sidecar".into(), namespace: "shop".into(), service: "cart".into(), ..node().scope };
        let sidecar = NodeInfo { scope, instance: Some(instance), ..node() };
        assert_eq!(node_from_wire(node_to_wire(&sidecar)).unwrap(), sidecar);
        let mut odd = node_to_wire(&sidecar);
        let fields = &mut odd.metadata.as_mut().unwrap().fields;
        fields.insert("instance".into(), text("nonsense"));
        assert_eq!(node_from_wire(odd).unwrap_err(), BadRequest::Malformed("node.metadata.instance"));
    }

    /// Requests that another implementation of the public interface encoded, with fields that we do not know.
    #[test]
    fn requests_of_other_clients_are_understood() {
        let eds = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
        let mut delta = Vec::from(b"\x0a\x1f\x0a\x02e1\x12\x04edge\x22\x03\x12\x01z2\x05envoyB\x04\x0a\x02\x08\x01R\x01f\x12B");
        delta.extend(eds.as_bytes());
        delta.extend(b"\x1a\x01a\x1a\x01b\x22\x01c*\x06\x0a\x01a\x12\x017\x32\x01n:\x07\x08\x0d\x12\x03bad");
        let message = wire::DeltaDiscoveryRequest::decode(delta.as_slice()).unwrap();
        let (node, request) = delta_request_from_wire(message, Types::Heddle);
        let node = node.unwrap().unwrap();
        assert_eq!((&*node.scope.id, &*node.scope.role, &*node.scope.zone, &*node.version), ("e1", "edge", "z", "envoy 1.0.0"));
        let expected = DeltaRequest {
            kind: Kind::Endpoints,
            subscribe: vec!["a".into(), "b".into()],
            unsubscribe: vec!["c".into()],
            initial: BTreeMap::from([("a".into(), "7".into())]),
            nonce: "n".into(),
            error: Some("bad".to_string()),
        };
        assert_eq!(request.unwrap(), expected);
        let mut sotw = Vec::from(b"\x0a\x01v\x12\x04\x0a\x02e1\x1a\x01a\x22B");
        sotw.extend(eds.as_bytes());
        sotw.extend(b"*\x01n2\x07\x08\x0d\x12\x03bad");
        let (_, request) = sotw_request_from_wire(Ask::decode(sotw.as_slice()).unwrap(), Types::Heddle);
        let expected = SotwRequest {
            kind: Kind::Endpoints,
            version: "v".into(),
            names: ["a"].into_iter().collect(),
            nonce: "n".into(),
            error: Some("bad".to_string()),
        };
        assert_eq!(request.unwrap(), expected);
    }

    #[test]
    fn both_ends_understand_each_other() {
        let raw = |name: &str, version: &str| RawResource {
            name: name.into(),
            version: version.into(),
            type_url: Kind::Route.type_url().into(),
            body: Bytes::from_static(b"body"),
        };
        let delta = DeltaResponse {
            kind: Kind::Route,
            version: "7".into(),
            nonce: "n".into(),
            resources: vec![raw("a", "1"), raw("b", "2")],
            removed: vec!["c".into()],
        };
        assert_eq!(delta_response_from_wire(delta_response_to_wire(delta.clone(), Types::Heddle)).unwrap(), delta);
        let sotw = SotwResponse { kind: Kind::Route, version: "7".into(), nonce: "n".into(), resources: vec![raw("", "")] };
        assert_eq!(sotw_response_from_wire(sotw_response_to_wire(sotw.clone(), Types::Heddle)).unwrap(), sotw);
        let ask = DeltaRequest { subscribe: vec!["*".into()], ..DeltaRequest::new(Kind::Route) };
        let (from, request) = delta_request_from_wire(delta_request_to_wire(ask.clone(), Some(&node())), Types::Heddle);
        assert_eq!((from.unwrap().unwrap(), request.unwrap()), (node(), ask));
    }

    #[test]
    fn what_comes_in_is_bounded() {
        let message = wire::DeltaDiscoveryRequest {
            type_url: Kind::Route.type_url().to_string(),
            resource_names_subscribe: vec!["x".repeat(1025)],
            ..Default::default()
        };
        let refused = delta_request_from_wire(message, Types::Heddle).1.unwrap_err();
        assert_eq!(refused, BadRequest::TooMuch { what: "resource_names_subscribe", found: 1025, most: 1024 });
        let long = Node { id: "x".repeat(1025), ..Default::default() };
        assert!(matches!(node_from_wire(long), Err(BadRequest::TooMuch { what: "node.id", .. })));
        let unknown = wire::DiscoveryRequest { type_url: "x".repeat(9000), ..Default::default() };
        let refused =
            sotw_request_from_wire(Ask::decode(unknown.encode_to_vec().as_slice()).unwrap(), Types::Heddle).1.unwrap_err();
        assert!(matches!(&refused, BadRequest::UnknownType(url) if url.len() == 200), "{refused}");
    }
}
