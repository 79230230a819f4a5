//! The least of a control plane of Envoy's types, over delta: everything at once, then one change at a time, and when each was acknowledged. It knows no
//! resource but its bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::mpsc as blocking;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use heddle_integration::fleet::wire::{Form, Raw};
use heddle_proto::envoy::service::discovery::v3 as wire;
use prost::Message;
use prost_types::Any;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::codegen::{Body, BoxFuture, Service, StdError, http};
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

/// How long a change may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Resources of each type by name, encoded.
pub type Resources = BTreeMap<String, BTreeMap<String, Bytes>>;

/// A control plane for one node.
pub struct Control {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    acks: blocking::Receiver<String>,
    _runtime: tokio::runtime::Runtime,
}

struct Shared {
    resources: Resources,
    /// The open stream.
    out: Mutex<Option<mpsc::UnboundedSender<Bytes>>>,
    acks: blocking::Sender<String>,
}

impl Control {
    /// Serves these on a port of its own.
    pub fn start(resources: Resources) -> Control {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (sender, acks) = blocking::channel();
        let shared = Arc::new(Shared { resources, out: Mutex::new(None), acks: sender });
        let service = Ads(shared.clone());
        runtime.spawn(async move {
            // As control planes of others: small messages do not wait for the acknowledgement of those before.
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            let server = tonic::transport::Server::builder().add_service(service);
            server.serve_with_incoming(incoming).await.expect("it serves");
        });
        Control { address, shared, acks, _runtime: runtime }
    }

    /// Says that a resource is another one now; how long until the node has acknowledged it.
    pub fn change(&self, type_url: &str, name: &str, body: Bytes, turn: usize) -> Duration {
        let nonce = format!("change-{turn}");
        let response = answer(type_url, vec![resource(type_url, name, &body, turn)], nonce.clone());
        let out = self.shared.out.lock().expect("nobody panics with it").clone().expect("the node is connected");
        let start = Instant::now();
        out.send(response).expect("the node is connected");
        while self.acks.recv_timeout(PATIENCE).expect("the node acknowledges") != nonce {}
        start.elapsed()
    }
}

fn resource(type_url: &str, name: &str, body: &Bytes, version: usize) -> wire::Resource {
    wire::Resource {
        name: name.to_owned(),
        version: version.to_string(),
        resource: Some(Any { type_url: type_url.to_owned(), value: body.to_vec() }),
        ..Default::default()
    }
}

fn answer(type_url: &str, resources: Vec<wire::Resource>, nonce: String) -> Bytes {
    let response = wire::DeltaDiscoveryResponse { type_url: type_url.to_owned(), resources, nonce, ..Default::default() };
    response.encode_to_vec().into()
}

#[derive(Clone)]
struct Ads(Arc<Shared>);

impl NamedService for Ads {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

impl<B> Service<http::Request<B>> for Ads
where
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let ads = self.clone();
        Box::pin(async move {
            if request.uri().path() != Form::Delta.method() {
                return Ok(Status::unimplemented("only delta is spoken here").into_http());
            }
            let mut grpc = Grpc::new(Raw).apply_max_message_size_config(Some(64 * 1024 * 1024), None);
            Ok(grpc.streaming(ads, request).await)
        })
    }
}

impl StreamingService<Bytes> for Ads {
    type Response = Bytes;
    type ResponseStream = std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<Bytes, Status>> + Send>>;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let (out, receiver) = mpsc::unbounded_channel();
        *self.0.out.lock().expect("nobody panics with it") = Some(out.clone());
        tokio::spawn(hear(self.0.clone(), request.into_inner(), out));
        let stream: Self::ResponseStream = Box::pin(UnboundedReceiverStream::new(receiver).map(Ok));
        Box::pin(async move { Ok(Response::new(stream)) })
    }
}

/// Answers questions with all that is asked for.
async fn hear(shared: Arc<Shared>, mut requests: Streaming<Bytes>, out: mpsc::UnboundedSender<Bytes>) {
    let mut known: BTreeSet<String> = BTreeSet::new();
    while let Ok(Some(bytes)) = requests.message().await {
        let Ok(request) = wire::DeltaDiscoveryRequest::decode(bytes) else { return };
        if let Some(error) = &request.error_detail {
            eprintln!("refused: {}", error.message);
        }
        let url = request.type_url.clone();
        let first = known.insert(url.clone());
        if let Some(of_type) = shared.resources.get(&url) {
            let asked = &request.resource_names_subscribe;
            let all = first && asked.is_empty();
            let resources: Vec<wire::Resource> = if all {
                of_type.iter().map(|(name, body)| resource(&url, name, body, 0)).collect()
            } else {
                asked.iter().filter_map(|name| Some(resource(&url, name, of_type.get(name)?, 0))).collect()
            };
            if all || !resources.is_empty() {
                let _ = out.send(answer(&url, resources, "first".to_owned()));
            }
        }
        if !request.response_nonce.is_empty() {
            let _ = shared.acks.send(request.response_nonce);
        }
    }
}
