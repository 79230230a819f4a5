//! One discovery stream of a client: moves messages between gRPC, a machine and the consumer. It neither connects nor waits to reconnect.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use heddle_node::clock;
use heddle_proto::envoy::service::discovery::v3 as wire;
use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use wire::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient as Grpc;

use super::demand::SWEEP_EVERY;
use super::shell::{End, Session};
use super::{ClientMachine, DeltaClient, SotwClient, TypedUpdate};
use crate::model::Kind;
use crate::protocol::BadRequest;
use crate::protocol::wire::{delta_request_to_wire, delta_response_from_wire, sotw_request_to_wire, sotw_response_from_wire};
use crate::protocol::{MAX_REQUEST, MAX_RESPONSE, NodeInfo, is_followed};

/// Until the control plane opens its side of a stream.
const OPEN: Duration = Duration::from_secs(10);
/// Requests on their way to gRPC: those that open a stream, and one ACK for each response of a batch.
const OUTBOX: usize = 64;
/// Responses that arrived together and are handed over together; about 1 MiB each.
const MAX_BATCH: usize = 16;
/// Responses of one view, which are handed over together unless there are more.
const MAX_VIEW: usize = 64;
/// How long the rest of a view is waited for: it is on its way.
const REST: Duration = Duration::from_secs(2);

/// A machine that speaks a dialect over gRPC.
pub(super) trait Speak: ClientMachine {
    /// Protobuf of a request.
    type Out: Send + 'static;
    /// Protobuf of a response.
    type In: Send + 'static;
    /// Opens the stream.
    fn open(
        client: &mut Grpc<Channel>,
        requests: tonic::Request<ReceiverStream<Self::Out>>,
    ) -> impl Future<Output = Result<tonic::Response<Streaming<Self::In>>, Status>> + Send;
    /// Writes a request; only the first of a stream says the node.
    fn write(request: Self::Request, node: Option<&NodeInfo>) -> Self::Out;
    /// Reads a response.
    fn read(message: Self::In) -> Result<Self::Response, BadRequest>;
    /// The kind of a request.
    fn asks(request: &Self::Request) -> Kind;
    /// The kind of a response.
    fn kind(response: &Self::Response) -> Kind;
    /// Whether responses tell that more of the same view follows.
    const TELLS_VIEWS: bool;
    /// The position of the server in a response.
    fn version(response: &Self::Response) -> Arc<str>;
}

/// Runs a stream until it ends; what is held stays in the machine.
pub(super) async fn run<M: Speak>(machine: &mut M, channel: Channel, session: &mut Session) -> End {
    let mut client = Grpc::new(channel).max_decoding_message_size(MAX_RESPONSE).max_encoding_message_size(MAX_REQUEST);
    let (out, requests) = mpsc::channel(OUTBOX);
    let mut node = Some(&session.config.node.clone());
    let mut asks = session.config.demand.asks();
    if let Err(ended) = ask(machine, None, session).await {
        return ended;
    }
    let hello = machine.hello();
    // What a stream begins with is one view too, and each kind of which everything is asked for is answered.
    let mut owed: Vec<Kind> = hello.iter().map(M::asks).filter(|kind| M::TELLS_VIEWS && session.all_of(*kind)).collect();
    session.asks_for(&hello.iter().map(M::asks).collect::<Vec<_>>());
    for request in hello {
        if out.send(M::write(request, node.take())).await.is_err() {
            return End::Lost("the stream could not be opened".to_string());
        }
    }
    let mut inbound = match timeout(OPEN, M::open(&mut client, session.asking(ReceiverStream::new(requests)))).await {
        Ok(Ok(answer)) => session.seeded(answer),
        Ok(Err(status)) => return End::Lost(status.to_string()),
        Err(_) => return End::Lost("the control plane did not answer in time".to_string()),
    };
    session.opened();
    let mut sweeps = tokio::time::interval_at(clock::now() + SWEEP_EVERY, SWEEP_EVERY);
    loop {
        let first = tokio::select! {
            message = inbound.message() => received(message),
            () = sleep_until(session.save_at.unwrap_or_else(clock::now)), if session.save_at.is_some() => {
                session.save(machine.holdings()).await;
                continue;
            }
            Ok(()) = asks.changed() => match ask(machine, Some(&out), session).await {
                Ok(()) => continue,
                Err(ended) => return ended,
            },
            _ = sweeps.tick() => {
                session.config.demand.expire(clock::now());
                continue;
            }
            () = session.updates.closed() => return End::Closed,
        };
        let (views, end) = gather::<M>(first, &mut inbound, &mut owed).await;
        if let Err(ended) = exchange(machine, views, &out, session).await {
            return ended;
        }
        if let Some(ended) = end {
            return ended;
        }
    }
}

/// What has arrived, view by view, and why there is nothing more. A view that has begun to arrive is waited for to its end.
async fn gather<M: Speak>(
    first: Result<M::In, End>,
    inbound: &mut Streaming<M::In>,
    owed: &mut Vec<Kind>,
) -> (Vec<Vec<M::Response>>, Option<End>) {
    let (mut views, mut view, mut count) = (Vec::new(), Vec::new(), 0);
    let mut next = Some(first);
    let mut end = None;
    while let Some(message) = next.take() {
        let response = match message.map(M::read) {
            Ok(Ok(response)) => response,
            // A type that this release does not know: it did not ask for it, and owes no answer.
            Ok(Err(BadRequest::UnknownType(_))) => {
                next = inbound.message().now_or_never().map(received);
                continue;
            }
            Ok(Err(error)) => {
                end = Some(End::Lost(error.to_string()));
                break;
            }
            Err(ended) => {
                end = Some(ended);
                break;
            }
        };
        owed.retain(|kind| *kind != M::kind(&response));
        let follows = is_followed(&M::version(&response)).1 || !owed.is_empty();
        view.push(response);
        count += 1;
        if follows && view.len() < MAX_VIEW {
            next = timeout(REST, inbound.message()).await.ok().map(received);
            if next.is_none() {
                owed.clear();
            }
            continue;
        }
        views.push(std::mem::take(&mut view));
        if count < MAX_BATCH {
            next = inbound.message().now_or_never().map(received);
        }
    }
    // What is left of a view when the stream is lost comes again with the next one.
    if end.is_none() {
        views.push(view);
    }
    (views, end)
}

