//! The state-of-the-world client: is told everything and finds out what differs. It knows neither gRPC nor time.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::holdings::{Candidates, Held, Holdings};
use super::{ClientMachine, SetResource, TypedUpdate};
use crate::codec::InvalidResource;
use crate::model::Kind;
use crate::protocol::{SotwRequest, SotwResponse, nack_text};
use crate::snapshot::version_of;

/// The state of a state-of-the-world client. It outlives its streams.
#[derive(Debug, Default)]
pub struct SotwClient {
    holdings: Holdings,
    /// Version of the last response of each kind that was accepted in whole.
    versions: [Arc<str>; Kind::ALL.len()],
    /// The good part of a refused response is held: that is no version of the server's, so the next stream asks for everything.
    mixed: [bool; Kind::ALL.len()],
}

impl SotwClient {
    /// A client that holds something already; the control plane sends everything once, and only differences reach the consumer.
    pub fn new(holdings: Holdings) -> SotwClient {
        SotwClient { holdings, ..SotwClient::default() }
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
        let ask = |kind: Kind| SotwRequest {
            kind,
            version: if self.mixed[kind.index()] { "".into() } else { self.versions[kind.index()].clone() },
            names: Vec::new(),
            nonce: "".into(),
            error: None,
        };
        Kind::ALL.into_iter().map(ask).collect()
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
        // A bad resource that does not even say its name may be any of those that are held: then nothing is taken away.
        if !seen.contains("") {
            candidates.removed =
                self.holdings.list(kind).map(|(name, _)| name).filter(|name| !seen.contains(*name)).cloned().collect();
        }
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
        SotwRequest { kind, version: self.versions[kind.index()].clone(), names: Vec::new(), nonce: open.nonce, error }
    }

    fn holdings(&self) -> &Holdings {
        &self.holdings
    }
}
