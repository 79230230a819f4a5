//! What a state-of-the-world stream is owed: the whole of a kind whenever part of it changed. It knows neither gRPC nor time.
//!
//! Removals are absences. So that nothing is taken away before what replaces it is there, a kind that both grew and shrank is first sent
//! with what vanished still in it, and without it after all other kinds had their turn. Who speaks our types is told a view in one go, and answers then.
//!
//! Absence of endpoints takes nothing away from Envoy and gRPC, so those that change are told to them by themselves, as the protocol allows
//! ("grouping resources into responses"): of thousands one changes at a time.

mod subscription;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use self::subscription::{Shown, Subscription, version_of_all};
use super::refused::{Leads, MAX_WAITING, Stands, Taken};
use super::{KindView, Machine, Nack, ResourceView};
use crate::model::Kind;
use crate::protocol::{BadRequest, RawResource, SotwRequest, SotwResponse, Types, is_followed};
use crate::snapshot::{Changes, NodeScope, SnapshotSource, Versioned, version_of};

/// The state of one state-of-the-world stream.
#[derive(Debug)]
pub struct SotwMachine {
    scope: NodeScope,
    types: Types,
    position: u64,
    nonce: u64,
    kinds: [Subscription; Kind::ALL.len()],
    /// How the client stands to what it asked for by other streams.
    others: Stands,
}

impl SotwMachine {
    /// A new stream of a node that begins at a position of the source (taken before anything is read from it).
    pub fn new(scope: NodeScope, position: u64) -> SotwMachine {
        SotwMachine { scope, types: Types::Heddle, position, nonce: 0, kinds: Default::default(), others: Stands::default() }
    }

    /// The same, to a node that speaks these types.
    pub fn speaking(self, types: Types) -> SotwMachine {
        SotwMachine { types, ..self }
    }

    /// Everything that is to be set, dependencies first; what vanished is still shown beside it, but for listeners.
    fn next_set(&mut self, kind: Kind, source: &dyn SnapshotSource) -> Option<SotwResponse> {
        let (in_parts, leads) = (self.is_told_in_parts(kind), self.leads(kind));
        let state = &mut self.kinds[kind.index()];
        if in_parts && !state.answer && state.touched.is_some() {
            return self.next_part(kind, source);
        }
        let due = state.answer || (state.dirty && !state.in_flight);
        if !due {
            return None;
        }
        let left = self.stays_as_it_was(kind, source);
        let state = &mut self.kinds[kind.index()];
        state.left = left;
        if left {
            return None;
        }
        let mut shown = state.wanted(kind, source, (&self.scope, self.types));
        state.dirty = false;
        state.touched = in_parts.then(BTreeSet::new);
        let grew = shown.iter().any(|(name, now)| state.sent.get(name).is_none_or(|then| then.version != now.version));
        let vanished = state.sent.keys().filter(|name| !in_parts && !shown.contains_key(*name));
        state.gone.renew(&vanished.cloned().collect(), self.position);
        // An address may go from one listener to the next, and clients refuse whoever wants one that is taken.
        let leaves = !state.gone.is_empty() && kind == Kind::Listener;
        if leaves {
            state.gone.release(Leads::TAKEN);
        } else if !state.gone.is_empty() {
            if !grew && !state.answer {
                return None;
            }
            // Where this changes all the time, what was gone before and nothing waits for any more goes with it.
            let before = self.position.checked_sub(1).map_or(Leads::UnderWay, Leads::Through);
            state.gone.release(if grew { leads.min(before) } else { leads });
            for (name, then) in state.sent.iter().filter(|(name, _)| state.gone.contains(name)) {
                shown.entry(name.clone()).or_insert_with(|| then.clone());
            }
        }
        let answer = std::mem::take(&mut state.answer);
        if kind == Kind::Upstream && self.types == Types::Envoy {
            self.tell_endpoints_again(&shown);
        }
        (answer || grew || leaves).then(|| self.seal(kind, shown))
    }

