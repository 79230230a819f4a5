//! One discovery stream: moves messages between gRPC, a machine and the snapshot. It decides nothing about xDS itself.

use std::sync::Arc;
use std::time::Duration;

use heddle_node::clock;
use heddle_node::drain::DrainWatch;
use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout};
use tonic::{Status, Streaming};

use super::{Machine, NodeRegistry};
use crate::protocol::BadRequest;
use crate::protocol::Dialect;
use crate::protocol::wire::Incoming;
use crate::snapshot::{NodeScope, SnapshotSource};

/// Until the first request of a stream.
const FIRST_REQUEST: Duration = Duration::from_secs(15);
/// Until the client has read why its stream ends.
const LAST_WORD: Duration = Duration::from_secs(5);
/// Changes that follow each other this closely travel together. Endpoints never wait.
const COALESCE: Duration = Duration::from_millis(5);

/// A machine that speaks a dialect over gRPC.
pub(super) trait Speak: Machine + Sized {
    /// Protobuf of a request.
    type In: Send + 'static;
    /// Protobuf of a response.
    type Out: Send + 'static;
    /// The dialect.
    const DIALECT: Dialect;
    /// A new stream.
    fn open(scope: NodeScope, position: u64) -> Self;
    /// Reads a request.
    fn read(message: Self::In) -> Incoming<Self::Request>;
    /// Writes a response.
    fn write(response: Self::Response) -> Self::Out;
}

/// What all streams share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) source: Arc<dyn SnapshotSource>,
    pub(super) registry: Arc<NodeRegistry>,
    pub(super) drain: DrainWatch,
}

/// Runs a stream until either side ends it.
pub(super) async fn run<M: Speak>(shared: Shared, inbound: Streaming<M::In>, out: mpsc::Sender<Result<M::Out, Status>>) {
    if let Err(status) = converse::<M>(&shared, inbound, &out).await {
        tracing::debug!(dialect = %M::DIALECT, %status, "discovery stream ended");
        // The client may be gone, or not read; then nobody gets to know.
        let _ = out.send_timeout(Err(status), LAST_WORD).await;
    }
}

async fn converse<M: Speak>(
    shared: &Shared,
    mut inbound: Streaming<M::In>,
    out: &mpsc::Sender<Result<M::Out, Status>>,
) -> Result<(), Status> {
    let first = timeout(FIRST_REQUEST, inbound.message());
    let first = first.await.map_err(|_| Status::deadline_exceeded("no request came in time"))??;
    let Some(first) = first else { return Ok(()) };
    let (node, request) = M::read(first);
    let node = node.ok_or_else(|| Status::invalid_argument("the first request must say the node"))?.map_err(refuse)?;
    if node.scope.id.is_empty() {
        return Err(Status::invalid_argument("node.id must not be empty"));
    }
    let source = &*shared.source;
    let mut signal = source.watch();
    let mut drain = shared.drain.clone();
    let mut machine = M::open(node.scope.clone(), source.position());
    tracing::info!(node = %node.scope.id, role = %node.scope.role, dialect = %M::DIALECT, "node connected");
    let presence = shared.registry.enter(node, M::DIALECT, clock::wall());
    take(&mut machine, request, source)?;
    let mut pending = None;
    let mut hold = None;
    let mut heard = None;
    loop {
        if pending.is_none() {
            pending = machine.response(source, hold.is_some());
        }
        presence.update(machine.held(), machine.nacks(), heard.take());
        tokio::select! {
            permit = out.reserve(), if pending.is_some() => {
                let Ok(permit) = permit else { return Ok(()) };
                if let Some(response) = pending.take() {
                    permit.send(Ok(M::write(response)));
                }
            }
            message = inbound.message() => {
                let Some(message) = message? else { return Ok(()) };
                heard = Some(clock::wall());
                take(&mut machine, M::read(message).1, source)?;
            }
            changed = signal.changed() => {
                changed.map_err(|_| stopping())?;
                machine.changes(source.changed_since(machine.position()), source);
                hold = hold.or_else(|| Some(clock::now() + COALESCE));
            }
            () = sleep_until(hold.unwrap_or_else(clock::now)), if hold.is_some() => hold = None,
            () = drain.draining() => return Err(stopping()),
            () = out.closed() => return Ok(()),
        }
    }
}

fn stopping() -> Status {
    Status::unavailable("the control plane is stopping")
}

/// Gives a request to the machine. A type that we do not serve is no reason to end the stream; too much of something is.
fn take<M: Speak>(machine: &mut M, request: Result<M::Request, BadRequest>, source: &dyn SnapshotSource) -> Result<(), Status> {
    match request {
        Ok(request) => machine.request(request, source, clock::wall()).map_err(refuse)?,
        Err(error @ BadRequest::UnknownType(_)) => tracing::debug!(%error, "discovery request ignored"),
        Err(error) => return Err(refuse(error)),
    }
    Ok(())
}

fn refuse(error: BadRequest) -> Status {
    Status::resource_exhausted(error.to_string())
}
