//! One stream after the other to a control plane of Envoy's, over gRPC. Decisions are the follower's and the world's; it knows no resource.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use heddle_node::clock;
use heddle_proto::envoy::config::core::v3::node::UserAgentVersionType;
use heddle_proto::envoy::config::core::v3::{Locality, Node};
use heddle_proto::envoy::service::discovery::v3 as wire;
use heddle_proto::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient as Grpc;
use heddle_proto::google::rpc::Status as RpcStatus;
use prost::Message;
use prost_types::value::Kind;
use prost_types::{Any, Struct};
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::EnvoySource;
use super::follower::{Follower, Raw, Says, Told};
use super::shell::Shell;
use crate::client::shell::End;
use crate::dialect::envoy::kind::EnvoyKind;
use crate::protocol::wire::AGENT;
use crate::protocol::{MAX_REQUEST, MAX_RESPONSE, NodeInfo};

/// Until the control plane opens its side of a stream.
const OPEN: Duration = Duration::from_secs(10);
/// Requests on their way to gRPC.
const OUTBOX: usize = 64;
/// The type of a resource that is wrapped, with its name, version and time to live.
const WRAPPED: &str = "type.googleapis.com/envoy.service.discovery.v3.Resource";
/// `INVALID_ARGUMENT` of gRPC: the code of our NACKs.
const INVALID_ARGUMENT: i32 = 3;

/// One of the two ways to speak.
pub(super) trait Speech {
    /// Protobuf of a request.
    type Out: Send + 'static;
    /// Protobuf of a response.
    type In: Send + 'static;
    /// Opens the stream.
    fn open(
        client: &mut Grpc<Channel>,
        requests: ReceiverStream<Self::Out>,
    ) -> impl Future<Output = Result<Streaming<Self::In>, Status>> + Send;
    /// Writes a request.
    fn write(says: Says, node: Option<Node>) -> Self::Out;
    /// Reads a response; `None` for one of a kind that was not asked for.
    fn read(message: Self::In) -> Option<Told>;
}

/// Only what changed.
pub(super) struct Delta;
/// Everything of a kind, whenever one thing changed.
pub(super) struct Sotw;

/// Who we are, as Envoy says it.
fn node(info: &NodeInfo, source: &EnvoySource) -> Node {
    let who = &source.who;
    let (region, zone, sub_zone) = (who.region.to_string(), info.scope.zone.to_string(), who.sub_zone.to_string());
    Node {
        id: info.scope.id.to_string(),
        cluster: who.cluster.to_string(),
        locality: Some(Locality { region, zone, sub_zone }),
        metadata: (!who.metadata.is_empty()).then(|| structure(&who.metadata)),
        user_agent_name: AGENT.to_owned(),
        user_agent_version_type: Some(UserAgentVersionType::UserAgentVersion(info.version.to_string())),
        ..Default::default()
    }
}

fn structure(map: &Map<String, Value>) -> Struct {
    Struct { fields: map.iter().map(|(name, value)| (name.clone(), any_value(value))).collect() }
}

/// What a node says of itself, as protobuf writes whatever there is.
fn any_value(value: &Value) -> prost_types::Value {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(flag) => Kind::BoolValue(*flag),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(items) => Kind::ListValue(prost_types::ListValue { values: items.iter().map(any_value).collect() }),
        Value::Object(map) => Kind::StructValue(structure(map)),
    };
    prost_types::Value { kind: Some(kind) }
}

/// Runs a stream until it ends.
pub(super) async fn run<S: Speech>(follower: &mut Follower, channel: Channel, shell: &mut Shell, source: &EnvoySource) -> End {
    let end = talk::<S>(follower, channel, shell, source).await;
    follower.lost();
    end
}

async fn talk<S: Speech>(follower: &mut Follower, channel: Channel, shell: &mut Shell, source: &EnvoySource) -> End {
    let mut client = Grpc::new(channel).max_decoding_message_size(MAX_RESPONSE).max_encoding_message_size(MAX_REQUEST);
    let (out, requests) = mpsc::channel(OUTBOX);
    let mut who = Some(node(&shell.session.config.node, source));
    for says in follower.hello() {
        if out.send(S::write(says, who.take())).await.is_err() {
            return End::Lost("the stream could not be opened".to_owned());
        }
    }
    let mut inbound = match timeout(OPEN, S::open(&mut client, ReceiverStream::new(requests))).await {
        Ok(Ok(inbound)) => inbound,
        Ok(Err(status)) => return End::Lost(status.to_string()),
        Err(_) => return End::Lost("the control plane did not answer in time".to_owned()),
    };
    shell.session.opened();
    loop {
        let wake = shell.wake(follower);
        let says = tokio::select! {
            message = inbound.message() => match message {
                Ok(Some(message)) => answer(follower, S::read(message), shell).await,
                Ok(None) => return End::Lost("the control plane ended the stream".to_owned()),
                Err(status) => return End::Lost(status.to_string()),
            },
            () = sleep_until(wake.unwrap_or_else(clock::now)), if wake.is_some() => match shell.proceed(follower).await {
                Ok(()) => Ok(follower.asks()),
                Err(ended) => Err(ended),
            },
            () = shell.session.updates.closed() => return End::Closed,
        };
        let says = match says {
            Ok(says) => says,
            Err(ended) => return ended,
        };
        for says in says {
            if out.send(S::write(says, None)).await.is_err() {
                return End::Lost("the stream was closed".to_owned());
            }
        }
    }
}