    /// Of who comes back with something that is not told, all of that kind stays as it is, and so does what it may lead to: a list without it would take it away.
    /// From clients of others no list takes a secret away: they are told all the same.
    fn stays_as_it_was(&self, kind: Kind, source: &dyn SnapshotSource) -> bool {
        let leads = |other: &Kind| *other == kind || Leads::are(*other, kind);
        let is_list = self.types == Types::Heddle || kind != Kind::Secret;
        self.kinds[kind.index()].came_with
            && is_list
            && kind != Kind::Endpoints
            && Kind::ALL.iter().any(|other| leads(other) && source.leaves(*other))
    }

    /// A cluster that changes waits for its endpoints anew, even when they are the same. Envoy asks for them again, and what it says may cross what it is told
    /// just then, so that it would not be heard; without them it waits for 15 s (envoy#13009).
    fn tell_endpoints_again(&mut self, clusters: &Shown) {
        let told = &self.kinds[Kind::Upstream.index()].sent;
        let changed =
            |(name, now): &(&Arc<str>, &Arc<Versioned>)| told.get(*name).is_some_and(|then| then.version != now.version);
        let changed: Vec<Arc<str>> = clusters.iter().filter(changed).map(|(name, _)| name.clone()).collect();
        changed.iter().for_each(|name| self.kinds[Kind::Endpoints.index()].owe(name));
    }

    /// Whether what a response leaves out stays as it is.
    fn is_told_in_parts(&self, kind: Kind) -> bool {
        self.types != Types::Heddle && kind == Kind::Endpoints
    }

    /// That of a kind which has changed, and nothing else. Leaving out takes nothing away, so what vanished is only forgotten.
    fn next_part(&mut self, kind: Kind, source: &dyn SnapshotSource) -> Option<SotwResponse> {
        let state = &mut self.kinds[kind.index()];
        if state.in_flight || !std::mem::take(&mut state.dirty) {
            return None;
        }
        let (mut part, mut text) = (Vec::new(), String::new());
        let touched = state.touched.replace(BTreeSet::new()).into_iter().flatten();
        for name in touched.filter(|name| state.wants(name)).collect::<Vec<_>>() {
            match source.get(kind, &name, &self.scope) {
                Some(now) if state.sent.get(&name).is_some_and(|then| then.version == now.version) => {}
                Some(now) => {
                    text.extend(["\0", &*name, "\0", &*now.version]);
                    state.sent.insert(name.clone(), now.clone());
                    part.push((name, now));
                }
                None => {
                    state.sent.remove(&name);
                    state.refused.forget(&name);
                }
            }
        }
        if part.is_empty() {
            return None;
        }
        let told = part.iter().map(|(name, now)| (name.clone(), now.version.clone())).collect();
        let resources: Vec<_> = part.into_iter().map(|(_, now)| now).collect();
        // That of the part: for that of the whole thousands would be looked at.
        Some(self.send(kind, version_of(text.as_bytes()), resources.iter(), Some(told)))
    }

    /// Envoy takes new routes at once but new clusters only when it has their endpoints, so routes that it has already change after those are confirmed.
    fn must_wait(&self, kind: Kind) -> bool {
        let [clusters, endpoints, routes] = [Kind::Upstream, Kind::Endpoints, Kind::Route].map(|kind| &self.kinds[kind.index()]);
        let under_way = clusters.in_flight || endpoints.in_flight || self.clusters_wait_elsewhere();
        self.types == Types::Envoy && kind == Kind::Route && under_way && !routes.sent.is_empty()
    }

    /// How far the client is with what may lead to that which is gone of a kind; what is gone stays until then. Who speaks our types is told a view in
    /// one go.
    fn leads(&self, kind: Kind) -> Leads {
        if self.types == Types::Heddle {
            return Leads::TAKEN;
        }
        let leading = Kind::ALL.into_iter().zip(&self.kinds).filter(|(other, state)| state.open && Leads::are(*other, kind));
        leading.map(|(_, state)| state.stands()).min().unwrap_or(Leads::TAKEN).min(self.leads_elsewhere(kind))
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
        state.is_due() || !state.gone.is_empty() && self.leads(kind) != Leads::Refused
    }

