//! One discovery stream: moves messages between gRPC, a machine and the snapshot. It decides nothing about xDS itself.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use heddle_node::clock;
use heddle_node::drain::DrainWatch;
use heddle_node::identity::SpiffeId;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{sleep, sleep_until, timeout};
use tonic::{Status, Streaming};

use super::body::Packet;
use super::memo::Memo;
use super::pace::{Entrance, Telling, Work};
use super::registry::{Presence, inspect};
use super::rollout::Place;
use super::service::{Alike, Elsewhere, Gate, Scene, Scenes};
use super::stage::Seat;
use super::{Machine, NodeRegistry};
use crate::dialect::envoy::encode::{self, Gap, Ledger, Member, Reader};
use crate::link::Peer;
use crate::model::Kind;
use crate::protocol::wire::Incoming;
use crate::protocol::{BadRequest, Dialect, MAX_RESPONSE, NodeInfo, Types};
use crate::snapshot::{NodeScope, SIDECAR, SnapshotFeed, SnapshotSource, View};

/// Until the first request of a stream.
pub(super) const FIRST_REQUEST: Duration = Duration::from_secs(15);
/// Until the client has read why its stream ends.
const LAST_WORD: Duration = Duration::from_secs(5);
/// The part of what is left of a certificate's life in which its stream ends, at random, so that those who joined together do not come back together.
const LAST_PART: f64 = 0.1;

/// Within which time the streams end that are sent elsewhere, at random, so that nodes do not all come at once where they go.
const SPREAD: Duration = Duration::from_secs(3);
/// Characters of a foreign type that are told.
const MOST_SHOWN: usize = 200;

/// A machine that speaks a dialect over gRPC.
pub(super) trait Speak: Machine + Sized {
    /// Protobuf of a request.
    type In: prost::Message + Default + Send + 'static;
    /// The dialect.
    const DIALECT: Dialect;
    /// A new stream of a node that speaks these types.
    fn open(scope: NodeScope, types: Types, position: u64) -> Self;
    /// Whose types a node speaks that begins so, and whether its program is ours.
    fn spoken(message: &Self::In) -> (Types, bool);
    /// The type that a request is about.
    fn type_of(message: &mut Self::In) -> &mut String;
    /// Whether who begins with this request has a configuration already.
    fn holds(request: &Self::Request) -> bool;
    /// Reads a request.
    fn read(message: Self::In, types: Types) -> Incoming<Self::Request>;
    /// Says that more of the same view follows: the client then applies all of it at once.
    fn more_follows(response: &mut Self::Response);
    /// Writes a response; what others are told too is taken from the memo.
    fn write(response: Self::Response, types: Types, memo: &Memo) -> Packet;
}

/// What all streams share.
#[derive(Clone)]
pub(super) struct Shared {
    /// What nodes are told that speak our types.
    pub(super) ours: Scene,
    /// The same for Envoy's types, and for those of them that gRPC knows.
    pub(super) foreign: Scenes,
    /// What they are given in the place of routes that are withheld.
    pub(super) gap: Gap,
    /// How long the nodes of a group wait for their canary; `None`: there are no canaries.
    pub(super) canaries: Option<Duration>,
    pub(super) registry: Arc<NodeRegistry>,
    pub(super) entrance: Arc<Entrance>,
    pub(super) elsewhere: Elsewhere,
    pub(super) drain: DrainWatch,
}

impl Shared {
    /// All that nodes of any kind are told by, as far as it was needed until now.
    pub(super) fn feeds(&self) -> Vec<Arc<dyn SnapshotFeed>> {
        std::iter::once(self.ours.feed.clone()).chain(self.foreign.feeds()).collect()
    }