/// Takes a response over; what is to be said: what it makes us ask for, and ACK or NACK.
async fn answer(follower: &mut Follower, told: Option<Told>, shell: &mut Shell) -> Result<Vec<Says>, End> {
    let Some(told) = told else { return Ok(Vec::new()) };
    let version = told.version.clone();
    let open = follower.receive(told, clock::now());
    let rejected = shell.warm(follower).await?;
    let (verdict, undone) = follower.settle(open, &rejected, clock::now());
    if let Some(error) = &verdict.error {
        tracing::warn!(%error, "what the control plane sent cannot be used in whole; the rest is live");
    }
    shell.undo(follower, undone).await?;
    shell.heard(follower, version);
    let mut says = follower.asks();
    says.push(verdict);
    // What was asked for may be live already: a listener whose routes came with the bootstrap.
    shell.proceed(follower).await?;
    Ok(says)
}

fn strings(names: Vec<Arc<str>>) -> Vec<String> {
    names.into_iter().map(|name| name.to_string()).collect()
}

fn refusal(error: Option<String>) -> Option<RpcStatus> {
    error.map(|message| RpcStatus { code: INVALID_ARGUMENT, message, details: Vec::new() })
}

/// A resource with its name and version.
fn raw(resource: wire::Resource) -> Raw {
    let any = resource.resource.unwrap_or_default();
    Raw { name: resource.name.into(), version: resource.version.into(), type_url: any.type_url, body: Bytes::from(any.value) }
}

/// A resource of state of the world, which some control planes wrap as it is in delta (the feature `xds.config.resource-in-sotw` of clients). The version of the
/// response is the only one there: what a wrapper says of its own counts for nothing.
fn bare(any: Any) -> Raw {
    let wrapped = (any.type_url == WRAPPED).then(|| wire::Resource::decode(&*any.value));
    match wrapped {
        Some(Ok(resource)) => Raw { version: "".into(), ..raw(resource) },
        _ => Raw { name: "".into(), version: "".into(), type_url: any.type_url, body: Bytes::from(any.value) },
    }
}

fn type_url(kind: Option<EnvoyKind>) -> String {
    kind.map(EnvoyKind::type_url).unwrap_or_default()
}

impl Speech for Delta {
    type Out = wire::DeltaDiscoveryRequest;
    type In = wire::DeltaDiscoveryResponse;

    async fn open(client: &mut Grpc<Channel>, requests: ReceiverStream<Self::Out>) -> Result<Streaming<Self::In>, Status> {
        client.delta_aggregated_resources(requests).await.map(tonic::Response::into_inner)
    }

    fn write(says: Says, node: Option<Node>) -> Self::Out {
        let initial: BTreeMap<String, String> =
            says.initial.iter().map(|(name, version)| (name.to_string(), version.to_string())).collect();
        wire::DeltaDiscoveryRequest {
            node,
            type_url: type_url(says.kind),
            resource_names_subscribe: strings(says.subscribe),
            resource_names_unsubscribe: strings(says.unsubscribe),
            initial_resource_versions: initial,
            response_nonce: says.nonce.to_string(),
            error_detail: refusal(says.error),
        }
    }

    fn read(message: Self::In) -> Option<Told> {
        Some(Told {
            kind: EnvoyKind::from_type_url(&message.type_url)?,
            version: message.system_version_info.into(),
            nonce: message.nonce.into(),
            resources: message.resources.into_iter().map(raw).collect(),
            removed: message.removed_resources.into_iter().map(Arc::from).collect(),
        })
    }
}

impl Speech for Sotw {
    type Out = wire::DiscoveryRequest;
    type In = wire::DiscoveryResponse;

    async fn open(client: &mut Grpc<Channel>, requests: ReceiverStream<Self::Out>) -> Result<Streaming<Self::In>, Status> {
        client.stream_aggregated_resources(requests).await.map(tonic::Response::into_inner)
    }

    fn write(says: Says, node: Option<Node>) -> Self::Out {
        wire::DiscoveryRequest {
            version_info: says.version.to_string(),
            node,
            resource_names: strings(says.names),
            type_url: type_url(says.kind),
            response_nonce: says.nonce.to_string(),
            error_detail: refusal(says.error),
        }
    }

    fn read(message: Self::In) -> Option<Told> {
        Some(Told {
            kind: EnvoyKind::from_type_url(&message.type_url)?,
            version: message.version_info.into(),
            nonce: message.nonce.into(),
            resources: message.resources.into_iter().map(bare).collect(),
            removed: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn resources_of_state_of_the_world_may_be_wrapped() {
        let url = EnvoyKind::Cluster.type_url();
        let plain = Any { type_url: url.clone(), value: b"body".to_vec() };
        let inner = wire::Resource { name: "u".into(), version: "7".into(), resource: Some(plain.clone()), ..Default::default() };
        let wrapped = Any { type_url: WRAPPED.to_owned(), value: inner.encode_to_vec() };
        let broken = Any { type_url: WRAPPED.to_owned(), value: b"\xff".to_vec() };
        let resources = vec![plain, wrapped, broken];
        let told = Sotw::read(wire::DiscoveryResponse { type_url: url.clone(), resources, ..Default::default() }).unwrap();
        let seen: Vec<_> =
            told.resources.iter().map(|raw| (&*raw.name, &*raw.version, raw.type_url.as_str(), &*raw.body)).collect();
        let body = &b"body"[..];
        assert_eq!(seen, [("", "", url.as_str(), body), ("u", "", url.as_str(), body), ("", "", WRAPPED, &b"\xff"[..])]);
    }
}
