//! From discovery to tables: takes batches of typed updates, compiles them, swaps the tables once per batch that can be used and says what cannot be used.

use std::collections::BTreeSet;
use std::sync::Arc;

use heddle_xds::client::{Batch, Origin, TypedUpdate};
use heddle_xds::codec::InvalidResource;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use crate::secrets::Kept;
use crate::tables::{Compiler, Tables};

/// Feeds a compiler until discovery ends, and compiles anew what refers to secrets that have changed.
pub async fn run(
    mut batches: mpsc::Receiver<Batch>,
    compiler: Arc<Mutex<Compiler>>,
    mut secrets: Kept,
    tables: watch::Sender<Arc<Tables>>,
    on_tables: impl Fn(&Arc<Tables>),
) {
    let publish = || {
        let next = compiler.lock().tables();
        on_tables(&next);
        tables.send_replace(next);
    };
    // A part of the last batch was refused, and the next one says what instead: without that part nothing of it is used.
    let mut held_back = false;
    loop {
        let batch = tokio::select! {
            batch = batches.recv() => batch,
            Some(changed) = secrets.changed() => {
                anew(&mut compiler.lock(), &changed);
                if !held_back {
                    publish();
                }
                continue;
            }
        };
        let Some(mut batch) = batch else { break };
        let wanted = wanted(&compiler.lock(), &batch);
        secrets.ready(wanted).await;
        let rejected = take(&mut compiler.lock(), std::mem::take(&mut batch.views));
        let from_disk = batch.origin == Origin::LastGood;
        let stays = if from_disk { "there is none" } else { "its last good version stays" };
        for one in &rejected {
            tracing::warn!(kind = one.kind.as_str(), name = %one.name, field = %one.field, reason = %one.reason, "a resource is refused; {stays}");
        }
        held_back = batch.whole && !rejected.is_empty();
        if !held_back {
            if from_disk {
                tracing::info!("running on the last good configuration from disk until a control plane answers");
            }
            publish();
        }
        batch.reject(rejected);
    }
}

/// The secrets that a batch refers to.
fn wanted(compiler: &Compiler, batch: &Batch) -> BTreeSet<String> {
    batch.updates().flat_map(|update| &update.set).flat_map(|set| compiler.wants(&set.resource)).collect()
}

/// Compiles what refers to these.
fn anew(compiler: &mut Compiler, changed: &BTreeSet<String>) {
    for one in compiler.referred_changed(changed) {
        tracing::warn!(kind = one.kind.as_str(), name = %one.name, field = %one.field, reason = %one.reason, "a resource cannot be used with its new secret; its last good version stays");
    }
}