/// Asks for what somebody wants since it was asked last, and lets go of what nobody does; nothing is sent before the stream is open.
async fn ask<M: Speak>(machine: &mut M, out: Option<&mpsc::Sender<M::Out>>, session: &mut Session) -> Result<(), End> {
    let mut gone = Vec::new();
    for asks in session.config.demand.take() {
        let kind = asks.kind;
        let (request, removed) = machine.ask(asks);
        if !removed.is_empty() {
            gone.push(TypedUpdate { kind, set: Vec::new(), removed, rejected: Vec::new() });
        }
        if let (Some(out), Some(request)) = (out, request)
            && out.send(M::write(request, None)).await.is_err()
        {
            return Err(End::Lost("the stream was closed".to_string()));
        }
    }
    if !gone.is_empty() {
        session.hand_over(gone).await?;
        session.save_soon();
    }
    Ok(())
}

/// A message, or why there is none.
fn received<T>(message: Result<Option<T>, Status>) -> Result<T, End> {
    match message {
        Ok(Some(message)) => Ok(message),
        Ok(None) => Err(End::Lost("the control plane ended the stream".to_string())),
        Err(status) => Err(End::Lost(status.to_string())),
    }
}

/// Hands views that arrived together to the consumer, none of them in parts, and answers their responses.
async fn exchange<M: Speak>(
    machine: &mut M,
    views: Vec<Vec<M::Response>>,
    out: &mpsc::Sender<M::Out>,
    session: &mut Session,
) -> Result<(), End> {
    let (mut updates, mut open, mut kinds, mut version) = (Vec::new(), Vec::new(), Vec::new(), None);
    for view in views {
        if !view.iter().all(|response| machine.joins(&open, response)) {
            settle(machine, std::mem::take(&mut updates), std::mem::take(&mut open), out, session).await?;
        }
        for response in view {
            // Within a view each name comes once; whoever does not keep to that is believed one response after the other.
            if !machine.joins(&open, &response) {
                settle(machine, std::mem::take(&mut updates), std::mem::take(&mut open), out, session).await?;
            }
            kinds.push(M::kind(&response));
            version = Some(is_followed(&M::version(&response)).0.into());
            let (update, opened) = machine.receive(response);
            updates.push(update);
            open.push(opened);
        }
    }
    settle(machine, updates, open, out, session).await?;
    session.heard(&kinds, version);
    Ok(())
}

/// Waits for the consumer's verdict and answers each response.
async fn settle<M: Speak>(
    machine: &mut M,
    updates: Vec<TypedUpdate>,
    open: Vec<M::Open>,
    out: &mpsc::Sender<M::Out>,
    session: &mut Session,
) -> Result<(), End> {
    let rejected = session.hand_over(updates).await?;
    for open in open {
        let request = machine.settle(open, &rejected);
        if out.send(M::write(request, None)).await.is_err() {
            return Err(End::Lost("the stream was closed".to_string()));
        }
    }
    session.save_soon();
    Ok(())
}

impl Speak for DeltaClient {
    type Out = wire::DeltaDiscoveryRequest;
    type In = wire::DeltaDiscoveryResponse;
    const TELLS_VIEWS: bool = true;

    async fn open(
        client: &mut Grpc<Channel>,
        requests: tonic::Request<ReceiverStream<Self::Out>>,
    ) -> Result<tonic::Response<Streaming<Self::In>>, Status> {
        client.delta_aggregated_resources(requests).await
    }
    fn write(request: Self::Request, node: Option<&NodeInfo>) -> Self::Out {
        delta_request_to_wire(request, node)
    }
    fn read(message: Self::In) -> Result<Self::Response, BadRequest> {
        delta_response_from_wire(message)
    }
    fn asks(request: &Self::Request) -> Kind {
        request.kind
    }
    fn kind(response: &Self::Response) -> Kind {
        response.kind
    }
    fn version(response: &Self::Response) -> Arc<str> {
        response.version.clone()
    }
}

impl Speak for SotwClient {
    type Out = wire::DiscoveryRequest;
    type In = wire::DiscoveryResponse;
    const TELLS_VIEWS: bool = false;

    async fn open(
        client: &mut Grpc<Channel>,
        requests: tonic::Request<ReceiverStream<Self::Out>>,
    ) -> Result<tonic::Response<Streaming<Self::In>>, Status> {
        client.stream_aggregated_resources(requests).await
    }
    fn write(request: Self::Request, node: Option<&NodeInfo>) -> Self::Out {
        sotw_request_to_wire(request, node)
    }
    fn read(message: Self::In) -> Result<Self::Response, BadRequest> {
        sotw_response_from_wire(message)
    }
    fn asks(request: &Self::Request) -> Kind {
        request.kind
    }
    fn kind(response: &Self::Response) -> Kind {
        response.kind
    }
    fn version(response: &Self::Response) -> Arc<str> {
        response.version.clone()
    }
}
