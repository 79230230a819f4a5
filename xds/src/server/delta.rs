//! What a delta stream is owed: subscriptions, versions sent, ACKs and NACKs. It knows neither gRPC nor time.
//!
//! Rules of the public protocol description ("incremental xDS"): a first request without names means all; names that do not exist are
//! answered in `removed_resources` at once; asking again for a name resends it; leaving a name while subscribed to all is answered with
//! its present state; nonces that are not the newest are normal.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

use super::refused::Refused;
use super::{KindView, Machine, Nack};
use crate::model::Kind;
use crate::protocol::{BadRequest, DeltaRequest, DeltaResponse, MAX_NAMES, RawResource, WILDCARD};
use crate::snapshot::{Changes, NodeScope, SnapshotSource};

/// A response is closed when it holds more than this; with one large resource it still fits a gRPC message of 16 MiB.
const CHUNK: usize = 1024 * 1024;
/// Responses of one kind that may wait for their answer; then changes are only remembered by name.
const MAX_IN_FLIGHT: usize = 64;

/// The state of one delta stream.
#[derive(Debug)]
pub struct DeltaMachine {
    scope: NodeScope,
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
    /// Names asked for one by one.
    names: HashSet<Arc<str>>,
    /// Versions that the client has or is about to get; an empty version forces a resend.
    sent: HashMap<Arc<str>, Arc<str>>,
    /// Names to look at.
    dirty: BTreeSet<Arc<str>>,
    /// Names for which an answer is owed even when they do not exist.
    asked: HashSet<Arc<str>>,
    /// Names to be removed once everything else was sent.
    gone: BTreeSet<Arc<str>>,
    /// An answer is owed even when there is nothing to say.
    answer: bool,
    in_flight: VecDeque<InFlight>,
    acked: Arc<str>,
    refused: Refused,
}

/// A response that waits for ACK or NACK.
#[derive(Debug)]
struct InFlight {
    nonce: Arc<str>,
    version: Arc<str>,
    names: Vec<Arc<str>>,
}

impl DeltaMachine {
    /// A new stream of a node that begins at a position of the source (taken before anything is read from it).
    pub fn new(scope: NodeScope, position: u64) -> DeltaMachine {
        DeltaMachine { scope, position, nonce: 0, kinds: Default::default() }
    }

    /// Everything that is to be set, dependencies first.
    fn next_set(&mut self, kind: Kind, source: &dyn SnapshotSource, hold: bool) -> Option<DeltaResponse> {
        let state = &mut self.kinds[kind.index()];
        let urgent = kind == Kind::Endpoints || state.answer || !state.asked.is_empty();
        if state.in_flight.len() >= MAX_IN_FLIGHT || (hold && !urgent) {
            return None;
        }
        let type_url: Arc<str> = kind.type_url().into();
        let (mut resources, mut removed, mut size) = (Vec::new(), Vec::new(), 0);
        while size < CHUNK
            && let Some(name) = state.dirty.pop_first()
        {
            let asked = state.asked.remove(&name);
            match source.get(kind, &name, &self.scope) {
                Some(found) => {
                    state.gone.remove(&name);
                    if state.sent.get(&name) != Some(&found.version) {
                        size += name.len() + found.body.len() + 64;
                        state.sent.insert(name.clone(), found.version.clone());
                        let (version, body) = (found.version.clone(), found.body.clone());
                        resources.push(RawResource { name, version, type_url: type_url.clone(), body });
                    }
                }
                None if asked => {
                    size += name.len() + 16;
                    state.sent.remove(&name);
                    state.gone.remove(&name);
                    removed.push(name);
                }
                None if state.sent.contains_key(&name) => drop(state.gone.insert(name)),
                None => {}
            }
        }
        if resources.is_empty() && removed.is_empty() && !state.answer {
            return None;
        }
        state.answer = false;
        Some(self.seal(kind, source.position(), resources, removed))
    }

    /// Everything that is to be removed, dependents first.
    fn next_removal(&mut self, kind: Kind, source: &dyn SnapshotSource) -> Option<DeltaResponse> {
        let state = &mut self.kinds[kind.index()];
        if state.in_flight.len() >= MAX_IN_FLIGHT {
            return None;
        }
        let (mut removed, mut size) = (Vec::new(), 0);
        while size < CHUNK
            && let Some(name) = state.gone.pop_first()
        {
            if source.get(kind, &name, &self.scope).is_some() {
                state.dirty.insert(name);
            } else if state.sent.remove(&name).is_some() {
                size += name.len() + 16;
                removed.push(name);
            }
        }
        (!removed.is_empty()).then(|| self.seal(kind, source.position(), Vec::new(), removed))
    }

    fn seal(&mut self, kind: Kind, position: u64, resources: Vec<RawResource>, removed: Vec<Arc<str>>) -> DeltaResponse {
        self.nonce += 1;
        let nonce: Arc<str> = self.nonce.to_string().into();
        let version: Arc<str> = position.to_string().into();
        let names = resources.iter().map(|resource| &resource.name).chain(&removed).cloned().collect();
        let flight = InFlight { nonce: nonce.clone(), version: version.clone(), names };
        self.kinds[kind.index()].in_flight.push_back(flight);
        DeltaResponse { kind, version, nonce, resources, removed }
    }
}

