//! The aggregated discovery service over gRPC; it starts streams and bounds them.

mod load;
mod scenes;
mod typed;

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use heddle_node::drain::DrainWatch;
use heddle_proto::envoy::config::core::v3::Node;
use heddle_proto::envoy::service::discovery::v3 as wire;
use heddle_proto::envoy::service::load_stats::v3::load_reporting_service_server::LoadReportingServiceServer;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use prost::Message;
use tokio::sync::{mpsc, watch};
use tonic::codec::{DecodeBuf, Decoder};
use tonic::codegen::{Body, StdError, http};
use tonic::server::NamedService;
use tonic::transport::Server;
use tonic::{Status, Streaming};
use tower::layer::util::{Identity, Stack};

use super::body::{Outgoing, Packet};
use super::memo::{Memo, delta_key, sotw_key};
use super::pace::Entrance;
use super::stream::{self, Shared, Speak, Terms};

use super::{DeltaMachine, Machine, NodeRegistry, SotwMachine};
use crate::dialect::envoy::encode::Gap;
use crate::link::{Linger, Peer};
use crate::model::Kind;
use crate::protocol::names::Ask;
use crate::protocol::wire::{
    AGENT, Incoming, delta_request_from_wire, delta_response_to_wire, sotw_request_from_wire, sotw_response_to_wire,
};
use crate::protocol::{Advice, DeltaResponse, Dialect, MAX_REQUEST, NodeInfo, SotwResponse, Types, more_follows, seeds};
use crate::snapshot::{NodeScope, SnapshotFeed};

pub use load::LoadServer;
pub(super) use scenes::{Alike, Scene, Scenes};
pub use typed::{CDS, EDS, LDS, RDS, SDS, TypeServer};

/// Streams of one server; each costs the names that it was sent.
const MAX_STREAMS: usize = 10_000;
/// Responses between a machine and gRPC. A slow reader holds this many, and its own flow-control window.
const OUTBOX: usize = 2;
/// The methods, by path.
const DELTA: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
const SOTW: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";

/// Judges a node by its connection before it is told anything, and may set what it is by what was verified.
pub type Gate = Arc<dyn Fn(&Peer, &mut NodeInfo) -> Result<(), Status> + Send + Sync>;

/// With whom agents of a cell begin to gossip; `None`: the agent does not say of which cell it is.
pub type Seeds = Arc<dyn Fn(Option<&str>) -> Advice + Send + Sync>;

/// Grows when all streams are to end, so that nodes go to another control plane where there is one; those that come after that are served.
pub type Elsewhere = watch::Receiver<u64>;

/// The aggregated discovery service. See the [module](super) for how to run it.
pub struct AdsService {
    pub(super) shared: Shared,
    gate: Option<Gate>,
    seeds: Option<Seeds>,
}

impl AdsService {
    /// Serves a snapshot and notes who reads it, until the drain begins: then all streams end, so that a graceful shutdown of the
    /// gRPC server does not wait for them. What paces the streams is a task of the present runtime.
    pub fn new(feed: Arc<dyn SnapshotFeed>, registry: Arc<NodeRegistry>, drain: DrainWatch) -> AdsService {
        let (ours, entrance) = (Scene::new(feed, drain.clone()), Arc::new(Entrance::new()));
        AdsService {
            shared: Shared {
                ours,
                foreign: Scenes::default(),
                gap: Gap::default(),
                canaries: None,
                registry,
                entrance,
                elsewhere: watch::Sender::new(0).subscribe(),
                drain,
            },
            gate: None,
            seeds: None,
        }
    }

    /// The same, for nodes that `gate` lets in. Connections of which nothing is known are not let in then.
    pub fn behind(self, gate: Gate) -> AdsService {
        AdsService { gate: Some(gate), ..self }
    }

    /// The same, which tells every node that opens a stream with whom to begin to gossip.
    pub fn seeding(self, seeds: Seeds) -> AdsService {
        AdsService { seeds: Some(seeds), ..self }
    }

