//! The state-of-the-world client: is told everything and finds out what differs. It knows neither gRPC nor time.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::demand::{Asked, Asks};
use super::holdings::{Candidates, Held, Holdings};
use super::{ClientMachine, SetResource, TypedUpdate};
use crate::codec::InvalidResource;
use crate::model::Kind;
use crate::protocol::{Names, SotwRequest, SotwResponse, nack_text};
use crate::snapshot::version_of;

/// The state of a state-of-the-world client. It outlives its streams.
#[derive(Debug, Default)]
pub struct SotwClient {
    holdings: Holdings,
    asked: Asked,
    /// Names that no response has answered yet.
    unanswered: [BTreeSet<Arc<str>>; Kind::ALL.len()],
    /// Nonce of the last response of each kind on this stream.
    nonces: [Arc<str>; Kind::ALL.len()],
    /// Version of the last response of each kind that was accepted in whole.
    versions: [Arc<str>; Kind::ALL.len()],
    /// The good part of a refused response is held: that is no version of the server's, so the next stream asks for everything.
    mixed: [bool; Kind::ALL.len()],
}

impl SotwClient {
    /// A client that holds something already; the control plane sends everything once, and only differences reach the consumer.
    pub fn new(holdings: Holdings, asked: Asked) -> SotwClient {
        SotwClient { holdings, asked, ..SotwClient::default() }
    }

    /// All names asked for; none is everything.
    fn names(&self, kind: Kind) -> Names {
        self.asked.names(kind).map(|names| names.iter().collect()).unwrap_or_default()
    }
}

/// A response that waits for the consumer.
#[derive(Debug)]
pub struct OpenSotw {
    nonce: Arc<str>,
    version: Arc<str>,
    candidates: Candidates,
}

impl ClientMachine for SotwClient {
    type Request = SotwRequest;
    type Response = SotwResponse;
    type Open = OpenSotw;

    fn hello(&mut self) -> Vec<SotwRequest> {
        self.nonces = Default::default();
        let ask = |kind: Kind| SotwRequest {
            kind,
            version: if self.mixed[kind.index()] { "".into() } else { self.versions[kind.index()].clone() },
            names: self.names(kind),
            nonce: "".into(),
            error: None,
        };
        let mut hello: Vec<SotwRequest> = self.asked.kinds().map(ask).collect();
        // The last one is answered though nothing has changed: by that it is known that the others have been.
        if let Some(last) = hello.last_mut() {
            last.version = "".into();
        }
        hello
    }

    /// A response is compared with what is held, so the one before it must be settled.
    fn joins(&self, open: &[OpenSotw], response: &SotwResponse) -> bool {
        open.iter().all(|open| open.candidates.kind != response.kind)
    }

    fn receive(&mut self, response: SotwResponse) -> (TypedUpdate, OpenSotw) {
        let kind = response.kind;
        let mut candidates = Candidates::new(kind);
        let (mut set, mut seen) = (Vec::new(), BTreeSet::new());
        for raw in &response.resources {
            let version = version_of(&raw.body);
            let Some((name, resource)) = candidates.decode(raw, &self.holdings) else { continue };
            seen.insert(name.clone());
            if self.holdings.get(kind, &name).is_some_and(|held| held.version == version) {
                continue;
            }
            candidates.set.insert(name.clone(), Held { version: version.clone(), body: raw.body.clone() });
            set.push(SetResource { name, version, resource });
        }
        seen.extend(candidates.rejected.iter().map(|fault| fault.name.clone()));
        let missing: Vec<_> =
            std::mem::take(&mut self.unanswered[kind.index()]).into_iter().filter(|name| !seen.contains(name)).collect();
        // A bad resource that does not even say its name may be any of those that are held: then nothing is taken away.
        if !seen.contains("") {
            candidates.removed =
                self.holdings.list(kind).map(|(name, _)| name).filter(|name| !seen.contains(*name)).cloned().collect();
        }
        candidates.removed.extend(missing.into_iter().filter(|name| self.holdings.get(kind, name).is_none()));
        let update = TypedUpdate { kind, set, removed: candidates.removed.clone(), rejected: candidates.rejected.clone() };
        (update, OpenSotw { nonce: response.nonce, version: response.version, candidates })
    }

    fn settle(&mut self, open: OpenSotw, rejected: &[InvalidResource]) -> SotwRequest {
        let kind = open.candidates.kind;
        let refused = open.candidates.settle(rejected, &mut self.holdings);
        let error = (!refused.is_empty()).then(|| nack_text(&refused));
        self.mixed[kind.index()] = error.is_some();
        if error.is_none() {
            self.versions[kind.index()] = open.version;
        }
        self.nonces[kind.index()] = open.nonce.clone();
        SotwRequest { kind, version: self.versions[kind.index()].clone(), names: self.names(kind), nonce: open.nonce, error }
    }

    fn ask(&mut self, asks: Asks) -> (Option<SotwRequest>, Vec<Arc<str>>) {
        let kind = asks.kind;
        if !self.asked.change(&asks) {
            return (None, Vec::new());
        }
        let gone = asks.dropped.iter().filter(|name| self.holdings.remove(kind, name).is_some()).cloned().collect();
        let unanswered = &mut self.unanswered[kind.index()];
        unanswered.retain(|name| !asks.dropped.contains(name));
        unanswered.extend(asks.added);
        // What is held is no version of the server's any more, so that the next stream asks for everything.
        self.mixed[kind.index()] = true;
        let (version, nonce) = (self.versions[kind.index()].clone(), self.nonces[kind.index()].clone());
        (Some(SotwRequest { kind, version, names: self.names(kind), nonce, error: None }), gone)
    }

    fn holdings(&self) -> &Holdings {
        &self.holdings
    }
}