impl Subscription {
    fn wants(&self, name: &str) -> bool {
        self.open && (self.wildcard || self.names.contains(name))
    }

    /// Looks up which response is answered; an unknown nonce is ignored.
    fn answered(&mut self, request: &DeltaRequest, now: SystemTime) {
        let Some(at) = self.in_flight.iter().position(|flight| flight.nonce == request.nonce) else { return };
        let Some(flight) = self.in_flight.drain(..=at).next_back() else { return };
        match &request.error {
            None => {
                self.refused.accept(flight.names.iter());
                self.acked = flight.version;
            }
            Some(text) => self.refused.refuse(request.kind, flight.names.iter(), text, now),
        }
    }

    /// All resources that the client does not have in this version, and all that it has and that may be gone.
    fn look_at_all(&mut self, kind: Kind, source: &dyn SnapshotSource, scope: &NodeScope) {
        let kept: Vec<Arc<str>> = self.sent.keys().cloned().collect();
        self.dirty.extend(kept);
        if self.wildcard {
            self.dirty.extend(source.list(kind, scope).iter().map(|found| found.resource.name().clone()));
        }
        self.dirty.extend(self.names.iter().cloned());
    }

    /// Resends everything that exists, whatever the client has.
    fn force_all(&mut self) {
        self.sent.values_mut().for_each(|version| *version = "".into());
    }

    fn subscribe(&mut self, name: Arc<str>, first: bool) {
        let known = first && self.sent.contains_key(&name);
        if !known {
            if let Some(version) = self.sent.get_mut(&name) {
                *version = "".into();
            }
            self.asked.insert(name.clone());
        }
        self.dirty.insert(name.clone());
        self.names.insert(name);
    }

    fn unsubscribe(&mut self, name: &Arc<str>) {
        if !self.names.remove(name) {
            return;
        }
        self.refused.forget(name);
        if self.wildcard {
            if let Some(version) = self.sent.get_mut(name) {
                *version = "".into();
            }
            self.asked.insert(name.clone());
            self.dirty.insert(name.clone());
        } else {
            self.drop_name(name);
        }
    }

    fn drop_name(&mut self, name: &Arc<str>) {
        self.sent.remove(name);
        self.dirty.remove(name);
        self.asked.remove(name);
        self.gone.remove(name);
    }

    fn leave_wildcard(&mut self) {
        self.wildcard = false;
        self.answer = false;
        let left: Vec<Arc<str>> =
            self.sent.keys().chain(&self.dirty).filter(|name| !self.names.contains(*name)).cloned().collect();
        left.iter().for_each(|name| self.drop_name(name));
    }
}

impl Machine for DeltaMachine {
    type Request = DeltaRequest;
    type Response = DeltaResponse;

    fn request(&mut self, request: DeltaRequest, source: &dyn SnapshotSource, now: SystemTime) -> Result<(), BadRequest> {
        let state = &mut self.kinds[request.kind.index()];
        state.answered(&request, now);
        let first = !std::mem::replace(&mut state.open, true);
        let starred = request.subscribe.iter().any(|name| &**name == WILDCARD);
        let all = starred || (first && request.subscribe.is_empty());
        if first {
            let asked: HashSet<&Arc<str>> = request.subscribe.iter().collect();
            state.sent = request.initial.into_iter().filter(|(name, _)| all || asked.contains(name)).collect();
        }
        if all {
            if !first {
                state.force_all();
            }
            state.wildcard = true;
            state.answer = true;
            state.look_at_all(request.kind, source, &self.scope);
        }
        for name in request.subscribe {
            if &*name != WILDCARD {
                state.subscribe(name, first);
            }
        }
        for name in &request.unsubscribe {
            if &**name != WILDCARD {
                state.unsubscribe(name);
            } else if state.wildcard {
                state.leave_wildcard();
            }
        }
        if state.names.len() > MAX_NAMES {
            return Err(BadRequest::TooMuch { what: "the subscription", found: state.names.len(), most: MAX_NAMES });
        }
        Ok(())
    }

    fn changes(&mut self, changes: Changes, source: &dyn SnapshotSource) {
        self.position = changes.position;
        match changes.names {
            Some(names) => {
                for (kind, name) in names {
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

    fn response(&mut self, source: &dyn SnapshotSource, hold: bool) -> Option<DeltaResponse> {
        for kind in Kind::ALL {
            if let Some(response) = self.next_set(kind, source, hold) {
                return Some(response);
            }
        }
        if self.kinds.iter().any(|state| !state.dirty.is_empty()) {
            return None;
        }
        Kind::ALL.into_iter().rev().find_map(|kind| self.next_removal(kind, source))
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn held(&self) -> Vec<KindView> {
        let open = Kind::ALL.into_iter().zip(&self.kinds).filter(|(_, state)| state.open);
        let view = |(kind, state): (Kind, &Subscription)| KindView {
            kind,
            version: state.acked.clone(),
            resources: state.sent.len().saturating_sub(state.refused.named()),
            pending: !state.in_flight.is_empty() || !state.dirty.is_empty() || !state.gone.is_empty(),
        };
        open.map(view).collect()
    }

    fn nacks(&self) -> Vec<Nack> {
        self.kinds.iter().flat_map(|state| state.refused.nacks().cloned()).collect()
    }
}