    /// What a node is told, and as whom it looks at that.
    async fn scene(&self, terms: &Terms, types: Types, node: &NodeInfo) -> Result<(Scene, NodeScope), Status> {
        let beside = *node.scope.role == *SIDECAR;
        let reader = match types {
            Types::Heddle => return Ok((self.ours.clone(), node.scope.clone())),
            Types::Envoy if beside => return self.beside(terms, node),
            Types::Envoy if node.scope.translates => Reader::Agent,
            Types::Envoy => Reader::Envoy,
            Types::Grpc => Reader::Grpc,
        };
        // A client or server of gRPC beside nobody is a service of the mesh itself.
        if beside {
            proven(terms, node)?;
        }
        let members = beside || node.station.identity;
        let alike = Alike { reader, members, services: beside, zone: Some(node.scope.zone.clone()) };
        let (scene, zoneless) = self.foreign.get((alike, terms.is_proven()), &self.ours, (self.gap, &self.drain)).await;
        Ok((scene, NodeScope { alone: node.scope.alone || beside, zoneless, ..node.scope.clone() }))
    }

    /// Where a stream of a node looks. Those who have an identity of the mesh by others are no group: what they are given differs from one to the other.
    fn place(
        &self,
        scene: &Scene,
        (types, terms): (Types, &Terms),
        (scope, holds): (&NodeScope, bool),
        node: &NodeInfo,
    ) -> Place {
        // Workloads are many hands: what one of them refuses must not keep the policies of another one's from it.
        let grouped = !node.is_apart(types) && *node.scope.role != *SIDECAR;
        let wait = self.canaries.filter(|_| grouped);
        let scoped = (scope, holds);
        let place = |wait| self.registry.rollouts().place((types, scoped, terms.is_proven()), &scene.feed, wait, &self.drain);
        wait.and_then(place).unwrap_or_else(|| Place::whole(scene.feed.clone(), &scene.house, scene.work.clone(), scope))
    }

    /// What an Envoy beside an application is told, of which there is one for each.
    fn beside(&self, terms: &Terms, node: &NodeInfo) -> Result<(Scene, NodeScope), Status> {
        let id = proven(terms, node)?;
        let who = Member {
            scope: node.scope.clone(),
            domain: id.trust_domain().as_str().into(),
            instance: node.instance.clone(),
            station: node.station.clone(),
        };
        let ledger = Ledger::default();
        let feed = encode::follow_one(who, self.ours.feed.clone(), ledger.clone(), self.drain.clone());
        let scene = Scene::of((feed, true), ledger, self.drain.clone());
        Ok((scene, NodeScope { alone: true, ..node.scope.clone() }))
    }
}

/// Who a node is that says it is a service of the mesh: what its certificate says, never what it says itself.
fn proven<'a>(terms: &'a Terms, node: &NodeInfo) -> Result<&'a SpiffeId, Status> {
    let id = terms.gate.as_ref().and_then(|(_, peer)| peer.id()).filter(|_| !node.scope.service.is_empty());
    id.ok_or_else(|| {
        let told = "a service of the mesh has to show its certificate: connect with TLS, as the identity of the service";
        Status::unauthenticated(told)
    })
}

/// The way to the body of the answer.
pub(super) type Out = mpsc::Sender<Result<Packet, Status>>;

/// On which terms a stream is opened.
pub(super) struct Terms {
    /// Who judges the node, by what.
    pub(super) gate: Option<(Gate, Peer)>,
    /// The one kind that it may be about, of a service that is for one type.
    pub(super) only: Option<Kind>,
}

impl Terms {
    /// Whether the node has shown who it is.
    fn is_proven(&self) -> bool {
        self.gate.as_ref().is_some_and(|(_, peer)| peer.id().is_some())
    }

    /// The type of a request, which need not be said where there is one only.
    fn of_type(&self, url: &mut String) -> Result<(), Status> {
        let Some(only) = self.only else { return Ok(()) };
        let expected = Types::Envoy.url(only);
        if url.is_empty() {
            expected.clone_into(url);
        }
        if url == expected {
            return Ok(());
        }
        let url: String = url.chars().take(MOST_SHOWN).collect();
        Err(Status::invalid_argument(format!(
            "this service is for {expected}, found {url}: ask the one of that type, or the aggregated one"
        )))
    }
}