    /// The same, whose streams end when nodes are sent elsewhere.
    pub fn sending(mut self, elsewhere: Elsewhere) -> AdsService {
        self.shared.elsewhere = elsewhere;
        self
    }

    /// The same, which leaves this in the place of routes that nodes of others are not given.
    pub fn leaving(mut self, gap: Gap) -> AdsService {
        self.shared.gap = gap;
        self
    }

    /// The same, where new versions go to a canary of each group of nodes first, and to the others when it has taken them or has not answered for `wait`.
    pub fn trying_first(mut self, wait: Option<Duration>) -> AdsService {
        self.shared.canaries = wait;
        self
    }

    /// The service, to be added to a gRPC server.
    pub fn into_server(self) -> AdsServer {
        AdsServer { service: Arc::new(self) }
    }

    /// Answers a call of a method.
    fn answer<B>(
        &self,
        method: Option<Dialect>,
        only: Option<Kind>,
        request: http::Request<B>,
    ) -> http::Response<tonic::body::Body>
    where
        B: Body + Send + 'static,
        B::Error: Into<StdError>,
    {
        let advice = self.seeds.as_ref().map(|seeds| seeds(seeds::asked(request.headers())));
        let started = match method {
            Some(Dialect::Delta) => self.start::<DeltaMachine, B>(only, request),
            Some(Dialect::Sotw) => self.start::<SotwMachine, B>(only, request),
            None => Err(Status::unimplemented("the discovery service has no such method")),
        };
        match started {
            Ok(body) => {
                let mut response = http::Response::new(tonic::body::Body::new(body));
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                if let Some(advice) = advice {
                    seeds::write(&advice, response.headers_mut());
                }
                response
            }
            Err(status) => status.into_http(),
        }
    }

    fn start<M: Speak, B>(&self, only: Option<Kind>, request: http::Request<B>) -> Result<Outgoing, Status>
    where
        B: Body + Send + 'static,
        B::Error: Into<StdError>,
    {
        if self.shared.registry.connected() >= MAX_STREAMS {
            // No word of having asked too much: who has no configuration yet is to try elsewhere, and again.
            return Err(Status::unavailable(format!(
                "{MAX_STREAMS} nodes are connected already; try again, or another control plane"
            )));
        }
        let gate = match (&self.gate, request.extensions().get::<Peer>()) {
            (None, _) => None,
            (Some(gate), Some(peer)) => Some((gate.clone(), peer.clone())),
            (Some(_), None) => return Err(Status::permission_denied("nothing is known of this connection")),
        };
        let inbound = Streaming::new_request(Requests::<M::In>::default(), request.into_body(), None, Some(MAX_REQUEST));
        let (out, receiver) = mpsc::channel(OUTBOX);
        let shared = self.shared.clone();
        tokio::spawn(async move { stream::run::<M>(shared, Terms { gate, only }, inbound, out).await });
        Ok(Outgoing::new(receiver))
    }
}

/// The service as a gRPC server calls it. It is written by hand because its answers are encoded already.
#[derive(Clone)]
pub struct AdsServer {
    service: Arc<AdsService>,
}

impl AdsServer {
    /// The service by which nodes of others report their load, beside this one.
    pub fn loads(&self) -> LoadReportingServiceServer<LoadServer> {
        LoadServer::serve(self.service.clone())
    }

    /// The service for the one type ([`CDS`](super::CDS) and its like), beside the aggregated one.
    pub fn of_type<const TYPE: usize>(&self) -> TypeServer<TYPE>
    where
        TypeServer<TYPE>: NamedService,
    {
        TypeServer::new(self.service.clone())
    }
}

impl NamedService for AdsServer {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

impl<B> tower::Service<http::Request<B>> for AdsServer
where
    B: Body + Send + 'static,
    B::Error: Into<StdError>,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let method = match request.uri().path() {
            DELTA => Some(Dialect::Delta),
            SOTW => Some(Dialect::Sotw),
            _ => None,
        };
        ready(Ok(self.service.answer(method, None, request)))
    }
}

/// Reads requests; their size is bounded before they come here.
struct Requests<M>(std::marker::PhantomData<fn() -> M>);

