//! A simulated node: a connection and a stream of its own, everything asked for as the real one does, every response acknowledged at once. It keeps no
//! resource.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use heddle_xds::link::Connector;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Request, Status};

use super::dialect::{Dialect, Speaker};
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
pub async fn follow(link: Connector, dialect: Dialect, number: usize, ledger: Rc<RefCell<Ledger>>) {
    let why = match converse(&link, dialect, number, &ledger).await {
        Ok(()) => "the stream ended".to_owned(),
        Err(why) => why,
    };
    ledger.borrow_mut().faults.push(format!("{}: {why}", name(number)));
}

async fn converse(link: &Connector, dialect: Dialect, number: usize, ledger: &RefCell<Ledger>) -> Result<(), String> {
    let say = |status: Status| status.to_string();
    // One TCP connection for each agent, made by the agent's own connector: agents are processes of their own.
    let channel = link.connect().await.map_err(|error| error.to_string())?;
    let mut grpc = Grpc::new(channel).max_decoding_message_size(MAX_RESPONSE);
    grpc.ready().await.map_err(|error| error.to_string())?;
    let (out, requests) = mpsc::channel(OUTBOX);
    let mut speaker = Speaker::new(dialect, name(number));
    for hello in speaker.begin() {
        out.send(hello).await.map_err(|error| error.to_string())?;
    }
    let method = PathAndQuery::from_static(dialect.form().method());
    let answer = grpc.streaming(Request::new(ReceiverStream::new(requests)), method, Raw).await.map_err(say)?;
    let mut inbound = answer.into_inner();
    while let Some(message) = inbound.message().await.map_err(say)? {
        let answers = heard(&message, &mut speaker, number, &mut ledger.borrow_mut())?;
        for said in answers {
            out.send(said).await.map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

/// Takes a response to the books; what is said to it.
fn heard(message: &[u8], speaker: &mut Speaker, number: usize, ledger: &mut Ledger) -> Result<Vec<bytes::Bytes>, String> {
    let now = Instant::now();
    let (mut set, mut removed, mut broken) = (Vec::new(), Vec::new(), false);
    let form = speaker.form();
    let head = wire::read(form, message, |resource| set.push(resource), |name| removed.push(name));
    let head = head.ok_or("a response that is no protobuf")?;
    ledger.traffic.responses += 1;
    ledger.traffic.bytes += message.len() as u64;
    for resource in &set {
        broken |= speaker.take(resource).is_none();
        ledger.got(number, resource, now);
    }
    for name in removed {
        speaker.lose(&head, name);
        ledger.lost(number, head.type_url, name);
    }
    if broken {
        return Err("a resource that is no protobuf, or of a type that was not asked for".to_owned());
    }
    Ok(speaker.answer(&head))
}