/// Runs a stream until either side ends it.
pub(super) async fn run<M: Speak>(shared: Shared, terms: Terms, inbound: Streaming<M::In>, out: Out) {
    if let Err(status) = converse::<M>(&shared, terms, inbound, &out).await {
        tracing::debug!(dialect = %M::DIALECT, %status, "discovery stream ended");
        // The client may be gone, or not read; then nobody gets to know.
        let _ = out.send_timeout(Err(status), LAST_WORD).await;
    }
}

async fn converse<M: Speak>(shared: &Shared, terms: Terms, mut inbound: Streaming<M::In>, out: &Out) -> Result<(), Status> {
    let good_until = terms.gate.as_ref().and_then(|(_, peer)| peer.good_until());
    let mut over = pin!(over(life(good_until, clock::wall(), fastrand::f64())?, shared));
    let Some((mut node, types, request)) = introduced::<M>(&terms, &mut inbound).await? else { return Ok(()) };
    if !entered(shared, &mut shared.drain.clone(), out).await? {
        return Ok(());
    }
    let (scene, scope) = shared.scene(&terms, types, &node).await?;
    node.scope.zoneless = scope.zoneless;
    let place = shared.place(&scene, (types, &terms), (&scope, request.as_ref().is_ok_and(M::holds)), &node);
    let Some((mut place, mut view)) = begun(place, &mut shared.drain.clone(), out).await? else { return Ok(()) };
    let mut machine = M::open(scope, types, view.position());
    let mut presence = present::<M>(shared, node, types, &scene);
    take(&mut machine, request, &*view)?;
    let (mut pending, mut ahead, mut heard, mut wants) = (None, Ahead::default(), None, listen(&machine, place.seat()));
    loop {
        if pending.is_none() {
            pending = speak(&mut machine, &mut ahead, &view, (types, &scene.memo, &place.work), out)?;
        }
        // A view that is being told is told to its end first, and answered where it must be.
        let next_view = ahead.response.is_none() && machine.is_free();
        if wants && next_view {
            (wants, view) = (false, place.seat().view());
            machine.changes(place.changes(machine.position(), &view), &*view);
            continue;
        }
        presence.update(&mut machine, place.stage(), heard.take());
        place.report(&machine);
        let late = presence.late_until();
        tokio::select! {
            permit = out.reserve(), if pending.is_some() => match (permit, pending.take()) {
                (Ok(permit), Some(packet)) => permit.send(Ok(packet)),
                _ => return Ok(()),
            },
            message = inbound.message() => {
                let Some(mut message) = message? else { return Ok(()) };
                terms.of_type(M::type_of(&mut message))?;
                heard = Some(clock::wall());
                let (said, request) = M::read(message, types);
                if let Some(Ok(said)) = said {
                    presence.instance(said.instance, clock::now());
                }
                take(&mut machine, request, &*view)?;
                wants |= listen(&machine, place.seat());
            }
            next = place.next(), if next_view => {
                (view, ahead.telling) = next.ok_or_else(stopping)?;
                wants |= place.is_new() && listen(&machine, place.seat());
                machine.changes(place.changes(machine.position(), &view), &*view);
            }
            Some(ask) = presence.asked() => wants |= inspect::answer(&mut machine, &view, ask),
            () = sleep_until(late.unwrap_or_else(clock::now)), if late.is_some() => presence.catch_up(clock::now()),
            (awaited, why) = over.as_mut() => {
                presence.expect_back(awaited);
                return Err(why);
            }
            () = out.closed() => return Ok(()),
        }
    }
}

/// Says that a node is here, and what it is not given.
fn present<M: Speak>(shared: &Shared, node: NodeInfo, types: Types, scene: &Scene) -> Presence {
    tracing::info!(node = %node.scope.id, role = %node.scope.role, dialect = %M::DIALECT, types = types.as_str(), "node connected");
    let mut presence = shared.registry.enter(node, M::DIALECT, (clock::wall(), clock::now()));
    presence.speaks(types, &scene.ledger);
    presence
}

