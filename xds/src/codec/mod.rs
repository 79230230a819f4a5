//! Between the data-plane model and protobuf, one file per kind. It knows no message of the protocol and no snapshot.
//!
//! What is decoded is checked and bounded: a resource that decodes keeps every promise that the model's documentation makes.

mod certificate;
mod consumer;
mod endpoints;
mod listener;
mod mesh;
mod plugin;
mod read;
mod route;
mod secret;
#[cfg(test)]
pub(crate) mod tests;
mod upstream;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use heddle_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use prost::Message;
use prost_types::Any;

use crate::model::{Endpoints, Kind, Resource};
use read::{Fault, MAX_RESOURCE_BYTES, Read};

/// A resource that cannot be used, and why. Displays as `KIND NAME: FIELD: REASON`, the line that a NACK carries.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct InvalidResource {
    /// Kind of the resource.
    pub kind: Kind,
    /// Its name, empty when it could not be read.
    pub name: Arc<str>,
    /// Dotted path inside it, empty for the whole.
    pub field: String,
    /// What was expected and what was found.
    pub reason: String,
}

impl fmt::Display for InvalidResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}: {}", self.kind.as_str(), self.name, self.field, self.reason)
    }
}

impl std::error::Error for InvalidResource {}

/// The bytes of a resource, without the type. The same resource always gives the same bytes.
pub fn encode_body(resource: &Resource) -> Bytes {
    match resource {
        Resource::Listener(r) => listener::to_wire(r).encode_to_vec(),
        Resource::Route(r) => route::to_wire(r).encode_to_vec(),
        Resource::Upstream(r) => upstream::to_wire(r).encode_to_vec(),
        Resource::Endpoints(r) => endpoints::to_wire(r).encode_to_vec(),
        Resource::Consumer(r) => consumer::to_wire(r).encode_to_vec(),
        Resource::GlobalRule(r) => plugin::rule_to_wire(r).encode_to_vec(),
        Resource::MeshService(r) => mesh::service_to_wire(r).encode_to_vec(),
        Resource::MeshInbound(r) => mesh::inbound_to_wire(r).encode_to_vec(),
        Resource::AuthorizationPolicy(r) => mesh::policy_to_wire(r).encode_to_vec(),
        Resource::PeerAuthentication(r) => mesh::peers_to_wire(r).encode_to_vec(),
        Resource::Certificate(r) => certificate::to_wire(r).encode_to_vec(),
        Resource::PluginMetadata(r) => plugin::metadata_to_wire(r).encode_to_vec(),
        Resource::Secret(r) => secret::to_wire(r).encode_to_vec(),
    }
    .into()
}

/// A resource as `google.protobuf.Any`.
pub fn encode(resource: &Resource) -> Any {
    wrap(resource.kind(), &encode_body(resource))
}

/// Endpoints as EDS carries them, for a dialect that adds to them.
pub(crate) fn assignment(endpoints: &Endpoints) -> ClusterLoadAssignment {
    endpoints::to_wire(endpoints)
}

/// Encoded bytes as `google.protobuf.Any`.
pub fn wrap(kind: Kind, body: &[u8]) -> Any {
    Any { type_url: kind.type_url().to_string(), value: body.to_vec() }
}

/// Reads a resource of an expected kind.
pub fn decode(kind: Kind, any: &Any) -> Result<Resource, InvalidResource> {
    if any.type_url != kind.type_url() {
        let shown: String = any.type_url.chars().take(200).collect();
        let reason = format!("expected {}, found {shown:?}", kind.type_url());
        return Err(InvalidResource { kind, name: "".into(), field: "@type".to_string(), reason });
    }
    decode_body(kind, &any.value)
}

/// Reads a resource of an expected kind from its bytes.
pub fn decode_body(kind: Kind, body: &[u8]) -> Result<Resource, InvalidResource> {
    if body.len() > MAX_RESOURCE_BYTES {
        let reason = format!("has {} bytes, at most {MAX_RESOURCE_BYTES} are read", body.len());
        return Err(InvalidResource { kind, name: "".into(), field: String::new(), reason });
    }
    match kind {
        Kind::Listener => parse(kind, body, |m| listener::from_wire(m).map(Resource::Listener), |m| &m.name),
        Kind::Route => parse(kind, body, |m| route::from_wire(m).map(Resource::Route), |m| &m.id),
        Kind::Upstream => {
            parse(kind, body, |m| upstream::from_wire(m).map(|upstream| Resource::Upstream(upstream.into())), |m| &m.name)
        }
        Kind::Endpoints => parse(kind, body, |m| endpoints::from_wire(m).map(Resource::Endpoints), |m| &m.cluster_name),
        Kind::Consumer => parse(kind, body, |m| consumer::from_wire(m).map(Resource::Consumer), |m| &m.username),
        Kind::GlobalRule => parse(kind, body, |m| plugin::rule_from_wire(m).map(Resource::GlobalRule), |m| &m.id),
        Kind::MeshService => parse(kind, body, |m| mesh::service_from_wire(m).map(Resource::MeshService), |m| &m.name),
        Kind::MeshInbound => parse(kind, body, |m| mesh::inbound_from_wire(m).map(Resource::MeshInbound), |m| &m.service),
        Kind::AuthorizationPolicy => {
            parse(kind, body, |m| mesh::policy_from_wire(m).map(Resource::AuthorizationPolicy), |m| &m.id)
        }
        Kind::PeerAuthentication => parse(kind, body, |m| mesh::peers_from_wire(m).map(Resource::PeerAuthentication), |m| &m.id),
        Kind::Certificate => parse(kind, body, |m| certificate::from_wire(m).map(Resource::Certificate), |m| &m.id),
        Kind::PluginMetadata => parse(kind, body, |m| plugin::metadata_from_wire(m).map(Resource::PluginMetadata), |m| &m.plugin),
        Kind::Secret => parse(kind, body, |m| secret::from_wire(m).map(Resource::Secret), |m| &m.name),
    }
}

/// Parses one message; its name goes into the error even when another field is at fault.
fn parse<M: Message + Default>(
    kind: Kind,
    body: &[u8],
    convert: fn(M) -> Read<Resource>,
    name: fn(&M) -> &String,
) -> Result<Resource, InvalidResource> {
    let message = M::decode(body).map_err(|error| InvalidResource {
        kind,
        name: "".into(),
        field: String::new(),
        reason: format!("is not a valid protobuf message: {error}"),
    })?;
    let name: Arc<str> = name(&message).chars().take(read::MAX_NAME).collect::<String>().into();
    convert(message).map_err(|Fault { field, reason }| InvalidResource { kind, name, field, reason })
}
