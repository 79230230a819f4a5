//! The delta client: asks for everything or by name, says what it holds, and is told what differs. It knows neither gRPC nor time.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::demand::{Asked, Asks};
use super::holdings::{Candidates, Held, Holdings};
use super::{ClientMachine, SetResource, TypedUpdate};
use crate::codec::InvalidResource;
use crate::model::Kind;
use crate::protocol::{DeltaRequest, DeltaResponse, WILDCARD, nack_text};

/// The state of a delta client. It outlives its streams.
#[derive(Debug, Default)]
pub struct DeltaClient {
    holdings: Holdings,
    asked: Asked,
}

impl DeltaClient {
    /// A client that holds something already.
    pub fn new(holdings: Holdings, asked: Asked) -> DeltaClient {
        DeltaClient { holdings, asked }
    }
}

/// A response that waits for the consumer.
#[derive(Debug)]
pub struct OpenDelta {
    nonce: Arc<str>,
    candidates: Candidates,
}

impl ClientMachine for DeltaClient {
    type Request = DeltaRequest;
    type Response = DeltaResponse;
    type Open = OpenDelta;

    fn hello(&mut self) -> Vec<DeltaRequest> {
        let ask = |kind: Kind| DeltaRequest {
            subscribe: match self.asked.names(kind) {
                None => vec![WILDCARD.into()],
                Some(names) => names.iter().cloned().collect(),
            },
            initial: self
                .holdings
                .list(kind)
                .map(|(name, held)| (name.clone(), held.version.clone()))
                .collect::<BTreeMap<_, _>>(),
            ..DeltaRequest::new(kind)
        };
        self.asked.kinds().map(ask).collect()
    }

    /// Responses about different resources do not depend on each other.
    fn joins(&self, open: &[OpenDelta], response: &DeltaResponse) -> bool {
        let same = open.iter().map(|open| &open.candidates).filter(|candidates| candidates.kind == response.kind);
        let names = || response.resources.iter().map(|raw| &raw.name).chain(&response.removed);
        same.into_iter().all(|candidates| !names().any(|name| candidates.touches(name)))
    }

    fn receive(&mut self, response: DeltaResponse) -> (TypedUpdate, OpenDelta) {
        let mut candidates = Candidates::new(response.kind);
        let mut set = Vec::new();
        for raw in &response.resources {
            if let Some((name, resource)) = candidates.decode(raw, &self.holdings) {
                candidates.set.insert(name.clone(), Held { version: raw.version.clone(), body: raw.body.clone() });
                set.push(SetResource { name, version: raw.version.clone(), resource });
            }
        }
        candidates.removed = response.removed;
        let removed = candidates.removed.clone();
        let update = TypedUpdate { kind: response.kind, set, removed, rejected: candidates.rejected.clone() };
        (update, OpenDelta { nonce: response.nonce, candidates })
    }

    fn settle(&mut self, open: OpenDelta, rejected: &[InvalidResource]) -> DeltaRequest {
        let kind = open.candidates.kind;
        let refused = open.candidates.settle(rejected, &mut self.holdings);
        let error = (!refused.is_empty()).then(|| nack_text(&refused));
        DeltaRequest { nonce: open.nonce, error, ..DeltaRequest::new(kind) }
    }

    fn ask(&mut self, asks: Asks) -> (Option<DeltaRequest>, Vec<Arc<str>>) {
        if !self.asked.change(&asks) {
            return (None, Vec::new());
        }
        let gone = asks.dropped.iter().filter(|name| self.holdings.remove(asks.kind, name).is_some()).cloned().collect();
        let request = DeltaRequest {
            subscribe: asks.added.into_iter().collect(),
            unsubscribe: asks.dropped.into_iter().collect(),
            ..DeltaRequest::new(asks.kind)
        };
        (Some(request), gone)
    }

    fn holdings(&self) -> &Holdings {
        &self.holdings
    }
}
