//! The aggregated discovery service over gRPC; it starts streams and bounds them.

use std::sync::Arc;
use std::time::Duration;

use heddle_node::drain::DrainWatch;
use heddle_proto::envoy::service::discovery::v3 as wire;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use wire::aggregated_discovery_service_server::{AggregatedDiscoveryService, AggregatedDiscoveryServiceServer};

use super::stream::{self, Shared, Speak};
use super::{DeltaMachine, Machine, NodeRegistry, SotwMachine};
use crate::protocol::wire::{
    Incoming, delta_request_from_wire, delta_response_to_wire, sotw_request_from_wire, sotw_response_to_wire,
};
use crate::protocol::{Dialect, MAX_REQUEST, MAX_RESPONSE};
use crate::snapshot::{NodeScope, SnapshotSource};

/// Streams of one server; each costs the names that it was sent.
const MAX_STREAMS: usize = 10_000;
/// Responses between a machine and gRPC. A slow reader holds this many, and its own flow-control window.
const OUTBOX: usize = 2;

/// The server's side of a stream.
type Outbound<T> = ReceiverStream<Result<T, Status>>;

/// The aggregated discovery service. See the [module](super) for how to run it.
pub struct AdsService {
    shared: Shared,
}

impl AdsService {
    /// Serves a snapshot and notes who reads it, until the drain begins: then all streams end, so that a graceful shutdown of the
    /// gRPC server does not wait for them.
    pub fn new(source: Arc<dyn SnapshotSource>, registry: Arc<NodeRegistry>, drain: DrainWatch) -> AdsService {
        AdsService { shared: Shared { source, registry, drain } }
    }

    /// The service with its message limits, to be added to a gRPC server.
    pub fn into_server(self) -> AggregatedDiscoveryServiceServer<AdsService> {
        AggregatedDiscoveryServiceServer::new(self).max_decoding_message_size(MAX_REQUEST).max_encoding_message_size(MAX_RESPONSE)
    }

    fn start<M: Speak>(&self, inbound: Streaming<M::In>) -> Result<Response<Outbound<M::Out>>, Status> {
        if self.shared.registry.connected() >= MAX_STREAMS {
            return Err(Status::resource_exhausted(format!("{MAX_STREAMS} nodes are connected already")));
        }
        let (out, receiver) = mpsc::channel(OUTBOX);
        tokio::spawn(stream::run::<M>(self.shared.clone(), inbound, out));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// A gRPC server with the bounds of the discovery port: dead peers are noticed within 40 s, streams and resets are limited.
pub fn tuned() -> Server {
    Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .max_concurrent_streams(Some(256))
        .http2_max_pending_accept_reset_streams(Some(20))
        .http2_max_header_list_size(Some(64 * 1024))
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for AdsService {
    type StreamAggregatedResourcesStream = Outbound<wire::DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Outbound<wire::DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<wire::DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        self.start::<SotwMachine>(request.into_inner())
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<wire::DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        self.start::<DeltaMachine>(request.into_inner())
    }
}

impl Speak for DeltaMachine {
    type In = wire::DeltaDiscoveryRequest;
    type Out = wire::DeltaDiscoveryResponse;
    const DIALECT: Dialect = Dialect::Delta;

    fn open(scope: NodeScope, position: u64) -> Self {
        DeltaMachine::new(scope, position)
    }
    fn read(message: Self::In) -> Incoming<Self::Request> {
        delta_request_from_wire(message)
    }
    fn write(response: <Self as Machine>::Response) -> Self::Out {
        delta_response_to_wire(response)
    }
}

impl Speak for SotwMachine {
    type In = wire::DiscoveryRequest;
    type Out = wire::DiscoveryResponse;
    const DIALECT: Dialect = Dialect::Sotw;

    fn open(scope: NodeScope, position: u64) -> Self {
        SotwMachine::new(scope, position)
    }
    fn read(message: Self::In) -> Incoming<Self::Request> {
        sotw_request_from_wire(message)
    }
    fn write(response: <Self as Machine>::Response) -> Self::Out {
        sotw_response_to_wire(response)
    }
}