    /// Everything that is to be taken away, dependents first.
    fn next_removal(&mut self, kind: Kind, source: &dyn SnapshotSource) -> Option<SotwResponse> {
        let (waits, leads) = (self.types != Types::Heddle, self.leads(kind));
        let state = &mut self.kinds[kind.index()];
        if state.in_flight && waits || !state.gone.release(leads) {
            if !state.is_due() {
                state.told(self.position);
            }
            return None;
        }
        let mut shown = state.wanted(kind, source, (&self.scope, self.types));
        for (name, then) in state.gone.names().filter_map(|name| state.sent.get_key_value(name)) {
            shown.entry(name.clone()).or_insert_with(|| then.clone());
        }
        let changed = version_of_all(&shown) != state.version;
        changed.then(|| self.seal(kind, shown))
    }

    fn seal(&mut self, kind: Kind, shown: Shown) -> SotwResponse {
        let response = self.send(kind, version_of_all(&shown), shown.values(), None);
        let state = &mut self.kinds[kind.index()];
        (state.sent, state.repeated, state.came_with) = (shown, false, false);
        response
    }

    /// A response, which is about a part of what the client has, or all of it.
    fn send<'a>(
        &mut self,
        kind: Kind,
        version: Arc<str>,
        resources: impl Iterator<Item = &'a Arc<Versioned>>,
        part: Option<Vec<(Arc<str>, Arc<str>)>>,
    ) -> SotwResponse {
        self.nonce += 1;
        let nonce: Arc<str> = self.nonce.to_string().into();
        let type_url: Arc<str> = self.types.url(kind).into();
        let raw = |now: &Arc<Versioned>| RawResource {
            name: "".into(),
            version: "".into(),
            type_url: type_url.clone(),
            body: now.body.clone(),
        };
        let resources = resources.map(raw).collect();
        let state = &mut self.kinds[kind.index()];
        state.part = part;
        state.version = version.clone();
        state.nonce = nonce.clone();
        state.in_flight = true;
        SotwResponse { kind, version, nonce, resources }
    }
}

impl Machine for SotwMachine {
    type Request = SotwRequest;
    type Response = SotwResponse;

    fn request(&mut self, request: SotwRequest, source: &dyn SnapshotSource, now: SystemTime) -> Result<(), BadRequest> {
        let state = &mut self.kinds[request.kind.index()];
        let others = state.others(&request.names)?;
        // Told to whoever comes, even if it has this version already.
        let is_due = !state.open
            && match self.types {
                Types::Heddle => false,
                // Which of its clusters wait for their endpoints, Envoy does not say.
                Types::Envoy => request.kind == Kind::Endpoints,
                // A stream on which nothing came counts as failed, and after each of them a client of gRPC waits longer.
                Types::Grpc => true,
            };
        state.answer |= is_due;
        if !std::mem::replace(&mut state.open, true) {
            state.taken = Taken::default();
            state.subscribe(request.names, others);
            let shown = state.wanted(request.kind, source, (&self.scope, self.types));
            let has_it = !request.version.is_empty() && version_of_all(&shown) == request.version;
            state.came_with = !request.version.is_empty() && (is_due && request.kind == Kind::Endpoints || !has_it);
            if has_it && !is_due {
                state.sent = shown;
                state.version = request.version.clone();
                state.acked = request.version;
            } else {
                state.answer = true;
            }
            return Ok(());
        }
        if !request.nonce.is_empty() {
            if *is_followed(&request.nonce).0 != *state.nonce {
                // Who wants nothing any more answers nothing that is on its way, as Envoy does.
                if state.named && self.types == Types::Envoy && request.names.is_empty() {
                    state.subscribe(request.names, others);
                    state.in_flight = false;
                }
                return Ok(());
            }
            // Said again although it was answered: a client whose cluster changed asks so for its endpoints (envoy#13009).
            let again = !state.in_flight && request.error.is_none() && state.is_subscribed(others.as_deref());
            state.answer |= again && request.version == state.version;
            state.answered(&request, now);
            if request.error.is_some() {
                state.refused.explain(|name| source.get(request.kind, name, &self.scope)?.history.clone());
            }
        }
        if state.subscribe(request.names, others) {
            state.answer = true;
        }
        Ok(())
    }