/// Compiles the views of a batch.
fn take(compiler: &mut Compiler, views: Vec<Vec<TypedUpdate>>) -> Vec<InvalidResource> {
    let mut rejected = Vec::new();
    for view in views {
        for update in view {
            for set in update.set {
                rejected.extend(compiler.set(set.resource).err());
            }
            for name in update.removed {
                compiler.remove(update.kind, &name);
            }
        }
        compiler.end_view();
    }
    rejected
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use heddle_xds::client::envoy::EnvoySource;
    use heddle_xds::client::{ClientConfig, ClientStatus, Held, Holdings, SetResource, save};
    use heddle_xds::codec::encode_body;
    use heddle_xds::link::Connector;
    use heddle_xds::model::{Kind, Listener, PluginConf, PluginOrigin, Resource, Route, RouteMatch};
    use heddle_xds::protocol::NodeInfo;
    use serde_json::json;
    use tokio::sync::oneshot;

    use super::*;
    use crate::outbound::Outbound;
    use crate::secrets::References;
    use crate::upstream;

    /// A route of this id that keeps out what fits a pattern.
    fn route(id: &str, pattern: &str) -> SetResource {
        let config = Arc::new(json!({"block_rules": [pattern]}));
        let plugins = vec![PluginConf { name: "uri-blocker".into(), config, origin: PluginOrigin(id.into()) }];
        let matches = RouteMatch { uris: vec![format!("/{id}/*").into()], ..RouteMatch::default() };
        let resource = Resource::Route(Route {
            id: id.into(),
            name: "".into(),
            service_id: "".into(),
            service_name: "".into(),
            matches,
            priority: 0,
            created: 0,
            plugins,
            upstream: None,
            timeouts: None,
            enable_websocket: false,
            max_duration: None,
        });
        SetResource { name: id.into(), version: "1".into(), resource }
    }

    fn view(set: Vec<SetResource>, removed: &[&str]) -> Vec<Vec<TypedUpdate>> {
        let removed = removed.iter().map(|name| Arc::from(*name)).collect();
        vec![vec![TypedUpdate { kind: Kind::Route, set, removed, rejected: Vec::new() }]]
    }

    #[tokio::test]
    async fn a_table_without_the_route_that_keeps_out_is_never_in_use() {
        let pool = upstream::Clusters::new(Arc::default(), None, tokio::runtime::Handle::current());
        let references = References::new(Arc::new(|_: &str| None), "".into(), Outbound::default());
        let kept = references.keep().unwrap();
        let mut compiler = Compiler::new(1, pool, Outbound::default(), references);
        let (sender, tables) = watch::channel(compiler.tables());
        let (updates, batches) = mpsc::channel(1);
        tokio::spawn(run(batches, Arc::new(Mutex::new(compiler)), kept, sender, |_| ()));
        let told = async |(batch, verdict): (Batch, oneshot::Receiver<Vec<InvalidResource>>)| {
            updates.send(batch).await.unwrap();
            let refused: Vec<String> = verdict.await.unwrap().into_iter().map(|one| one.name.to_string()).collect();
            (refused, tables.borrow().routes.len())
        };
        let whole = |views| Batch::whole(Origin::ControlPlane, views);
        let guarded = view(vec![route("guard", "("), route("open", "^/x")], &[]);
        assert_eq!(told(whole(guarded.clone())).await, (vec!["guard".to_owned()], 0));
        let instead = view(vec![route("other", "^/x"), route("another", "^/x")], &["guard", "open"]);
        assert_eq!(told(whole(instead)).await, (vec![], 2), "what is said instead is used at once");
        assert_eq!(told(whole(guarded.clone())).await.1, 2);
        assert_eq!(told(Batch::new(Origin::ControlPlane, Vec::new())).await, (vec![], 3), "nothing is said instead");
        assert_eq!(told(Batch::new(Origin::ControlPlane, guarded)).await, (vec!["guard".to_owned()], 3));
    }

    #[tokio::test]
    async fn a_listener_from_disk_without_the_route_that_keeps_out_is_never_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("last-good");
        let mut disk = Holdings::default();
        let mut keep = |resource: Resource| {
            let held = Held { version: "1".into(), body: encode_body(&resource) };
            disk.insert(resource.kind(), resource.name().clone(), held);
        };
        for (listener, guard) in [("a", "("), ("b", "^/b")] {
            keep(Resource::Listener(Listener::new(listener, ([127, 0, 0, 1], 1).into())));
            for (name, pattern) in [("guard", guard), ("open", "^/x")] {
                let Resource::Route(mut at) = route(&format!("{listener}/{name}"), pattern).resource else { continue };
                at.matches.vars = Some(Arc::new(json!([["listener", "==", listener]])));
                keep(Resource::Route(at));
            }
        }
        save(&path, &disk).unwrap();

        let pool = upstream::Clusters::new(Arc::default(), None, tokio::runtime::Handle::current());
        let references = References::new(Arc::new(|_: &str| None), "".into(), Outbound::default());
        let kept = references.keep().unwrap();
        let mut compiler = Compiler::new(1, pool, Outbound::default(), references);
        let (sender, _tables) = watch::channel(compiler.tables());
        let (seen, mut all) = mpsc::unbounded_channel();
        let (updates, batches) = mpsc::channel(1);
        let note = move |tables: &Arc<Tables>| drop(seen.send((tables.listeners.keys().cloned().collect(), tables.routes.len())));
        tokio::spawn(super::run(batches, Arc::new(Mutex::new(compiler)), kept, sender, note));
        let config = ClientConfig::new(NodeInfo::default(), Connector::tcp("127.0.0.1:1").unwrap());
        let config = ClientConfig { envoy: Some(EnvoySource::followed("".into())), last_good: Some(path), ..config };
        let (status, mut told) = watch::channel(ClientStatus::default());
        tokio::spawn(heddle_xds::client::run(config, updates, status, fastrand::Rng::with_seed(1)));
        told.wait_for(|status| status.failures > 0).await.unwrap();
        let first: (Vec<Arc<str>>, usize) = all.recv().await.unwrap();
        assert_eq!(first, (vec!["b".into()], 2), "not even for a moment");
        assert!(all.is_empty() && !told.borrow().last_good);
    }
}
