//! A simulated agent: a connection and a delta stream of its own, everything asked for as the real agent does, every response acknowledged at once. It keeps no resource.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use heddle_xds::link::Connector;
use heddle_xds::model::Kind;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Request, Status};

use super::ledger::Ledger;
use super::wire::{self, Raw};

/// The largest response that the real agent takes.
const MAX_RESPONSE: usize = 64 * 1024 * 1024;
/// Requests on their way, as in the real agent.
const OUTBOX: usize = 64;

/// The name of an agent.
pub fn name(number: usize) -> String {
    format!("agent-{number:05}")
}

/// Follows a control plane until the stream ends; why it did is noted.
pub async fn follow(link: Connector, number: usize, ledger: Rc<RefCell<Ledger>>) {
    let why = match converse(&link, number, &ledger).await {
        Ok(()) => "the stream ended".to_owned(),
        Err(why) => why,
    };
    ledger.borrow_mut().faults.push(format!("{}: {why}", name(number)));
}

async fn converse(link: &Connector, number: usize, ledger: &RefCell<Ledger>) -> Result<(), String> {
    let say = |status: Status| status.to_string();
    // One TCP connection for each agent, made by the agent's own connector: agents are processes of their own.
    let channel = link.connect().await.map_err(|error| error.to_string())?;
    let mut grpc = Grpc::new(channel).max_decoding_message_size(MAX_RESPONSE);
    grpc.ready().await.map_err(|error| error.to_string())?;
    let (out, requests) = mpsc::channel(OUTBOX);
    let mut id = Some(name(number));
    for kind in Kind::ALL {
        let hello = wire::subscribe(id.take().as_deref(), kind.type_url(), &["*"]);
        out.send(hello).await.map_err(|error| error.to_string())?;
    }
    let method = PathAndQuery::from_static(wire::METHOD);
    let answer = grpc.streaming(Request::new(ReceiverStream::new(requests)), method, Raw).await.map_err(say)?;
    let mut inbound = answer.into_inner();
    while let Some(message) = inbound.message().await.map_err(say)? {
        let ack = {
            let now = Instant::now();
            let ledger = &mut *ledger.borrow_mut();
            ledger.traffic.responses += 1;
            ledger.traffic.bytes += message.len() as u64;
            let mut removals = 0;
            let head = wire::read(&message, |resource| ledger.got(number, &resource, now), |_| removals += 1);
            ledger.traffic.removals += removals;
            let head = head.ok_or("a response that is no protobuf")?;
            wire::ack(head.type_url, head.nonce)
        };
        out.send(ack).await.map_err(|error| error.to_string())?;
    }
    Ok(())
}
