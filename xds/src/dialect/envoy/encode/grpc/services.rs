//! Services of the mesh as clients of gRPC ask for them: a host with one route, and an upstream whose endpoints prove an identity. It encodes nothing.

use std::sync::Arc;

use heddle_node::drain::DrainWatch;

use super::super::mesh::{as_route, host_of};
use crate::model::{ADDRESS_PREFIX, Kind, MESH_PREFIX, MeshService, Resource, Route, RouteMatch};
use crate::snapshot::{Change, Changes, SnapshotFeed, SnapshotSource, SnapshotStore, View};

/// The services that a snapshot has, as routes and upstreams in a snapshot of its own that follows it until the drain begins; with the policies, which servers ask.
pub(in super::super) fn project(feed: &Arc<dyn SnapshotFeed>, mut drain: DrainWatch) -> Arc<SnapshotStore> {
    let (store, mut signal, view) = (Arc::new(SnapshotStore::new()), feed.watch(), feed.view());
    let mut position = view.position();
    store.apply(changed(&view, &Changes { position, names: None }));
    let (follower, feed) = (Arc::downgrade(&store), feed.clone());
    tokio::spawn(async move {
        loop {
            tokio::select! {
                changed = signal.changed() => if changed.is_err() { return },
                () = drain.draining() => return,
            }
            let Some(store) = follower.upgrade() else { return };
            signal.borrow_and_update();
            let view = feed.view();
            let changes = feed.changed_between(position, view.position());
            position = view.position();
            let gone = if changes.names.is_none() { all_but(&store, &view) } else { Vec::new() };
            store.apply(gone.into_iter().chain(changed(&view, &changes)).collect());
        }
    });
    store
}

/// What of the model speaks of services.
fn speaks(kind: Kind, name: &str) -> bool {
    match kind {
        Kind::MeshService | Kind::MeshInbound | Kind::AuthorizationPolicy => true,
        Kind::Endpoints => name.starts_with(MESH_PREFIX),
        _ => false,
    }
}

/// What differs by these changes.
fn changed(view: &View, changes: &Changes) -> Vec<Change> {
    let of = |kind: Kind| view.all(kind).1.iter().map(|(name, _)| (kind, name.clone())).collect::<Vec<_>>();
    let names = changes.names.clone().unwrap_or_else(|| Kind::ALL.into_iter().flat_map(of).collect());
    let concerned = names.into_iter().filter(|(kind, name)| speaks(*kind, name));
    concerned.flat_map(|(kind, name)| one(view, kind, &name)).collect()
}

fn one(view: &View, kind: Kind, name: &Arc<str>) -> Vec<Change> {
    let found = view.find(kind, name).map(|found| &found.resource);
    match (kind, found) {
        (Kind::MeshService, found) => {
            let upstream: Arc<str> = format!("{MESH_PREFIX}{name}").into();
            // Addresses have no name, and further ports are asked for by agents of ours alone.
            let is_whole = !name.starts_with(ADDRESS_PREFIX) && (name.contains('#') || !name.contains(':'));
            let spoken = match found {
                Some(Resource::MeshService(service)) if is_whole && service.upstream.scheme.is_h2() => Some(service),
                _ => None,
            };
            match spoken {
                // A subset is led to, and has no name that could be called.
                Some(service) if name.contains('#') => vec![Change::Set(Resource::Upstream(service.upstream.clone()))],
                Some(service) => {
                    vec![Change::Set(Resource::Upstream(service.upstream.clone())), Change::Set(Resource::Route(route(service)))]
                }
                None => vec![Change::Remove(Kind::Route, name.clone()), Change::Remove(Kind::Upstream, upstream)],
            }
        }
        (_, Some(resource)) => vec![Change::Set(resource.clone())],
        (kind, None) => vec![Change::Remove(kind, name.clone())],
    }
}

/// What is there and speaks of nothing that the view has.
fn all_but(store: &SnapshotStore, view: &View) -> Vec<Change> {
    let held = store.view();
    let of = |kind: Kind| held.all(kind).1.iter().map(|(name, _)| (kind, name.clone())).collect::<Vec<_>>();
    let is_there = |kind: Kind, name: &str| match kind {
        Kind::Route => view.find(Kind::MeshService, name).is_some(),
        Kind::Upstream => name.strip_prefix(MESH_PREFIX).is_some_and(|name| view.find(Kind::MeshService, name).is_some()),
        kind => view.find(kind, name).is_some(),
    };
    let gone = Kind::ALL.into_iter().flat_map(of).filter(|(kind, name)| !is_there(*kind, name));
    gone.map(|(kind, name)| Change::Remove(kind, name)).collect()
}

/// All calls of a service, by any of its names.
fn route(service: &MeshService) -> Route {
    let (namespace, bare) = service.name.split_once('/').unwrap_or_default();
    let hosts = [host_of(&service.name), format!("{bare}.{namespace}.svc.cluster.local"), format!("{bare}.{namespace}")];
    let hosts = hosts.into_iter().map(Arc::from).collect();
    Route { matches: RouteMatch { uris: vec!["/*".into()], hosts, ..RouteMatch::default() }, ..as_route(service) }
}
