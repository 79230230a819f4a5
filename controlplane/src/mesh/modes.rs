//! Which services are to be called in clear, as their `peer_authentications` say. What is said here is all that decides it: no handshake that fails, and nothing
//! that an instance claims.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Deserialize;

use crate::model::resources::{PeerAuthentication, PeerModeKind};
use crate::model::{Key, ResourceKind, ServiceId};
use crate::state::State;

/// What a resource speaks of: a namespace, or one service of it.
pub(super) type Subject = (String, Option<String>);

/// The modes that are written.
#[derive(Debug, Clone, Default)]
pub(super) struct Modes {
    said: BTreeMap<Subject, BTreeMap<Key, PeerAuthentication>>,
    subjects: HashMap<Key, Subject>,
}

impl Modes {
    /// Takes note of a resource that came, changed or went. Gives what it spoke of and speaks of.
    pub(super) fn note(&mut self, state: &State, key: &Key) -> BTreeSet<Subject> {
        let written = state.get(key).and_then(|stored| PeerAuthentication::deserialize(&stored.value).ok());
        let mut concerned = BTreeSet::new();
        if let Some(before) = self.subjects.remove(key) {
            if let Some(said) = self.said.get_mut(&before) {
                said.remove(key);
            }
            self.said.retain(|_, said| !said.is_empty());
            concerned.insert(before);
        }
        if let Some(written) = written {
            let subject = (written.namespace.clone(), written.service.clone());
            self.subjects.insert(key.clone(), subject.clone());
            self.said.entry(subject.clone()).or_default().insert(key.clone(), written);
            concerned.insert(subject);
        }
        concerned
    }

    /// The resources of which note was taken.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.subjects.keys()
    }

    /// Whether callers are to speak in clear to these ports of applications of a service. One that is not known (0) belongs to who demands mutual TLS whatever is
    /// written: a server of gRPC, or an Envoy before one of bytes.
    pub(super) fn in_clear(&self, service: &ServiceId, applications: &BTreeSet<u16>) -> bool {
        let is_clear = |port: &u16| *port != 0 && self.at(service, *port) == Some(PeerModeKind::Disable);
        !self.said.is_empty() && !applications.is_empty() && applications.iter().all(is_clear)
    }

    /// What counts at a port of the application: the most specific that is said, and of two that speak of the same the safer one.
    fn at(&self, service: &ServiceId, port: u16) -> Option<PeerModeKind> {
        let of = |name: Option<&str>| {
            let subject = (service.namespace().to_owned(), name.map(str::to_owned));
            self.said.get(&subject).into_iter().flat_map(BTreeMap::values)
        };
        let port = port.to_string();
        let at_port = || of(Some(service.service())).filter_map(|said| said.ports.get(&port).copied()).max_by_key(safety);
        let of_service = || of(Some(service.service())).filter_map(|said| said.mode).max_by_key(safety);
        let of_namespace = || of(None).filter_map(|said| said.mode).max_by_key(safety);
        at_port().or_else(of_service).or_else(of_namespace)
    }
}

fn safety(mode: &PeerModeKind) -> u8 {
    match mode {
        PeerModeKind::Disable => 0,
        PeerModeKind::Permissive => 1,
        PeerModeKind::Strict => 2,
    }
}

/// The keys of all resources of modes in a state.
pub(super) fn listed(state: &State) -> impl Iterator<Item = Key> {
    state.list(ResourceKind::PeerAuthentication).map(|(id, _)| Key::new(ResourceKind::PeerAuthentication, id.clone()))
}