/// Ready when a stream that begins now is to end from here, within its `life` at the latest: whether its node is expected back, and why.
pub(super) fn over(life: Option<Duration>, shared: &Shared) -> impl Future<Output = (bool, Status)> + use<> {
    let (mut elsewhere, mut drain) = (shared.elsewhere.clone(), shared.drain.clone());
    elsewhere.mark_unchanged();
    let sent = sent(elsewhere, fastrand::f64());
    async move {
        tokio::select! {
            () = after(life) => (true, Status::unavailable("the certificate of this connection is about to expire; connect anew")),
            () = sent => (true, Status::unavailable("this control plane is cut off from its store; connect to another one")),
            () = drain.draining() => (false, stopping()),
        }
    }
}

/// Ready when this stream is to end because nodes are sent elsewhere, where `roll`, between zero and one, says.
async fn sent(mut elsewhere: Elsewhere, roll: f64) {
    if elsewhere.changed().await.is_err() {
        // Nobody sends anybody anywhere.
        std::future::pending::<()>().await;
    }
    sleep(SPREAD.mul_f64(roll)).await;
}

/// Hears who speaks, and lets them in. `None` when nobody has said anything.
async fn introduced<M: Speak>(
    terms: &Terms,
    inbound: &mut Streaming<M::In>,
) -> Result<Option<(NodeInfo, Types, Result<M::Request, BadRequest>)>, Status> {
    let first = timeout(FIRST_REQUEST, inbound.message());
    let first = first.await.map_err(|_| Status::deadline_exceeded("no request came in time"))??;
    let Some(mut first) = first else { return Ok(None) };
    terms.of_type(M::type_of(&mut first))?;
    let (types, ours) = M::spoken(&first);
    let (node, request) = M::read(first, types);
    let mut node = node.ok_or_else(|| Status::invalid_argument("the first request must say the node"))?.map_err(refuse)?;
    node.scope.translates = ours && types == Types::Envoy;
    if node.scope.id.is_empty() {
        return Err(Status::invalid_argument("node.id must not be empty"));
    }
    if let Some((gate, peer)) = &terms.gate {
        gate(peer, &mut node)?;
    }
    Ok(Some((node, types, request)))
}

/// Waits for its turn when many come at once. Only who was let in takes a place, so that strangers take none away. `false`: it has gone meanwhile.
async fn entered(shared: &Shared, drain: &mut DrainWatch, out: &Out) -> Result<bool, Status> {
    let Some(wait) = shared.entrance.enter(clock::now()) else {
        return Err(Status::unavailable("very many nodes come at this moment; try again, or another control plane"));
    };
    tokio::select! {
        biased;
        () = sleep(wait) => Ok(true),
        () = drain.draining() => Err(stopping()),
        () = out.closed() => Ok(false),
    }
}

/// Waits until a node may be told what is there, and shows that. `None`: it has gone meanwhile.
async fn begun(mut place: Place, drain: &mut DrainWatch, out: &Out) -> Result<Option<(Place, Arc<View>)>, Status> {
    tokio::select! {
        biased;
        () = place.begin() => {}
        () = drain.draining() => return Err(stopping()),
        () = out.closed() => return Ok(None),
    }
    let view = place.seat().view();
    Ok(Some((place, view)))
}

/// How long a stream may last whose client is believed `until` then: it ends in the last part of that, where `roll`, between zero and one, says.
/// An agent has renewed its identity long before, and comes back with the new one.
pub(super) fn life(until: Option<SystemTime>, now: SystemTime, roll: f64) -> Result<Option<Duration>, Status> {
    let Some(until) = until else { return Ok(None) };
    match until.duration_since(now) {
        Ok(left) if !left.is_zero() => Ok(Some(left.mul_f64(1.0 - LAST_PART * roll.clamp(0.0, 1.0)))),
        _ => Err(Status::unauthenticated("the certificate of this connection has expired; connect anew")),
    }
}

/// Ready after that long; never, when nothing is said.
async fn after(life: Option<Duration>) {
    match life {
        Some(life) => sleep(life).await,
        None => std::future::pending().await,
    }
}

