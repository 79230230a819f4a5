//! What a delta stream is owed: subscriptions, versions sent, ACKs and NACKs. It knows neither gRPC nor time.
//!
//! Rules of the public protocol description ("incremental xDS"): a first request without names means all; names that do not exist are
//! answered in `removed_resources` at once; asking again for a name resends it; leaving a name while subscribed to all is answered with
//! its present state; nonces that are not the newest are normal.

mod subscription;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use self::subscription::{InFlight, Subscription};
use super::refused::{Leads, MAX_WAITING, Stands, Taken};
use super::sent::Sent;
use super::{KindView, Machine, Nack, ResourceView};
use crate::model::Kind;
use crate::protocol::{BadRequest, DeltaRequest, DeltaResponse, MAX_NAMES, RawResource, Types, WILDCARD};
use crate::snapshot::{Changes, NodeScope, SnapshotSource, Versioned};

/// A response is closed when it holds more than this; with one large resource it still fits a gRPC message of 16 MiB.
const CHUNK: usize = 1024 * 1024;
/// Responses of one kind that may wait for their answer before further changes are looked at. What has begun is told to its end, however long it is.
const MAX_IN_FLIGHT: usize = 64;
/// Responses of one kind that may wait for their answer at all: a client that asks on and never answers is left.
const MAX_UNANSWERED: usize = 4_096;

/// The state of one delta stream.
#[derive(Debug)]
pub struct DeltaMachine {
    scope: NodeScope,
    types: Types,
    position: u64,
    nonce: u64,
    kinds: [Subscription; Kind::ALL.len()],
    /// How the client stands to what it asked for by other streams.
    others: Stands,
    /// The client has answered to something.
    heard: bool,
    /// Clusters that were told before endpoints were asked for: they wait for those, whatever version of them the client says that it has.
    warming: HashSet<Arc<str>>,
    /// Clusters that the client had and has answered to in a newer version, by a stream that is not about endpoints.
    taken: Vec<Arc<str>>,
}

impl DeltaMachine {
    /// A new stream of a node that begins at a position of the source (taken before anything is read from it).
    pub fn new(scope: NodeScope, position: u64) -> DeltaMachine {
        DeltaMachine {
            scope,
            types: Types::Heddle,
            position,
            nonce: 0,
            kinds: Default::default(),
            others: Stands::default(),
            heard: false,
            warming: HashSet::new(),
            taken: Vec::new(),
        }
    }

    /// The same, to a node that speaks these types.
    pub fn speaking(self, types: Types) -> DeltaMachine {
        DeltaMachine { types, ..self }
    }

    /// Everything that is to be set, dependencies first.
    fn next_set(&mut self, kind: Kind, source: &dyn SnapshotSource) -> Option<DeltaResponse> {
        let type_url: Arc<str> = self.types.url(kind).into();
        let state = &mut self.kinds[kind.index()];
        let (mut resources, mut removed, mut anew, mut size) = (Vec::new(), Vec::new(), Vec::new(), 0);
        let mut send = |found: &Versioned, size: &mut usize| {
            let name = found.resource.name().clone();
            *size += name.len() + found.body.len() + 64;
            let (version, body) = (found.version.clone(), found.body.clone());
            resources.push(RawResource { name, version, type_url: type_url.clone(), body });
        };
        state.sent.go_on(&state.dirty, &self.scope, |found| {
            send(found, &mut size);
            size < CHUNK
        });
        while size < CHUNK
            && let Some(name) = state.dirty.pop_first()
        {
            let asked = state.asked.remove(&name);
            match source.get(kind, &name, &self.scope) {
                Some(found) => {
                    state.gone.remove(&name);
                    state.left.remove(&name);
                    let had = state.sent.get(&name, &self.scope);
                    if had != Some(&found.version) {
                        anew.extend(had.map(|_| name.clone()));
                        state.sent.set(name, found.version.clone(), &self.scope);
                        send(&found, &mut size);
                    }
                }
                None if state.vanishes((kind, &name), asked, (source, self.position), &self.scope) => {
                    size += name.len() + 16;
                    removed.push(name);
                }
                None => {}
            }
        }
        state.settle(kind, self.position, (source, &self.scope));
        if resources.is_empty() && removed.is_empty() && !state.answer {
            return None;
        }
        state.answer = false;
        if kind == Kind::Upstream && self.types == Types::Envoy {
            self.tell_endpoints_again(&resources);
        }
        Some(self.seal(kind, source.position(), resources, removed, anew))
    }