impl<M> Default for Requests<M> {
    fn default() -> Self {
        Requests(std::marker::PhantomData)
    }
}

impl<M: Message + Default + Send + 'static> Decoder for Requests<M> {
    type Item = M;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<M>, Status> {
        M::decode(bytes).map(Some).map_err(|error| Status::internal(format!("the request is not valid protobuf: {error}")))
    }
}

/// What stands before the services of a [`tuned`] server.
pub type Tuned = Stack<Linger, Identity>;

/// A gRPC server with the bounds of the discovery port: dead peers are noticed within 40 s, streams and resets are limited, and who is refused hears it.
pub fn tuned() -> Server<Tuned> {
    Server::builder()
        .layer(Linger)
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .max_concurrent_streams(Some(256))
        .http2_max_pending_accept_reset_streams(Some(20))
        .http2_max_header_list_size(Some(64 * 1024))
}

/// Whose types a node speaks whose first request is about this type, and whether its program is ours.
fn spoken(type_url: &str, node: &Option<Node>) -> (Types, bool) {
    let program = node.as_ref().map_or("", |node| &node.user_agent_name);
    (Types::spoken(type_url, program), program == AGENT)
}

impl Speak for DeltaMachine {
    type In = wire::DeltaDiscoveryRequest;
    const DIALECT: Dialect = Dialect::Delta;

    fn open(scope: NodeScope, types: Types, position: u64) -> Self {
        DeltaMachine::new(scope, position).speaking(types)
    }
    fn spoken(message: &Self::In) -> (Types, bool) {
        spoken(&message.type_url, &message.node)
    }
    fn type_of(message: &mut Self::In) -> &mut String {
        &mut message.type_url
    }
    fn holds(request: &Self::Request) -> bool {
        !request.initial.is_empty()
    }
    fn read(message: Self::In, types: Types) -> Incoming<Self::Request> {
        delta_request_from_wire(message, types)
    }
    fn more_follows(response: &mut <Self as Machine>::Response) {
        response.version = more_follows(&response.version);
    }
    fn write(response: <Self as Machine>::Response, types: Types, memo: &Memo) -> Packet {
        let own = wire::DeltaDiscoveryResponse {
            system_version_info: response.version.to_string(),
            nonce: response.nonce.to_string(),
            ..Default::default()
        };
        let key = delta_key(&response);
        let rest = DeltaResponse { version: "".into(), nonce: "".into(), ..response };
        let shared = memo.get(key, || delta_response_to_wire(rest, types).encode_to_vec().into());
        Packet { head: own.encode_to_vec(), shared, work: None, telling: None }
    }
}

impl Speak for SotwMachine {
    type In = Ask;
    const DIALECT: Dialect = Dialect::Sotw;

    fn open(scope: NodeScope, types: Types, position: u64) -> Self {
        SotwMachine::new(scope, position).speaking(types)
    }
    fn spoken(message: &Self::In) -> (Types, bool) {
        spoken(&message.rest.type_url, &message.rest.node)
    }
    fn type_of(message: &mut Self::In) -> &mut String {
        &mut message.rest.type_url
    }
    fn holds(request: &Self::Request) -> bool {
        !request.version.is_empty()
    }
    fn read(message: Self::In, types: Types) -> Incoming<Self::Request> {
        sotw_request_from_wire(message, types)
    }
    /// Its versions are given back by the client, kind by kind, so the nonce says it.
    fn more_follows(response: &mut <Self as Machine>::Response) {
        response.nonce = more_follows(&response.nonce);
    }
    fn write(response: <Self as Machine>::Response, types: Types, memo: &Memo) -> Packet {
        let own = wire::DiscoveryResponse {
            version_info: response.version.to_string(),
            nonce: response.nonce.to_string(),
            ..Default::default()
        };
        let key = sotw_key(&response);
        let rest = SotwResponse { version: "".into(), nonce: "".into(), ..response };
        let shared = memo.get(key, || sotw_response_to_wire(rest, types).encode_to_vec().into());
        Packet { head: own.encode_to_vec(), shared, work: None, telling: None }
    }
}