/// Lets the house know what a sidecar asks for; whether that is more than before: for that it was not called so far.
fn listen<M: Machine>(machine: &M, seat: &mut Seat) -> bool {
    let asked = |kind: Kind| {
        let (all, names) = machine.asked(kind);
        seat.listen(kind, all, names)
    };
    // All of them: each is to be noted.
    seat.is_sidecar() && Kind::ALL.into_iter().filter(|kind| asked(*kind)).count() > 0
}

/// What is said next, made before its turn, and the work for the view that it belongs to.
struct Ahead<R> {
    response: Option<R>,
    telling: Option<Telling>,
}

impl<R> Default for Ahead<R> {
    fn default() -> Ahead<R> {
        Ahead { response: None, telling: None }
    }
}

/// Says everything that is due. What there is no room for is given back, and is to be said before anything else; what is said next is made before it, for
/// each response tells whether more of the view follows. With the last one goes the word that the view is told.
fn speak<M: Speak>(
    machine: &mut M,
    ahead: &mut Ahead<M::Response>,
    view: &View,
    (types, memo, work): (Types, &Memo, &Work),
    out: &Out,
) -> Result<Option<Packet>, Status> {
    while let Some(mut response) = ahead.response.take().or_else(|| machine.response(view)) {
        ahead.response = machine.response(view);
        if ahead.response.is_some() && types == Types::Heddle {
            M::more_follows(&mut response);
        }
        let telling = ahead.telling.take_if(|_| ahead.response.is_none());
        let packet = Packet { work: Some(work.clone()), telling, ..M::write(response, types, memo) };
        if packet.len() > MAX_RESPONSE {
            let (found, most) = (packet.len(), MAX_RESPONSE);
            // No word of having asked too much, of which clients without a configuration make a noise; they are to come again, it may be less then.
            return Err(Status::unavailable(format!(
                "a response has {found} bytes, at most {most} are sent; delta tells each resource by itself"
            )));
        }
        match out.try_send(Ok(packet)) {
            Ok(()) => {}
            Err(TrySendError::Full(unsent)) => return unsent.map(Some),
            // Nobody reads any more, which ends the stream where it waits.
            Err(TrySendError::Closed(_)) => return Ok(None),
        }
    }
    // Nothing of the view concerned this node.
    ahead.telling = None;
    Ok(None)
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
    Status::invalid_argument(error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_stream_ends_before_the_certificate_that_it_came_with() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let in_seconds = |seconds: u64| Some(now + Duration::from_secs(seconds));
        assert_eq!(life(None, now, 0.5).unwrap(), None, "cleartext, and parts of this process");
        assert_eq!(life(in_seconds(100), now, 0.0).unwrap(), Some(Duration::from_secs(100)));
        assert_eq!(life(in_seconds(100), now, 1.0).unwrap(), Some(Duration::from_secs(90)));
        assert_eq!(life(in_seconds(0), now, 0.0).unwrap_err().code(), tonic::Code::Unauthenticated);
        assert!(life(Some(now - Duration::from_secs(1)), now, 0.0).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_in_a_crowd_waits_or_goes_elsewhere_and_is_not_told_that_it_asks_for_too_much() {
        use crate::server::AdsService;
        use crate::snapshot::SnapshotStore;
        let (drain, watch) = heddle_node::drain::pair();
        let shared = AdsService::new(Arc::new(SnapshotStore::new()), Arc::new(NodeRegistry::new()), watch.clone()).shared;
        let (out, _reader) = mpsc::channel(1);
        let crowd = |count: usize| (0..count).filter(|_| shared.entrance.enter(clock::now()).is_some()).count();
        assert_eq!(crowd(1_000), 1_000);
        let start = clock::now();
        assert!(entered(&shared, &mut watch.clone(), &out).await.unwrap());
        assert!(clock::now() - start > Duration::from_secs(2), "it has waited for its turn");
        crowd(10_000);
        assert_eq!(entered(&shared, &mut watch.clone(), &out).await.unwrap_err().code(), tonic::Code::Unavailable);
        drop(drain);
    }
}