    /// A cluster that changes waits for its endpoints anew, but Envoy does not ask for them again: they are owed even when they are the same. Without
    /// them it waits for 15 s (envoy#13009).
    fn tell_endpoints_again(&mut self, clusters: &[RawResource]) {
        let endpoints = &mut self.kinds[Kind::Endpoints.index()];
        if !endpoints.open {
            self.warming.extend(clusters.iter().map(|cluster| cluster.name.clone()));
            return;
        }
        for cluster in clusters {
            if !endpoints.wants(&cluster.name) {
                continue;
            }
            endpoints.sent.forget_version(&cluster.name, &self.scope);
            endpoints.dirty.insert(cluster.name.clone());
        }
    }

    /// The same for a stream that is about endpoints alone: the cluster changes on another one. Where that stream is another server's, nothing says when the
    /// client has taken the cluster, and this is all that can be done; else they are told once more when it has.
    fn tell_elsewhere(&mut self, kind: Kind, name: &Arc<str>) {
        let elsewhere = self.are_clusters_elsewhere();
        let endpoints = &mut self.kinds[Kind::Endpoints.index()];
        if kind == Kind::Upstream && elsewhere && endpoints.wants(name) {
            endpoints.sent.forget_version(name, &self.scope);
            endpoints.dirty.insert(name.clone());
        }
    }

    fn are_clusters_elsewhere(&self) -> bool {
        self.types == Types::Envoy && !self.kinds[Kind::Upstream.index()].open
    }

    /// Envoy takes new routes at once but new clusters only when it has their endpoints, so routes that it has already change after those are confirmed.
    fn must_wait(&self, kind: Kind) -> bool {
        let [clusters, endpoints, routes] = [Kind::Upstream, Kind::Endpoints, Kind::Route].map(|kind| &self.kinds[kind.index()]);
        let under_way = !clusters.in_flight.is_empty() || !endpoints.in_flight.is_empty() || self.clusters_wait_elsewhere();
        self.types == Types::Envoy && kind == Kind::Route && under_way && routes.sent.count() > 0
    }

    /// How far the client is with what may lead to that which is gone of a kind; what is gone stays until then. Who speaks our types is told a view in
    /// one go.
    fn leads(&self, kind: Kind) -> Leads {
        let mut leading =
            Kind::ALL.into_iter().zip(&self.kinds).filter(|(other, _)| Leads::are(*other, kind)).map(|(_, state)| state);
        if self.types == Types::Heddle {
            return if leading.any(|state| !state.left.is_empty()) { Leads::Refused } else { Leads::TAKEN };
        }
        // Who comes back asks for one kind after the other, and for all of them before it has answered.
        let comes_back = !self.heard && self.kinds.iter().any(|state| !state.in_flight.is_empty());
        let leads = leading.filter(|state| state.open).map(Subscription::stands).min().unwrap_or(Leads::TAKEN);
        leads.min(if comes_back { Leads::UnderWay } else { Leads::TAKEN }).min(self.leads_elsewhere(kind))
    }

    /// Whether other streams of the client have clusters under way to it that the view has which this one is at.
    fn clusters_wait_elsewhere(&self) -> bool {
        self.others.are_clusters_under_way(self.position, |kind| self.kinds[kind.index()].open)
    }

    /// How far it is with what leads there and comes by other streams.
    fn leads_elsewhere(&self, kind: Kind) -> Leads {
        self.others.leads((kind, self.kinds[kind.index()].gone.len()), |other| self.kinds[other.index()].open)
    }

    /// Whether something of a kind is still to be sent; what stays is not.
    fn owes(&self, kind: Kind) -> bool {
        let state = &self.kinds[kind.index()];
        state.tells() || !state.gone.is_empty() && self.leads(kind) != Leads::Refused
    }

    /// Everything that is to be removed, dependents first.
    fn next_removal(&mut self, kind: Kind, source: &dyn SnapshotSource) -> Option<DeltaResponse> {
        let leads = self.leads(kind);
        let state = &mut self.kinds[kind.index()];
        let (mut removed, mut size) = (Vec::new(), 0);
        while size < CHUNK
            && let Some(name) = state.gone.pop(leads)
        {
            if source.get(kind, &name, &self.scope).is_some() {
                state.dirty.insert(name);
            } else if state.sent.remove(&name, &self.scope) {
                size += name.len() + 16;
                removed.push(name);
            }
        }
        state.settle(kind, self.position, (source, &self.scope));
        if removed.is_empty() {
            if !state.tells() {
                state.told(self.position);
            }
            return None;
        }
        Some(self.seal(kind, source.position(), Vec::new(), removed, Vec::new()))
    }

