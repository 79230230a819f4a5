//! One discovery stream of a client: moves messages between gRPC, a machine and the consumer. It neither connects nor waits to reconnect.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use heddle_node::clock;
use heddle_proto::envoy::service::discovery::v3 as wire;
use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use wire::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient as Grpc;

use super::demand::SWEEP_EVERY;
use super::shell::{End, Session};
use super::{ClientMachine, DeltaClient, Origin, SotwClient, TypedUpdate};
use crate::model::Kind;
use crate::protocol::BadRequest;
use crate::protocol::wire::{delta_request_to_wire, delta_response_from_wire, sotw_request_to_wire, sotw_response_from_wire};
use crate::protocol::{DeltaRequest, MAX_REQUEST, MAX_RESPONSE, NodeInfo, is_followed};

/// Until the control plane opens its side of a stream.
const OPEN: Duration = Duration::from_secs(10);
/// Requests on their way to gRPC: those that open a stream, and one ACK for each response of a batch.
const OUTBOX: usize = 64;
/// Responses that arrived together and are handed over together; about 1 MiB each.
const MAX_BATCH: usize = 16;
/// Bytes of one view that are held back until its end: several times what the largest fleets are told. What is longer is handed over in parts, and told.
const MAX_VIEW: usize = 512 * 1024 * 1024;
/// What a response counts for at least, so that empty ones come to an end too.
const LEAST: usize = 1024;
/// How long a view may stand still before its end: longer than any turn takes when very many agents are told much at once. What is dropped then is told anew
/// by the next stream.
const STILL: Duration = Duration::from_secs(30);
/// The same for kinds that were asked for and not answered: a control plane of another release may not know them.
const UNANSWERED: Duration = Duration::from_secs(10);

/// A machine that speaks a dialect over gRPC.
pub(super) trait Speak: ClientMachine {
    /// Protobuf of a request.
    type Out: Send + 'static;
    /// Protobuf of a response.
    type In: prost::Message;
    /// Opens the stream.
    fn open(
        client: &mut Grpc<Channel>,
        requests: tonic::Request<ReceiverStream<Self::Out>>,
    ) -> impl Future<Output = Result<tonic::Response<Streaming<Self::In>>, Status>> + Send;
    /// Writes a request; only the first of a stream says the node.
    fn write(request: Self::Request, node: Option<&NodeInfo>) -> Self::Out;
    /// Says the node again on an open stream, which asks for something of this kind already; `None` where the dialect has no words for it.
    fn say(kind: Kind, node: &NodeInfo) -> Option<Self::Out>;
    /// Reads a response.
    fn read(message: Self::In) -> Result<Self::Response, BadRequest>;
    /// The kind of a request.
    fn asks(request: &Self::Request) -> Kind;
    /// The kind of a response.
    fn kind(response: &Self::Response) -> Kind;
    /// Whether a message says that more of the same view follows, whatever it is about.
    fn is_followed(message: &Self::In) -> bool;
    /// The kinds whose answers are the view that a stream begins with, when it is opened so.
    fn owed(hello: &[Self::Request], session: &Session) -> Vec<Kind>;
    /// The responses of one view that count, in their order.
    fn condensed(view: Vec<Self::Response>) -> Vec<Self::Response>;
    /// The position of the server in a response.
    fn version(response: &Self::Response) -> Arc<str>;
}

/// What has arrived.
struct Gathered<R> {
    /// View by view.
    views: Vec<Vec<R>>,
    /// Why the last view is but a part of one.
    parted: Option<&'static str>,
    /// Why there is nothing more.
    end: Option<End>,
}

