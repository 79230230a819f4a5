//! What a state-of-the-world stream is owed: the whole of a kind whenever part of it changed. It knows neither gRPC nor time.
//!
//! Removals are absences. So that nothing is taken away before what replaces it is there, a kind that both grew and shrank is first sent
//! with what vanished still in it, and without it after all other kinds had their turn. Who speaks our types is told a view in one go, and answers then.
//!
//! Absence of endpoints takes nothing away from Envoy and gRPC, so those that change are told to them by themselves, as the protocol allows
//! ("grouping resources into responses"): of thousands one changes at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use super::refused::Refused;
use super::{KindView, Machine, Nack, ResourceView, Standing};
use crate::dialect::envoy::encode::grpc;
use crate::model::Kind;
use crate::protocol::{BadRequest, Names, RawResource, SotwRequest, SotwResponse, Types, WILDCARD, is_followed};
use crate::snapshot::{Changes, NodeScope, SnapshotSource, Versioned, version_of};

type Shown = BTreeMap<Arc<str>, Arc<Versioned>>;

/// The state of one state-of-the-world stream.
#[derive(Debug)]
pub struct SotwMachine {
    scope: NodeScope,
    types: Types,
    position: u64,
    nonce: u64,
    kinds: [Subscription; Kind::ALL.len()],
}

/// What a client wants and has of one kind.
#[derive(Debug, Default)]
struct Subscription {
    /// There was a request.
    open: bool,
    /// All names are asked for.
    wildcard: bool,
    /// A request named something once: from then on, no names means nothing.
    named: bool,
    names: BTreeSet<Arc<str>>,
    /// The same as the last request said it.
    said: Option<Names>,
    /// What the client was sent.
    sent: Shown,
    /// What the last response was about, and in which version, where that was not all of it.
    part: Option<Vec<(Arc<str>, Arc<str>)>>,
    /// What is good of a refused response was told once more.
    repeated: bool,
    /// Version and nonce of the last response.
    version: Arc<str>,
    nonce: Arc<str>,
    /// The last response waits for ACK or NACK.
    in_flight: bool,
    /// Something may have changed.
    dirty: bool,
    /// What that is, where it is told in parts; `None`: all of it may have.
    touched: Option<BTreeSet<Arc<str>>>,
    /// An answer is owed even when there is nothing new.
    answer: bool,
    /// Something is to be taken away once everything else was sent.
    shrink: bool,
    acked: Arc<str>,
    refused: Refused,
}

impl SotwMachine {
    /// A new stream of a node that begins at a position of the source (taken before anything is read from it).
    pub fn new(scope: NodeScope, position: u64) -> SotwMachine {
        SotwMachine { scope, types: Types::Heddle, position, nonce: 0, kinds: Default::default() }
    }

    /// The same, to a node that speaks these types.
    pub fn speaking(self, types: Types) -> SotwMachine {
        SotwMachine { types, ..self }
    }

    /// Everything that is to be set, dependencies first; what vanished is still shown beside it, but for listeners.
    fn next_set(&mut self, kind: Kind, source: &dyn SnapshotSource) -> Option<SotwResponse> {
        let in_parts = self.is_told_in_parts(kind);
        let state = &mut self.kinds[kind.index()];
        if in_parts && !state.answer && state.touched.is_some() {
            return self.next_part(kind, source);
        }
        let due = state.answer || (state.dirty && !state.in_flight);
        if !due {
            return None;
        }
        let mut shown = state.wanted(kind, source, (&self.scope, self.types));
        state.dirty = false;
        state.touched = in_parts.then(BTreeSet::new);
        let grew = shown.iter().any(|(name, now)| state.sent.get(name).is_none_or(|then| then.version != now.version));
        let vanished = !in_parts && state.sent.keys().any(|name| !shown.contains_key(name));
        // An address may go from one listener to the next, and clients refuse whoever wants one that is taken.
        let leaves = vanished && kind == Kind::Listener;
        if vanished && !leaves && (grew || !state.answer) {
            state.shrink = true;
            if !grew {
                return None;
            }
            for (name, then) in &state.sent {
                shown.entry(name.clone()).or_insert_with(|| then.clone());
            }
        }
        let answer = std::mem::take(&mut state.answer);
        if kind == Kind::Upstream && self.types == Types::Envoy {
            self.tell_endpoints_again(&shown);
        }
        (answer || grew || leaves).then(|| self.seal(kind, shown))
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
        let under_way = clusters.in_flight || endpoints.in_flight;
        self.types == Types::Envoy && kind == Kind::Route && under_way && !routes.sent.is_empty()
    }

