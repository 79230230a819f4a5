//! One stream of bundles: tells them at once and whenever they change, and notes what the node confirms. It knows no certificate.

use std::pin::Pin;
use std::time::{Duration, SystemTime};

use futures_util::Stream;
use heddle_node::clock;
use heddle_node::drain::DrainWatch;
use heddle_proto::heddle::identity::v1 as api;
use heddle_xds::server::Elsewhere;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{bundles, now};
use crate::ca::{Authority, Holder, PeerRefusal, Seat};

/// Until the first request.
const FIRST: Duration = Duration::from_secs(15);
/// Bundles on their way; a slow reader is told the newest ones later.
const OUTBOX: usize = 1;
/// Bytes of what a node says of itself.
const MAX_TEXT: usize = 128;
/// Refusals that a node tells of at once.
const MOST_REPORTS: usize = 20;

type Responses = Pin<Box<dyn Stream<Item = Result<api::WatchBundlesResponse, Status>> + Send>>;

/// When streams end that nobody else ends.
pub(super) struct Ends {
    pub(super) elsewhere: Option<Elsewhere>,
    pub(super) drain: DrainWatch,
}

impl Ends {
    /// Ready, with the reason, when a stream is to end.
    async fn come(&mut self) -> Status {
        let sent = async {
            if let Some(elsewhere) = &mut self.elsewhere
                && elsewhere.changed().await.is_ok()
            {
                return;
            }
            std::future::pending().await
        };
        tokio::select! {
            () = sent => Status::unavailable("this control plane is cut off from its store; connect to another one"),
            () = self.drain.draining() => Status::unavailable("the control plane is stopping"),
        }
    }
}

/// Begins a stream.
pub(super) fn start(
    authority: Authority,
    id: String,
    requests: Streaming<api::WatchBundlesRequest>,
    mut ends: Ends,
) -> Responses {
    ends.elsewhere.iter_mut().for_each(Elsewhere::mark_unchanged);
    let (sender, receiver) = mpsc::channel(OUTBOX);
    tokio::spawn(async move {
        if let Err(status) = converse(authority, id, requests, &sender, ends).await {
            // Whoever is gone does not get to know.
            let _ = sender.send(Err(status)).await;
        }
    });
    Box::pin(ReceiverStream::new(receiver))
}

async fn converse(
    authority: Authority,
    id: String,
    mut requests: Streaming<api::WatchBundlesRequest>,
    sender: &mpsc::Sender<Result<api::WatchBundlesResponse, Status>>,
    mut ends: Ends,
) -> Result<(), Status> {
    let first = timeout(FIRST, requests.message()).await.map_err(|_| Status::deadline_exceeded("no request came in time"))??;
    let Some(first) = first else { return Ok(()) };
    let holder = Holder { node: short(first.node), spiffe_id: id, version: short(first.held_version), ..Holder::default() };
    let reporter = (holder.node.clone(), holder.spiffe_id.clone());
    let mut told = holder.version.clone();
    let seat = authority.holders().enter(holder).ok_or_else(|| Status::resource_exhausted("too many nodes are connected"))?;
    stands(&seat, first.clock_skew_ms, first.not_after);
    let mut trusted = authority.trusted();
    loop {
        let present = trusted.borrow_and_update().clone();
        let fresh = *present.version != told;
        tokio::select! {
            permit = sender.reserve(), if fresh => {
                let Ok(permit) = permit else { return Ok(()) };
                permit.send(Ok(api::WatchBundlesResponse { bundles: Some(bundles(&present)), server_time: Some(now(&authority)) }));
                told = present.version.to_string();
            }
            changed = trusted.changed(), if !fresh => changed.map_err(|_| Status::unavailable("the authority has ended"))?,
            request = requests.message() => match request? {
                Some(request) => {
                    seat.holds(&short(request.held_version));
                    stands(&seat, request.clock_skew_ms, request.not_after);
                    // Nobody is believed who has not proven who it is.
                    let is_known = !reporter.1.is_empty();
                    let (refused, left_out) = (reports(request.refused), request.left_out);
                    if is_known {
                        authority.reported(&reporter.0, &reporter.1, refused, left_out).await;
                    }
                }
                None => return Ok(()),
            },
            why = ends.come() => return Err(why),
            () = sender.closed() => return Ok(()),
        }
    }
}

fn stands(seat: &Seat, clock_skew_ms: Option<i64>, not_after: Option<prost_types::Timestamp>) {
    let not_after = not_after.and_then(|at| SystemTime::try_from(at).ok()).map(clock::unix_ms_of);
    seat.stands(clock_skew_ms, not_after);
}

/// What a node says of peers that it has refused, as far as it may say it at once.
fn reports(refused: Vec<api::RefusedPeer>) -> Vec<PeerRefusal> {
    let report = |peer: api::RefusedPeer| PeerRefusal {
        reason: short(peer.reason),
        peer: short(peer.peer),
        subject: peer.subject,
        detail: peer.detail,
        count: peer.count,
    };
    refused.into_iter().take(MOST_REPORTS).map(report).collect()
}

fn short(text: String) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(MAX_TEXT).collect()
}