/// Runs a stream until it ends; what is held stays in the machine.
pub(super) async fn run<M: Speak>(machine: &mut M, channel: Channel, session: &mut Session) -> End {
    let mut client = Grpc::new(channel).max_decoding_message_size(MAX_RESPONSE).max_encoding_message_size(MAX_REQUEST);
    let (out, requests) = mpsc::channel(OUTBOX);
    let mut turns = session.config.takes_requests.clone();
    turns.iter_mut().for_each(watch::Receiver::mark_unchanged);
    let who = session.config.node();
    let mut node = Some(&who);
    let mut asks = session.config.demand.asks();
    if let Err(ended) = ask(machine, None, session).await {
        return ended;
    }
    let hello = machine.hello();
    let mut owed = M::owed(&hello, session);
    let kinds: Vec<Kind> = hello.iter().map(M::asks).collect();
    session.asks_for(&kinds);
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
    session.said(&who);
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
            () = turned(&mut turns) => match say::<M>(&kinds, &out, session).await {
                Ok(()) => continue,
                Err(ended) => return ended,
            },
            _ = sweeps.tick() => {
                session.config.demand.expire(clock::now());
                continue;
            }
            () = session.updates.closed() => return End::Closed,
        };
        let gathered = gather::<M>(first, &mut inbound, &mut owed).await;
        gathered.parted.iter().for_each(|why| session.parted(why));
        if let Err(ended) = exchange(machine, gathered.views, &out, session).await {
            return ended;
        }
        if let Some(ended) = gathered.end {
            return ended;
        }
    }
}

/// Says the node again on an open stream that asks for these kinds.
async fn say<M: Speak>(kinds: &[Kind], out: &mpsc::Sender<M::Out>, session: &Session) -> Result<(), End> {
    let who = session.config.node();
    let Some(word) = kinds.first().and_then(|kind| M::say(*kind, &who)) else {
        return Err(End::Lost("the instance beside this node is said anew by another stream".to_string()));
    };
    if out.send(word).await.is_err() {
        return Err(End::Lost("the stream was closed".to_string()));
    }
    session.said(&who);
    Ok(())
}

/// Ready when it has changed whether the instance beside the node takes requests.
async fn turned(turns: &mut Option<watch::Receiver<bool>>) {
    let Some(turns) = turns else { return std::future::pending().await };
    if turns.changed().await.is_err() {
        // It will not change any more.
        std::future::pending().await
    }
}

/// What has arrived. A view that has begun to arrive is waited for to its end, as long as something comes: a part of it is for nobody.
async fn gather<M: Speak>(
    first: Result<M::In, End>,
    inbound: &mut Streaming<M::In>,
    owed: &mut Vec<Kind>,
) -> Gathered<M::Response> {
    let mut found = Gathered { views: Vec::new(), parted: None, end: None };
    let (mut view, mut count, mut size) = (Vec::new(), 0, 0);
    let mut next = Some(first);
    while let Some(message) = next.take() {
        let message = match message {
            Ok(message) => message,
            // What is left of a view when the stream is lost comes again with the next one.
            Err(ended) => return Gathered { end: Some(ended), ..found },
        };
        let follows = M::is_followed(&message);
        (count, size) = (count + 1, size + message.encoded_len().max(LEAST));
        match M::read(message) {
            Ok(response) => {
                owed.retain(|kind| *kind != M::kind(&response));
                view.push(response);
            }
            // A type that this release does not know: it did not ask for it, and owes no answer. What it is a part of goes on.
            Err(BadRequest::UnknownType(_)) => {}
            Err(error) => return Gathered { end: Some(End::Lost(error.to_string())), ..found },
        }
        if (follows || !owed.is_empty()) && size < MAX_VIEW {
            next = timeout(if follows { STILL } else { UNANSWERED }, inbound.message()).await.ok().map(received);
            if next.is_none() && follows {
                let why = "the control plane began to tell a view and did not tell its end".to_string();
                return Gathered { end: Some(End::Lost(why)), ..found };
            } else if next.is_none() {
                owed.clear();
                found.parted = Some("the control plane has not answered all that was asked for");
                found.views.push(std::mem::take(&mut view));
            }
            continue;
        }
        found.views.push(std::mem::take(&mut view));
        if follows || !owed.is_empty() {
            found.parted = Some("it is longer than an agent holds back");
        } else if count < MAX_BATCH {
            next = inbound.message().now_or_never().map(received);
            size = 0;
        }
    }
    found
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
        // The control plane has said nothing of them: who wants one again asks again.
        session.deliver(Origin::ControlPlane, vec![gone]).await?;
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
    // A stream that ends before anything was said is a failure, and who comes again waits longer each time.
    if views.is_empty() {
        return Ok(());
    }
    let (mut updates, mut open, mut kinds, mut version) = (Vec::new(), Vec::new(), Vec::new(), None);
    for view in views.into_iter().map(M::condensed) {
        // What is about the same as a view before it waits until that one is settled.
        if !view.iter().all(|response| machine.joins(&open, response)) {
            settle(machine, std::mem::take(&mut updates), std::mem::take(&mut open), out, session).await?;
        }
        let mut told = Vec::with_capacity(view.len());
        for response in view {
            kinds.push(M::kind(&response));
            version = Some(is_followed(&M::version(&response)).0.into());
            let (update, opened) = machine.receive(response);
            told.push(update);
            open.push(opened);
        }
        updates.push(told);
    }
    settle(machine, updates, open, out, session).await?;
    session.heard(&kinds, version);
    Ok(())
}