    /// Everything that is to be taken away, dependents first.
    fn next_removal(&mut self, kind: Kind, source: &dyn SnapshotSource) -> Option<SotwResponse> {
        let waits = self.types != Types::Heddle;
        let state = &mut self.kinds[kind.index()];
        if !state.shrink || state.in_flight && waits {
            return None;
        }
        state.shrink = false;
        let shown = state.wanted(kind, source, (&self.scope, self.types));
        let changed = version_of_all(&shown) != state.version;
        changed.then(|| self.seal(kind, shown))
    }

    fn seal(&mut self, kind: Kind, shown: Shown) -> SotwResponse {
        let response = self.send(kind, version_of_all(&shown), shown.values(), None);
        let state = &mut self.kinds[kind.index()];
        (state.sent, state.repeated) = (shown, false);
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

/// The version of a whole: that of its names and their versions.
fn version_of_all(shown: &Shown) -> Arc<str> {
    let mut text = String::new();
    for (name, now) in shown {
        text.push_str(name);
        text.push('\0');
        text.push_str(&now.version);
        text.push('\0');
    }
    version_of(text.as_bytes())
}

impl Subscription {
    fn wants(&self, name: &str) -> bool {
        self.open && (self.wildcard || self.names.contains(name))
    }

    /// Something that the client may not have, whatever it was sent, is to be told by itself, if it wants it.
    fn owe(&mut self, name: &Arc<str>) {
        if self.wants(name) && self.sent.remove(name).is_some() {
            self.dirty = true;
            self.touched.iter_mut().for_each(|touched| {
                touched.insert(name.clone());
            });
        }
    }

    fn wanted(&self, kind: Kind, source: &dyn SnapshotSource, (scope, types): (&NodeScope, Types)) -> Shown {
        let mut shown = Shown::new();
        // Who speaks gRPC names the service that it wants, which many listeners may stand for.
        let get = |name: &Arc<str>| match (types, kind) {
            (Types::Grpc, Kind::Listener) => grpc::listener(source, name, scope),
            _ => source.get(kind, name, scope),
        };
        if self.wildcard && types == Types::Grpc {
            return shown;
        }
        if self.wildcard {
            shown.extend(source.list(kind, scope).into_iter().map(|found| (found.resource.name().clone(), found)));
        } else {
            shown.extend(self.names.iter().filter_map(|name| Some((name.clone(), get(name)?))));
        }
        shown
    }

    fn answered(&mut self, request: &SotwRequest, now: SystemTime) {
        self.in_flight = false;
        match &request.error {
            None if request.version == self.version => {
                self.forgive();
                if self.part.is_none() {
                    self.refused.take(self.sent.iter().map(|(name, sent)| (name, &sent.version)));
                }
                self.repeated = false;
                self.acked = self.version.clone();
            }
            // After a NACK the same nonce with the previous version only changes the subscription.
            None => {}
            Some(text) => {
                self.forgive();
                let all = self.part.is_none().then(|| self.sent.iter().map(|(name, sent)| (name, &sent.version)));
                let part = self.part.iter().flatten().map(|(name, version)| (name, version));
                self.refused.refuse(request.kind, all.into_iter().flatten().chain(part), text, now);
                self.owe_the_good();
            }
        }
    }

    /// Who refuses one of several may not have taken the others either. Of a kind that is told in parts they are told once more, by themselves; where nobody is
    /// blamed, or that is refused too, with what changes next.
    fn owe_the_good(&mut self) {
        let Some(touched) = &mut self.touched else { return };
        let all = self.part.is_none().then(|| self.sent.keys()).into_iter().flatten();
        let told = all.chain(self.part.iter().flatten().map(|(name, _)| name));
        let good: Vec<Arc<str>> = told.filter(|name| self.refused.of(name).is_none()).cloned().collect();
        let repeats = !self.repeated && self.refused.of("").is_none() && !good.is_empty();
        self.dirty |= repeats;
        self.repeated = repeats;
        for name in good {
            self.sent.remove(&name);
            touched.insert(name);
        }
    }

    /// What was refused before of that which the last response was about does not matter any more.
    fn forgive(&mut self) {
        match &self.part {
            Some(part) => self.refused.accept(part.iter().map(|(name, _)| name)),
            None => self.refused.clear(),
        }
    }

    fn resources(&self, kind: Kind) -> Vec<ResourceView> {
        let names: BTreeSet<&Arc<str>> = self.sent.keys().chain(&self.names).collect();
        let one = |name: &Arc<str>| {
            let sent = self.sent.get(name).map(|sent| &sent.version);
            match self.refused.of(name) {
                Some(nack) => ResourceView::new(kind, name, Some(&nack.version), Standing::Refused(nack.clone())),
                None if sent.is_none() => ResourceView::new(kind, name, None, Standing::NotSent),
                None if self.in_flight => ResourceView::new(kind, name, sent, Standing::Stale),
                None => ResourceView::new(kind, name, sent, Standing::Synced),
            }
        };
        names.into_iter().map(one).collect()
    }

    /// The names of a request where they are not those of the last one.
    fn others(&self, names: &Names) -> Result<Option<Vec<Arc<str>>>, BadRequest> {
        if self.said.as_ref() == Some(names) { Ok(None) } else { names.read().map(Some) }
    }

    /// Whether exactly these names are asked for; none are those of the last request.
    fn is_subscribed(&self, others: Option<&[Arc<str>]>) -> bool {
        let is_same = |names: &[Arc<str>]| names.len() == self.names.len() && names.iter().all(|name| self.names.contains(name));
        !self.wildcard && others.is_none_or(is_same)
    }

    /// Takes over the names of a request, where they are others than those of the last one; says whether there are new ones.
    fn subscribe(&mut self, said: Names, others: Option<Vec<Arc<str>>>) -> bool {
        let Some(names) = others else { return false };
        self.said = Some(said);
        let was_wildcard = self.wildcard;
        self.wildcard = names.iter().any(|name| &**name == WILDCARD) || (names.is_empty() && !self.named);
        self.named |= !names.is_empty();
        let names: BTreeSet<Arc<str>> = names.into_iter().filter(|name| &**name != WILDCARD).collect();
        let grew = !was_wildcard && (self.wildcard || names.iter().any(|name| !self.names.contains(name)));
        self.names = names;
        if !self.wildcard {
            let names = &self.names;
            self.sent.retain(|name, _| names.contains(name));
        }
        grew
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
            state.subscribe(request.names, others);
            let shown = state.wanted(request.kind, source, (&self.scope, self.types));
            if !is_due && !request.version.is_empty() && version_of_all(&shown) == request.version {
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
                if request.kind == Kind::Endpoints && self.types == Types::Envoy && request.names.is_empty() {
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
                let behind = self.kinds[Kind::Route.index()..].iter().any(|state| state.dirty);
                let removals = self.kinds.iter().any(|state| state.shrink);
                let clusters_wait = self.kinds[Kind::Upstream.index()].in_flight;
                !(self.must_wait(Kind::Route) && !clusters_wait && (behind || removals))
            }
        }
    }

    fn response(&mut self, source: &dyn SnapshotSource) -> Option<SotwResponse> {
        for kind in Kind::ALL {
            if self.must_wait(kind) {
                return None;
            }
            if let Some(response) = self.next_set(kind, source) {
                return Some(response);
            }
        }
        if self.kinds.iter().any(|state| state.dirty) {
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
        let other = |(kind, _): &(Kind, &Subscription)| *kind != Kind::Endpoints;
        let mut open = Kind::ALL.into_iter().zip(&self.kinds).filter(other).map(|(_, state)| state).filter(|state| state.open);
        open.all(|state| !state.in_flight && !state.dirty && !state.shrink)
    }

    fn held(&self) -> Vec<KindView> {
        let open = Kind::ALL.into_iter().zip(&self.kinds).filter(|(_, state)| state.open);
        let view = |(kind, state): (Kind, &Subscription)| KindView {
            kind,
            version: state.acked.clone(),
            resources: state.sent.len().saturating_sub(state.refused.named()),
            pending: state.in_flight || state.dirty || state.shrink,
        };
        open.map(view).collect()
    }

    fn nacks(&self) -> Vec<Nack> {
        self.kinds.iter().flat_map(|state| state.refused.nacks().cloned()).collect()
    }

    fn resources(&self) -> Vec<ResourceView> {
        let of = |(kind, state): (Kind, &Subscription)| state.resources(kind);
        Kind::ALL.into_iter().zip(&self.kinds).filter(|(_, state)| state.open).flat_map(of).collect()
    }
}