    fn seal(
        &mut self,
        kind: Kind,
        position: u64,
        resources: Vec<RawResource>,
        removed: Vec<Arc<str>>,
        anew: Vec<Arc<str>>,
    ) -> DeltaResponse {
        if kind == Kind::Upstream {
            self.warming.retain(|name| !removed.contains(name));
        }
        self.nonce += 1;
        let nonce: Arc<str> = self.nonce.to_string().into();
        let version: Arc<str> = position.to_string().into();
        let set = resources.iter().map(|resource| (resource.name.clone(), resource.version.clone()));
        let names = set.chain(removed.iter().map(|name| (name.clone(), Arc::default()))).collect();
        let flight = InFlight { number: self.nonce, nonce: nonce.clone(), version: version.clone(), names, anew };
        self.kinds[kind.index()].in_flight.push_back(flight);
        DeltaResponse { kind, version, nonce, resources, removed }
    }
}

impl Machine for DeltaMachine {
    type Request = DeltaRequest;
    type Response = DeltaResponse;

    fn request(&mut self, request: DeltaRequest, source: &dyn SnapshotSource, now: SystemTime) -> Result<(), BadRequest> {
        let is_apart = request.kind == Kind::Endpoints && self.are_clusters_elsewhere();
        let state = &mut self.kinds[request.kind.index()];
        self.heard |= !request.nonce.is_empty();
        let anew = state.answered(&request, now);
        if request.error.is_some() {
            state.refused.explain(|name| source.get(request.kind, name, &self.scope)?.history.clone());
        }
        let first = !std::mem::replace(&mut state.open, true);
        let starred = request.subscribe.iter().any(|name| &**name == WILDCARD);
        let all = starred || (first && request.subscribe.is_empty());
        if first {
            let asked: HashSet<&Arc<str>> = request.subscribe.iter().collect();
            let warming = if request.kind == Kind::Endpoints { std::mem::take(&mut self.warming) } else { HashSet::new() };
            // Which of the clusters that come by another stream wait for them, an Envoy does not say.
            state.refused.take(request.initial.iter());
            let held = |name: &Arc<str>| (all || asked.contains(name)) && !is_apart && !warming.contains(name);
            state.taken = Taken::default();
            state.sent = Sent::told(request.initial.into_iter().filter(|(name, _)| held(name)));
        }
        if all {
            state.wildcard = true;
            state.answer = true;
            if first && state.sent.count() == 0 {
                state.sent.begin(source.all(request.kind).1);
            } else {
                if !first {
                    state.sent.forget_versions(&self.scope);
                }
                state.look_at_all(request.kind, source, &self.scope);
            }
        }
        for name in request.subscribe {
            if &*name != WILDCARD {
                state.subscribe(name, first, &self.scope);
            }
        }
        for name in &request.unsubscribe {
            if &**name != WILDCARD {
                state.unsubscribe(name, &self.scope);
            } else if state.wildcard {
                state.leave_wildcard(&self.scope);
            }
        }
        if request.kind == Kind::Upstream && self.types == Types::Envoy && !self.kinds[Kind::Endpoints.index()].open {
            self.taken.extend(anew);
        }
        let state = &self.kinds[request.kind.index()];
        if state.names.len() > MAX_NAMES {
            return Err(BadRequest::TooMuch { what: "the subscription", found: state.names.len(), most: MAX_NAMES });
        }
        if state.in_flight.len() > MAX_UNANSWERED {
            let found = state.in_flight.len();
            return Err(BadRequest::TooMuch { what: "what waits for its answer", found, most: MAX_UNANSWERED });
        }
        Ok(())
    }

    fn changes(&mut self, changes: Changes, source: &dyn SnapshotSource) {
        self.position = changes.position;
        match changes.names {
            Some(names) => {
                for (kind, name) in names {
                    self.tell_elsewhere(kind, &name);
                    let state = &mut self.kinds[kind.index()];
                    if state.wants(&name) {
                        state.dirty.insert(name);
                    }
                }
            }
            None => {
                for kind in Kind::ALL {
                    let state = &mut self.kinds[kind.index()];
                    if state.open {
                        state.look_at_all(kind, source, &self.scope);
                    }
                }
            }
        }
    }