    fn changes(&mut self, changes: Changes, _source: &dyn SnapshotSource) {
        self.position = changes.position;
        match changes.names {
            Some(names) => {
                for (kind, name) in names {
                    let state = &mut self.kinds[kind.index()];
                    if state.wants(&name) {
                        state.dirty = true;
                        state.touched.iter_mut().for_each(|touched| {
                            touched.insert(name.clone());
                        });
                    }
                    // Of these the listeners are made that clients and servers of gRPC ask for by names of their own.
                    if self.types == Types::Grpc && matches!(kind, Kind::Listener | Kind::AuthorizationPolicy | Kind::MeshInbound)
                    {
                        let listeners = &mut self.kinds[Kind::Listener.index()];
                        listeners.dirty |= listeners.open;
                    }
                }
            }
            None => self.kinds.iter_mut().for_each(|state| {
                state.dirty |= state.open;
                state.touched = None;
            }),
        }
    }

    /// A kind is told again only when its client has answered: a view waits for all of them, or part of it would come later. To an Envoy a view is told
    /// whole before the next while endpoints are all that this waits for, or endpoints that change all the time would keep it waiting for ever. For clusters
    /// nothing waits but routes: an Envoy confirms them when they are warm, which may take as long as their checks.
    fn is_free(&self) -> bool {
        match self.types {
            Types::Heddle => !self.kinds.iter().any(|state| state.in_flight),
            _ => {
                let behind = self.kinds[Kind::Route.index()..].iter().any(Subscription::is_due);
                let removals = Kind::ALL.into_iter().any(|kind| !self.kinds[kind.index()].gone.is_empty() && self.owes(kind));
                let clusters_wait = self.kinds[Kind::Upstream.index()].in_flight || self.clusters_wait_elsewhere();
                // Who answers to what replaces nothing for long must not fill up with what is gone.
                let too_much =
                    |kind: &Kind| self.kinds[kind.index()].gone.len() > MAX_WAITING && self.leads(*kind) != Leads::Refused;
                let filled_up = !clusters_wait && Kind::ALL.iter().any(too_much);
                !filled_up && !(self.must_wait(Kind::Route) && !clusters_wait && (behind || removals))
            }
        }
    }

    fn response(&mut self, source: &dyn SnapshotSource) -> Option<SotwResponse> {
        for kind in Kind::ALL {
            if self.must_wait(kind) {
                break;
            }
            if let Some(response) = self.next_set(kind, source) {
                return Some(response);
            }
        }
        if self.kinds.iter().any(Subscription::is_due) {
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
        others.all(|(kind, state)| !state.in_flight && !self.owes(kind))
    }

    fn held(&self) -> Vec<KindView> {
        let open = Kind::ALL.into_iter().zip(&self.kinds).filter(|(_, state)| state.open);
        let view = |(kind, state): (Kind, &Subscription)| KindView {
            kind,
            version: state.acked.clone(),
            resources: state.sent.len().saturating_sub(state.refused.named()),
            pending: state.in_flight || self.owes(kind),
        };
        open.map(view).collect()
    }

    fn nacks(&self) -> Vec<Nack> {
        self.kinds.iter().flat_map(|state| state.refused.nacks().cloned()).collect()
    }

    fn kept(&self) -> Vec<(Kind, Arc<str>)> {
        let stays = |(kind, _): &(Kind, &Subscription)| self.leads(*kind) == Leads::Refused;
        let all = Kind::ALL.into_iter().zip(&self.kinds).filter(|(_, state)| !state.gone.is_empty()).filter(stays);
        all.flat_map(|(kind, state)| state.gone.names().map(move |name| (kind, name.clone()))).collect()
    }

    fn resources(&self) -> Vec<ResourceView> {
        let of = |(kind, state): (Kind, &Subscription)| state.resources(kind);
        Kind::ALL.into_iter().zip(&self.kinds).filter(|(_, state)| state.open).flat_map(of).collect()
    }

    fn stands(&self) -> Stands {
        let open = Kind::ALL.into_iter().zip(&self.kinds).filter(|(_, state)| state.open && self.types != Types::Heddle);
        Stands::new(self.position, open.map(|(kind, state)| (kind, state.stands(), !state.in_flight && !state.is_due())))
    }

    fn beside(&mut self, others: Stands) {
        self.others = others;
    }
}
