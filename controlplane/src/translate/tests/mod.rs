//! Tests of the translation, over states built by hand. They know no store and no provider.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod explain;
mod increments;
mod mesh;
mod rules;
mod speed;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use heddle_xds::catalog::{Catalog, ConfigFault, Descriptor, Place, PluginKind};
use heddle_xds::model::{Consumer, Endpoints, Kind, Resource, Route, Upstream};
use serde_json::Value;

use super::{Change, Translator};
use crate::mesh::Directory;
use crate::model::{Key, ResourceKind, ServiceId};
use crate::state::{State, Stored};

/// A catalog of a few plugins that accepts everything.
struct Plugins(Vec<Descriptor>);

fn catalog() -> Arc<dyn Catalog> {
    let plugin = |name, priority, kind| Descriptor {
        name,
        priority,
        version: "0.1",
        kind,
        unique_consumer_field: None,
        encrypt_fields: &[],
        prefer_route: name == "prometheus",
    };
    Arc::new(Plugins(vec![
        plugin("cors", 4000, PluginKind::Plain),
        plugin("key-auth", 2500, PluginKind::Auth),
        plugin("limit-count", 1002, PluginKind::Plain),
        plugin("traffic-split", 966, PluginKind::Plain),
        plugin("prometheus", 500, PluginKind::Plain),
    ]))
}

impl Catalog for Plugins {
    fn descriptors(&self) -> &[Descriptor] {
        &self.0
    }
    fn schema(&self, _: &str, _: Place) -> Option<Value> {
        None
    }
    fn check(&self, _: &str, _: Place, _: &Value) -> Result<(), Vec<ConfigFault>> {
        Ok(())
    }
}

/// A state, its translation, and what an agent that applied every change would hold.
struct World {
    state: State,
    directory: Directory,
    translator: Translator,
    held: BTreeMap<(Kind, Arc<str>), Resource>,
}

fn key(path: &str) -> Key {
    let (collection, id) = path.split_once('/').unwrap();
    match id.split_once("/credentials/") {
        Some(_) => Key::new(ResourceKind::Credential, id),
        None => Key::new(ResourceKind::from_plural(collection).unwrap(), id),
    }
}

impl World {
    fn new() -> World {
        World {
            state: State::default(),
            directory: Directory::new("example.org"),
            translator: Translator::new(catalog()),
            held: BTreeMap::new(),
        }
    }

    /// A world that holds these resources, written as `routes/r1`.
    fn of(resources: &[(&str, Value)]) -> World {
        let mut world = World::new();
        for (path, value) in resources {
            world.put(path, value.clone());
        }
        world
    }

    fn put(&mut self, path: &str, value: Value) -> Vec<Change> {
        self.write(path, Some(value))
    }

    fn delete(&mut self, path: &str) -> Vec<Change> {
        self.write(path, None)
    }

    fn write(&mut self, path: &str, value: Option<Value>) -> Vec<Change> {
        let key = key(path);
        self.set(&key, value);
        self.apply(&[key])
    }

    /// Changes the state without telling the translator.
    fn set(&mut self, key: &Key, value: Option<Value>) {
        self.state.generation += 1;
        let modified = self.state.generation;
        let created = self.state.get(key).map_or(modified, |stored| stored.created);
        self.state.set(key, value.map(|value| Arc::new(Stored { value, created, modified, expires_at_ms: None })));
    }

    /// Translates, and checks that every change is one and keeps references whole at every step.
    fn apply(&mut self, changed: &[Key]) -> Vec<Change> {
        let services = self.directory.resources(&self.state, changed);
        self.translate(changed, &services)
    }

    fn translate(&mut self, changed: &[Key], services: &BTreeSet<ServiceId>) -> Vec<Change> {
        let changes = self.translator.apply(&self.state, &self.directory, changed, services);
        for change in &changes {
            match change {
                Change::Set(resource) => {
                    let name = (resource.kind(), resource.name().clone());
                    let before = self.held.insert(name, resource.clone());
                    assert_ne!(before.as_ref(), Some(resource), "nothing changed");
                }
                Change::Remove(kind, name) => {
                    assert!(self.held.remove(&(*kind, name.clone())).is_some(), "{kind:?} {name} was not there");
                }
            }
        }
        changes
    }

    fn get(&self, kind: Kind, name: &str) -> Option<&Resource> {
        self.held.get(&(kind, name.into()))
    }

    fn route(&self, id: &str) -> &Route {
        match self.get(Kind::Route, id) {
            Some(Resource::Route(route)) => route,
            other => panic!("route {id}: {other:?}"),
        }
    }

    /// The name of a route's upstream, empty when it has none.
    fn upstream_of(&self, id: &str) -> &str {
        self.route(id).upstream.as_ref().map_or("", |upstream| &upstream.name)
    }

    fn upstream(&self, name: &str) -> &Upstream {
        match self.get(Kind::Upstream, name) {
            Some(Resource::Upstream(upstream)) => upstream,
            other => panic!("upstream {name}: {other:?}"),
        }
    }

    /// `host:port*weight^priority` of each endpoint.
    fn endpoints(&self, name: &str) -> Vec<String> {
        match self.get(Kind::Endpoints, name) {
            Some(Resource::Endpoints(Endpoints { endpoints, .. })) => {
                endpoints.iter().map(|e| format!("{}:{}*{}^{}", e.host, e.port, e.weight, e.priority)).collect()
            }
            other => panic!("endpoints {name}: {other:?}"),
        }
    }

    fn consumer(&self, name: &str) -> &Consumer {
        match self.get(Kind::Consumer, name) {
            Some(Resource::Consumer(consumer)) => consumer,
            other => panic!("consumer {name}: {other:?}"),
        }
    }
}

/// The names of what changed, `-` before removals.
fn names(changes: &[Change]) -> Vec<String> {
    let name = |change: &Change| match change {
        Change::Set(resource) => format!("{:?} {}", resource.kind(), resource.name()),
        Change::Remove(kind, name) => format!("-{kind:?} {name}"),
    };
    changes.iter().map(name).collect()
}