    /// To an Envoy a view is told whole before the next while endpoints are all that this waits for, or endpoints that change all the time would keep it waiting
    /// for ever. For clusters nothing waits but routes: an Envoy confirms them when they are warm, which may take as long as their checks.
    fn is_free(&self) -> bool {
        let clusters_wait = !self.kinds[Kind::Upstream.index()].in_flight.is_empty() || self.clusters_wait_elsewhere();
        let behind = Kind::ALL[Kind::Route.index()..].iter().any(|kind| self.owes(*kind));
        let removals = Kind::ALL.into_iter().any(|kind| !self.kinds[kind.index()].gone.is_empty() && self.owes(kind));
        let held_up = self.must_wait(Kind::Route) && !clusters_wait && (behind || removals);
        // Who answers to what replaces nothing for long must not fill up with what is gone.
        let too_much = |kind: &Kind| self.kinds[kind.index()].gone.len() > MAX_WAITING && self.leads(*kind) != Leads::Refused;
        let filled_up = !clusters_wait && Kind::ALL.iter().any(too_much);
        !held_up && !filled_up && self.kinds.iter().all(|state| state.in_flight.len() < MAX_IN_FLIGHT)
    }

    fn response(&mut self, source: &dyn SnapshotSource) -> Option<DeltaResponse> {
        for kind in Kind::ALL {
            if self.must_wait(kind) {
                break;
            }
            if let Some(response) = self.next_set(kind, source) {
                return Some(response);
            }
        }
        if self.kinds.iter().any(|state| state.sent.is_under_way() || !state.dirty.is_empty()) {
            return None;
        }
        Kind::ALL.into_iter().rev().find_map(|kind| self.next_removal(kind, source))
    }

    fn asked(&self, kind: Kind) -> (bool, Vec<Arc<str>>) {
        let state = &self.kinds[kind.index()];
        (state.open && state.wildcard, state.names.iter().cloned().collect())
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn answered(&self) -> bool {
        let mut others = Kind::ALL.into_iter().zip(&self.kinds).filter(|(kind, state)| *kind != Kind::Endpoints && state.open);
        others.all(|(kind, state)| state.in_flight.is_empty() && !self.owes(kind))
    }

    fn held(&self) -> Vec<KindView> {
        let open = Kind::ALL.into_iter().zip(&self.kinds).filter(|(_, state)| state.open);
        let view = |(kind, state): (Kind, &Subscription)| KindView {
            kind,
            version: state.acked.clone(),
            resources: state.sent.count().saturating_sub(state.refused.named()),
            pending: !state.in_flight.is_empty() || self.owes(kind),
        };
        open.map(view).collect()
    }

    fn nacks(&self) -> Vec<Nack> {
        self.kinds.iter().flat_map(|state| state.refused.nacks().cloned()).collect()
    }

    fn resources(&self) -> Vec<ResourceView> {
        let of = |(kind, state): (Kind, &Subscription)| state.resources(kind, &self.scope);
        Kind::ALL.into_iter().zip(&self.kinds).filter(|(_, state)| state.open).flat_map(of).collect()
    }

    fn kept(&self) -> Vec<(Kind, Arc<str>)> {
        let stays = |(kind, _): &(Kind, &Subscription)| self.leads(*kind) == Leads::Refused;
        let all = Kind::ALL.into_iter().zip(&self.kinds).filter(|(_, state)| !state.gone.is_empty()).filter(stays);
        all.flat_map(|(kind, state)| state.gone.names().map(move |name| (kind, name.clone()))).collect()
    }

    fn taken(&mut self) -> Vec<Arc<str>> {
        std::mem::take(&mut self.taken)
    }

    fn warm(&mut self, clusters: Vec<Arc<str>>) {
        clusters.iter().for_each(|cluster| self.tell_elsewhere(Kind::Upstream, cluster));
    }

    fn stands(&self) -> Stands {
        let open = Kind::ALL.into_iter().zip(&self.kinds).filter(|(_, state)| state.open && self.types != Types::Heddle);
        Stands::new(self.position, open.map(|(kind, state)| (kind, state.stands(), state.in_flight.is_empty() && !state.tells())))
    }

    fn beside(&mut self, others: Stands) {
        self.others = others;
    }
}
