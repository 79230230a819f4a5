//! The machines, exhaustively: every rule of the protocol and every fact observed of Envoy and gRPC clients.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod delta;
mod envoy;
mod kept;
mod registry;
mod simulation;
mod sotw;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::model::{
    Certificate, Consumer, Endpoint, Endpoints, GlobalRule, Kind, Listener, ListenerProtocol, PluginMetadata, ProxyProtocol,
    Resource, Secret, SecretBody, TlsVersion,
};
use crate::server::Machine;
use crate::snapshot::{Change, Changes, NodeScope, SnapshotFeed, SnapshotSource, SnapshotStore};

pub(super) fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// A resource of a kind, with some content.
pub(super) fn resource(kind: Kind, name: &str, content: &str) -> Resource {
    let name: Arc<str> = name.into();
    match kind {
        Kind::Secret => Resource::Secret(Secret { name, body: SecretBody::Roots(content.into()) }),
        Kind::Endpoints => {
            let endpoint =
                Endpoint { host: content.into(), port: 1, weight: 1, priority: 0, zone: "".into(), ..Endpoint::default() };
            Resource::Endpoints(Endpoints { upstream: name, endpoints: [endpoint].into() })
        }
        Kind::Consumer => Resource::Consumer(Consumer {
            username: name,
            group_id: content.into(),
            credentials: vec![],
            plugins: vec![],
            labels: Default::default(),
        }),
        Kind::GlobalRule => Resource::GlobalRule(GlobalRule { id: name, plugins: vec![] }),
        Kind::Certificate => Resource::Certificate(Certificate {
            id: name,
            snis: vec![content.into()],
            secrets: vec![],
            client: None,
            min_version: TlsVersion::V1_2,
            max_version: TlsVersion::V1_3,
            listeners: Vec::new(),
        }),
        _ => {
            assert_eq!(kind, Kind::PluginMetadata);
            Resource::PluginMetadata(PluginMetadata { plugin: name, config: Arc::new(serde_json::json!({ "content": content })) })
        }
    }
}

pub(super) fn set(kind: Kind, name: &str, content: &str) -> Change {
    Change::Set(resource(kind, name, content))
}

/// A listener that names these nodes.
pub(super) fn listener(name: &str, nodes: &[&str]) -> Change {
    Change::Set(Resource::Listener(Listener {
        name: name.into(),
        address: "127.0.0.1:0".parse().unwrap(),
        protocol: ListenerProtocol::Http,
        proxy_protocol: ProxyProtocol::Off,
        forwarded: Default::default(),
        limits: Default::default(),
        paths: Default::default(),
        server_header: Default::default(),
        expose_reason: false,
        nodes: nodes.iter().map(|node| Arc::from(*node)).collect(),
        tcp: Vec::new(),
    }))
}

pub(super) fn gone(kind: Kind, name: &str) -> Change {
    Change::Remove(kind, name.into())
}

/// A snapshot with these secrets.
pub(super) fn secrets(names: &[&str]) -> SnapshotStore {
    let store = SnapshotStore::new();
    store.apply(names.iter().map(|name| set(Kind::Secret, name, "1")).collect());
    store
}

pub(super) fn version(store: &SnapshotStore, kind: Kind, name: &str) -> Arc<str> {
    store.get(kind, name, &NodeScope::default()).unwrap().version.clone()
}

/// What changed after a position.
pub(super) fn since(store: &SnapshotStore, position: u64) -> Changes {
    store.changed_between(position, store.position())
}

/// Changes the snapshot and tells the machine.
pub(super) fn change<M: Machine>(machine: &mut M, store: &SnapshotStore, changes: Vec<Change>) {
    store.apply(changes);
    machine.changes(since(store, machine.position()), store);
}

/// All responses that are due.
pub(super) fn drain<M: Machine>(machine: &mut M, store: &SnapshotStore) -> Vec<M::Response> {
    std::iter::from_fn(|| machine.response(store)).collect()
}
