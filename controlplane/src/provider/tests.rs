//! From providers through the keeper, over the store in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use heddle_node::drain::{self, DrainWatch};
use heddle_node::readiness::Readiness;
use heddle_xds::catalog::{Catalog, ConfigFault, Descriptor, Place};
use prometheus::core::Collector;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;
use crate::model::{Fault, Key, ResourceKind};
use crate::settings::{FileSettings, ListenerSetting};
use crate::state::{Content, Keeper, Places, State, Validator};
use crate::store::Memory;
use crate::validate::Rules;

const PATIENCE: Duration = Duration::from_secs(30);

/// Routes need a `uri`.
struct Toy;

impl Validator for Toy {
    fn check(&self, candidate: &State, changed: &[Key]) -> Vec<(Key, Fault)> {
        let bad = |key: &&Key| candidate.get(key).is_some_and(|stored| stored.value["uri"] == json!(1));
        changed.iter().filter(bad).map(|key| (key.clone(), Fault::new("uri", "expected a string"))).collect()
    }
}

async fn keeper() -> Keeper {
    let clock: crate::store::Clock = Arc::new(|| 5_000);
    Keeper::start(Arc::new(Memory::new(clock.clone())), Arc::new(Toy), clock).await.unwrap()
}

/// Replaces a file as a whole.
fn replace(path: &std::path::Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, path).unwrap();
}

/// Fails twice, then reports.
struct Shaky {
    failures: u32,
}

#[async_trait]
impl Provider for Shaky {
    fn name(&self) -> &str {
        "shaky"
    }