/// Waits for the consumer's verdict and answers each response.
async fn settle<M: Speak>(
    machine: &mut M,
    updates: Vec<Vec<TypedUpdate>>,
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

    async fn open(
        client: &mut Grpc<Channel>,
        requests: tonic::Request<ReceiverStream<Self::Out>>,
    ) -> Result<tonic::Response<Streaming<Self::In>>, Status> {
        client.delta_aggregated_resources(requests).await
    }
    fn write(request: Self::Request, node: Option<&NodeInfo>) -> Self::Out {
        delta_request_to_wire(request, node)
    }
    /// Asks for nothing more.
    fn say(kind: Kind, node: &NodeInfo) -> Option<Self::Out> {
        Some(delta_request_to_wire(DeltaRequest::new(kind), Some(node)))
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
    fn is_followed(message: &Self::In) -> bool {
        is_followed(&message.system_version_info).1
    }
    /// Each kind of which everything is asked for is answered, whatever is held.
    fn owed(hello: &[Self::Request], session: &Session) -> Vec<Kind> {
        hello.iter().map(Self::asks).filter(|kind| session.all_of(*kind)).collect()
    }
    fn condensed(view: Vec<Self::Response>) -> Vec<Self::Response> {
        view
    }
    fn version(response: &Self::Response) -> Arc<str> {
        response.version.clone()
    }
}

impl Speak for SotwClient {
    type Out = wire::DiscoveryRequest;
    type In = wire::DiscoveryResponse;

    async fn open(
        client: &mut Grpc<Channel>,
        requests: tonic::Request<ReceiverStream<Self::Out>>,
    ) -> Result<tonic::Response<Streaming<Self::In>>, Status> {
        client.stream_aggregated_resources(requests).await
    }
    fn write(request: Self::Request, node: Option<&NodeInfo>) -> Self::Out {
        sotw_request_to_wire(request, node)
    }
    /// Each request says all that is wanted: the node is said by the next stream.
    fn say(_: Kind, _: &NodeInfo) -> Option<Self::Out> {
        None
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
    /// Its versions are given back kind by kind, so the nonce says it.
    fn is_followed(message: &Self::In) -> bool {
        is_followed(&message.nonce).1
    }
    /// The last kind is always answered, behind all others.
    fn owed(hello: &[Self::Request], _: &Session) -> Vec<Kind> {
        hello.last().map(Self::asks).into_iter().collect()
    }
    /// The last word on a kind is all of it.
    fn condensed(mut view: Vec<Self::Response>) -> Vec<Self::Response> {
        let mut seen = [false; Kind::ALL.len()];
        view.reverse();
        view.retain(|response| !std::mem::replace(&mut seen[response.kind.index()], true));
        view.reverse();
        view
    }
    fn version(response: &Self::Response) -> Arc<str> {
        response.version.clone()
    }
}