    async fn run(&mut self, updates: mpsc::Sender<Batch>, mut shutdown: DrainWatch) -> Result<(), ProviderError> {
        if self.failures > 0 {
            self.failures -= 1;
            return Err(ProviderError("not yet".into()));
        }
        let content = Content::Whole(vec![(Key::new(ResourceKind::Route, "r"), json!({"uri": "/"}))]);
        let update = Update { provider: "shaky".into(), source: "s".into(), content, places: Places::default() };
        updates.send(vec![update]).await.unwrap();
        shutdown.draining().await;
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_provider_is_started_again_and_readiness_waits_for_it() {
    let keeper = keeper().await;
    let (_, mut changes) = keeper.subscribe();
    let readiness = Readiness::new();
    let (completion, watch) = drain::pair();
    let mut rng = fastrand::Rng::with_seed(1);
    let running = start(vec![Box::new(Shaky { failures: 2 })], &keeper, &readiness, &watch, &mut rng);
    drop(watch);
    assert_eq!(readiness.verdict().to_string(), "pending: first report of the provider `shaky`");
    assert_eq!(changes.next().await.keys, Some(vec![Key::new(ResourceKind::Route, "r@shaky")]));
    completion.drain(PATIENCE, PATIENCE).await;
    running.ended().await;
    assert!(readiness.verdict().is_ready());
}

#[tokio::test]
async fn a_bad_file_keeps_its_last_good_resources_and_says_where_it_is_bad() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.yaml");
    std::fs::write(&path, "routes:\n  - {id: a, uri: /a}\n").unwrap();
    let keeper = keeper().await;
    let (_, mut changes) = keeper.subscribe();
    let (completion, watch) = drain::pair();
    let settings = FileSettings { path: path.clone(), watch: true };
    let file = FileProvider::new(settings, Arc::new(|_: &str| None));
    let running = start(vec![Box::new(file)], &keeper, &Readiness::new(), &watch, &mut fastrand::Rng::with_seed(1));
    drop(watch);
    let a = Key::new(ResourceKind::Route, "a@file");
    let heard = tokio::time::timeout(PATIENCE, changes.next()).await.unwrap();
    assert_eq!(heard.keys, Some(vec![a.clone()]));

    // A refused content publishes nothing that could be waited for, so the test offers it itself, as the provider will.
    let bad = "routes:\n  - {id: a, uri: /b}\n  - id: x\n    uri: 1\n";
    replace(&path, bad);
    let offered = check_files(&path, Arc::new(|_: &str| None));
    keeper.offer(offered).await.unwrap();
    let status = keeper.sources()[0].clone();
    let expected = format!("{}:4:10: routes/x@file: uri: expected a string", path.display());
    assert_eq!((status.errors, status.resources), (vec![expected], 1));
    assert_eq!(keeper.state().get(&a).unwrap().value["uri"], "/a");

    let metrics = SourceMetrics::new(keeper.clone()).unwrap();
    let text = prometheus::TextEncoder::new().encode_to_string(&metrics.collect()).unwrap();
    assert!(text.contains("heddle_provider_broken_sources{provider=\"file\"} 1"), "{text}");
    assert!(text.contains("heddle_provider_resources{provider=\"file\"} 1"), "{text}");

    replace(&path, "routes:\n  - {id: a, uri: /c}\n");
    let heard = tokio::time::timeout(PATIENCE, changes.next()).await.unwrap();
    assert_eq!(heard.state.get(&a).unwrap().value["uri"], "/c");
    assert!(keeper.sources()[0].errors.is_empty());
    completion.drain(PATIENCE, PATIENCE).await;
    running.ended().await;
}

#[tokio::test]
async fn listeners_of_the_settings_are_resources_with_places() {
    let keeper = keeper().await;
    let at = Some(heddle_node::config::Position { line: 3, column: 5 });
    let listeners = vec![ListenerSetting { name: "http".into(), value: json!({"name": "http", "uri": 1}), at }];
    let provider = FixedProvider::listeners("heddle.yaml", listeners);
    keeper.offer(vec![provider.update()]).await.unwrap();
    assert_eq!(keeper.sources()[0].errors, ["heddle.yaml:3:5: listeners/http@config: uri: expected a string"]);
    let listeners = vec![ListenerSetting { name: "http".into(), value: json!({"name": "http"}), at: None }];
    keeper.offer(vec![FixedProvider::listeners("heddle.yaml", listeners).update()]).await.unwrap();
    let stored = keeper.state().get(&Key::new(ResourceKind::Listener, "http@config")).cloned().unwrap();
    assert_eq!(stored.value, json!({"name": "http", "id": "http@config"}));
}

/// A data plane that runs no plugin.
struct NoPlugins;

impl Catalog for NoPlugins {
    fn descriptors(&self) -> &[Descriptor] {
        &[]
    }

    fn schema(&self, _: &str, _: Place) -> Option<Value> {
        None
    }

    fn check(&self, name: &str, _: Place, _: &Value) -> Result<(), Vec<ConfigFault>> {
        Err(vec![ConfigFault { path: String::new(), message: format!("unknown plugin {name}") }])
    }
}

#[tokio::test]
async fn faults_of_the_rules_are_told_with_their_place() {
    let clock: crate::store::Clock = Arc::new(|| 5_000);
    let rules = Rules::new(Arc::new(NoPlugins));
    let keeper = Keeper::start(Arc::new(Memory::new(clock.clone())), Arc::new(rules), clock).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.yaml");
    let text = "\
upstreams:
  u: {nodes: {\"a.b:80\": x}}
routes:
  - id: r1
    uri: /
    upstream_id: nope
    plugins:
      no-such:
        count: 1
    hosts: [ok.org, 7]
";
    std::fs::write(&path, text).unwrap();
    keeper.offer(check_files(&path, Arc::new(|_: &str| None))).await.unwrap();
    let errors = keeper.sources()[0].errors.clone();
    for place in ["2:25: upstreams/u@file", "6:18: routes/r1@file", "8:7: routes/r1@file", "10:21: routes/r1@file"] {
        let expected = format!("{}:{place}: ", path.display());
        assert!(errors.iter().any(|error| error.starts_with(&expected)), "{expected} is not in {errors:#?}");
    }
}
