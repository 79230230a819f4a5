//! Files as people write them, and changes as editors, deployments and Kubernetes make them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::symlink;

use heddle_node::config::{Document, Expansion, Format, Mistakes};
use heddle_node::drain;
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::resources::{FilePlaces, Source, read};
use super::*;
use crate::model::{Key, ResourceKind};
use crate::state::{Content, Locate};

fn environment() -> Arc<dyn Environment + Send + Sync> {
    Arc::new(|name: &str| (name == "BACKEND").then(|| "10.0.0.1:80".to_owned()))
}

fn document(text: &str) -> Document {
    Document::parse("conf/apisix.yaml", text, Format::Yaml, Expansion::Off).unwrap()
}

fn resources(text: &str) -> Result<Vec<(String, Value)>, Mistakes> {
    let found = read(&document(text), "file")?;
    Ok(found.resources.into_iter().map(|(key, value)| (key.to_string(), value)).collect())
}

fn fault(text: &str) -> String {
    resources(text).unwrap_err().to_string()
}

#[test]
fn an_apisix_file_reads_unchanged() {
    let text = "\
routes:
  - uri: /hello
    upstream_id: 1
  - id: r2
    uri: /x
routes_conf_version: 7
upstreams:
  - id: 1
    nodes: {\"127.0.0.1:1980\": 1}
consumers:
  - username: jack
    plugins: {}
  - id: jack/credentials/c1
    plugins: {key-auth: {key: k}}
plugin_metadata:
  - id: http-logger
    log_format: {}
secrets:
  - id: vault/1
    prefix: kv
plugins:
  - name: key-auth
stream_routes: []
#END
";
    let expected = [
        ("routes/apisix-routes-1", json!({"uri": "/hello", "upstream_id": 1, "id": "apisix-routes-1@file"})),
        ("routes/r2", json!({"uri": "/x", "id": "r2@file"})),
        ("upstreams/1", json!({"nodes": {"127.0.0.1:1980": 1}, "id": "1@file"})),
        ("consumers/jack", json!({"username": "jack", "plugins": {}})),
        ("consumers/jack/credentials/c1", json!({"plugins": {"key-auth": {"key": "k"}}, "id": "c1@file"})),
        ("plugin_metadata/http-logger", json!({"log_format": {}, "id": "http-logger@file"})),
        ("secrets/vault/1", json!({"prefix": "kv", "id": "1@file"})),
    ];
    let expected: Vec<(String, Value)> = expected.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    assert_eq!(resources(text).unwrap(), expected);
}

#[test]
fn maps_by_id_and_nested_credentials_are_understood() {
    let text = "\
routes: {r1: {uri: /a}}
consumers:
  jack:
    credentials: {c1: {plugins: {}}}
  jill: {username: jill, credentials: [{id: c2}]}
listeners: [{name: http, address: \"0.0.0.0:80\"}]
";
    let keys: Vec<String> = resources(text).unwrap().into_iter().map(|(key, _)| key).collect();
    let expected = [
        "routes/r1",
        "consumers/jack/credentials/c1",
        "consumers/jack",
        "consumers/jill/credentials/c2",
        "consumers/jill",
        "listeners/http",
    ];
    assert_eq!(keys, expected);
    assert_eq!(resources(text).unwrap()[2].1, json!({"username": "jack"}));
    assert_eq!(resources("").unwrap(), []);
    assert_eq!(resources("routes:\n#END").unwrap(), []);
}

#[test]
fn every_mistake_of_the_frame_is_told_with_its_place() {
    let text = "\
route: []
streams: 1
stream_routes: [{}]
upstreams: 5
routes:
  - {id: r1, uri: /}
  - {id: r1, uri: /}
  - {id: a@b}
  - 7
consumers: [{plugins: {}}, {username: [1]}, {username: j, credentials: [{id: k/credentials/c}]}]
services: {s: {id: t}}
secrets: [{id: plain}]
plugin_configs: [{desc: no id}]
";
    let expected = "\
conf/apisix.yaml:1:1: route: unknown collection; did you mean `routes`?
conf/apisix.yaml:2:1: streams: unknown collection; did you mean `upstreams`?
conf/apisix.yaml:3:1: stream_routes: `stream_routes` are not supported yet; remove them
conf/apisix.yaml:4:12: upstreams: expected a list of resources or a map from id to resource, found a number
conf/apisix.yaml:7:5: routes[1]: routes/r1 is defined twice, first at line 6
conf/apisix.yaml:8:5: routes[2]: expected an id of at most 256 letters, digits, `-`, `_` and `.` (`@` and the provider are added by themselves), found the id `a@b`
conf/apisix.yaml:9:5: routes[3]: expected a route (a map), found a number
conf/apisix.yaml:10:13: consumers[0]: the key `username` is missing
conf/apisix.yaml:10:39: consumers[1].username: expected a string or a whole number, found a list
conf/apisix.yaml:10:73: consumers[2].credentials[0]: expected an id `USERNAME/credentials/ID`, found the id `k/credentials/c`
conf/apisix.yaml:11:15: services[\"s\"]: expected `id` to be the key it stands under (`s`), found `t`
conf/apisix.yaml:12:11: secrets[0]: expected an id `MANAGER/ID` (vault/1), found the id `plain`
conf/apisix.yaml:13:18: plugin_configs[0]: the key `id` is missing";
    assert_eq!(fault(text), expected);
    assert!(fault("- 1").contains("expected a map of collections"));
}

#[test]
fn faults_are_located_in_the_file() {
    let text = "routes:\n  - id: r1\n    plugins:\n      limit-count:\n        count: x\nupstreams:\n  u.1: {type: roundrobin}\n";
    let places = FilePlaces::new(Source {
        file: "conf/apisix.yaml".into(),
        text: text.into(),
        format: Format::Yaml,
        environment: Arc::new(|_: &str| None::<String>),
        provider: "file".into(),
    });
    let route = Key::new(ResourceKind::Route, "r1");
    assert_eq!(places.place(&route, "plugins.limit-count.count").unwrap(), "conf/apisix.yaml:5:16");
    assert_eq!(places.place(&route, "missing").unwrap(), "conf/apisix.yaml:2:5");
    assert_eq!(places.place(&Key::new(ResourceKind::Upstream, "u.1"), "type").unwrap(), "conf/apisix.yaml:7:15");
    assert_eq!(places.place(&Key::new(ResourceKind::Route, "other"), ""), None);
}

struct Folder {
    dir: TempDir,
    scanner: Scanner,
}

impl Folder {
    fn new() -> Folder {
        let dir = tempfile::tempdir().unwrap();
        let scanner = Scanner::new(dir.path().to_owned(), "file".into(), environment());
        Folder { dir, scanner }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).unwrap();
    }

    /// What changed: the file's name and the number of resources, `gone`, or the first error.
    fn look(&mut self) -> Vec<(String, String)> {
        self.scanner.look().iter().map(told).collect()
    }
}

fn told(update: &Update) -> (String, String) {
    let name = update.source.rsplit('/').next().unwrap().to_owned();
    let text = match &update.content {
        Content::Whole(list) => list.len().to_string(),
        Content::Gone => "gone".to_owned(),
        Content::Broken(errors) => errors[0].clone(),
    };
    (name, text)
}

fn one(name: &str, text: &str) -> Vec<(String, String)> {
    vec![(name.to_owned(), text.to_owned())]
}

#[test]
fn each_file_of_a_directory_is_a_source_of_its_own() {
    let mut folder = Folder::new();
    assert_eq!(folder.look(), []);
    folder.write("a.yaml", "routes: [{id: 1, uri: /}]");
    folder.write("b.json", r#"{"routes": [{"id": "2"}, {"id": "3"}]}"#);
    folder.write("notes.txt", "not ours");
    folder.write(".hidden.yaml", "routes: 1");
    assert_eq!(folder.look(), [("a.yaml".into(), "1".into()), ("b.json".into(), "2".into())]);
    assert_eq!(folder.look(), []);
    folder.write("a.yaml", "routes: [{id: 1, uri: /}]");
    assert_eq!(folder.look(), [], "written anew, but the same");
    fs::remove_file(folder.dir.path().join("b.json")).unwrap();
    assert_eq!(folder.look(), one("b.json", "gone"));
}

#[test]
fn a_change_of_equal_length_at_once_is_seen() {
    let mut folder = Folder::new();
    folder.write("a.yaml", "routes: [{id: 1}]");
    folder.look();
    folder.write("a.yaml", "routes: [{id: 2}]");
    assert_eq!(folder.look(), one("a.yaml", "1"));
}

#[test]
fn a_broken_file_is_told_once_and_again_when_it_changes() {
    let mut folder = Folder::new();
    folder.write("a.yaml", "routes: [");
    let told = folder.look();
    assert!(told[0].1.contains("a.yaml:1:9: expected YAML"), "{told:?}");
    assert_eq!(folder.look(), []);
    folder.write("a.yaml", "");
    assert!(folder.look()[0].1.contains("found an empty file"));
    folder.write("a.yaml", "{}");
    assert_eq!(folder.look(), one("a.yaml", "0"));
    symlink("nowhere", folder.dir.path().join("b.yaml")).unwrap();
    assert!(folder.look()[0].1.contains("found nothing"));
}

#[test]
fn links_are_followed_and_their_swap_is_seen() {
    let mut folder = Folder::new();
    let path = folder.dir.path().to_owned();
    for (version, id) in [("..v1", "1"), ("..v2", "2")] {
        fs::create_dir(path.join(version)).unwrap();
        fs::write(path.join(version).join("r.yaml"), format!("routes: [{{id: '{id}'}}]")).unwrap();
    }
    symlink("..v1", path.join("..data")).unwrap();
    symlink("..data/r.yaml", path.join("r.yaml")).unwrap();
    assert_eq!(folder.look(), one("r.yaml", "1"));
    symlink("..v2", path.join("..new")).unwrap();
    fs::rename(path.join("..new"), path.join("..data")).unwrap();
    let batch = folder.scanner.look();
    assert_eq!(batch[0].content, Content::Whole(vec![(Key::new(ResourceKind::Route, "2"), json!({"id": "2@file"}))]));
}

#[test]
fn a_directory_that_goes_away_takes_nothing_along() {
    let mut folder = Folder::new();
    folder.write("a.yaml", "{}");
    folder.look();
    let (path, aside) = (folder.dir.path().to_owned(), folder.dir.path().with_extension("aside"));
    fs::rename(&path, &aside).unwrap();
    let told = folder.look();
    assert!(told.len() == 1 && told[0].1.ends_with("expected a file or a directory, found nothing"), "{told:?}");
    assert_eq!(folder.look(), []);
    fs::rename(&aside, &path).unwrap();
    assert_eq!(folder.look().len(), 1, "the trouble is withdrawn");
}

#[test]
fn a_single_file_may_come_later_and_use_variables() {
    let folder = Folder::new();
    let path = folder.dir.path().join("r.yaml");
    let mut scanner = Scanner::new(path.clone(), "file".into(), environment());
    assert!(told(&scanner.look()[0]).1.contains("found nothing"));
    fs::write(&path, "upstreams: [{id: u, nodes: {\"${{BACKEND}}\": 1}}]").unwrap();
    let expected = json!({"nodes": {"10.0.0.1:80": 1}, "id": "u@file"});
    assert_eq!(scanner.look()[0].content, Content::Whole(vec![(Key::new(ResourceKind::Upstream, "u"), expected)]));
    fs::remove_file(&path).unwrap();
    assert!(matches!(scanner.look()[0].content, Content::Broken(_)));
    fs::write(&path, "upstreams: [{id: u, nodes: {\"${{BACKEND}}\": 1}}]").unwrap();
    assert!(matches!(scanner.look()[0].content, Content::Whole(_)), "the trouble is withdrawn though the content is the same");
    let odd = folder.dir.path().join("r.toml");
    fs::write(&odd, "x").unwrap();
    assert!(told(&Scanner::new(odd, "file".into(), environment()).look()[0]).1.contains("ends in .yaml"));
}

const PATIENCE: Duration = Duration::from_secs(30);

/// Starts a provider on `path` and hands its reports over.
async fn running(path: &Path, timing: Timing, story: impl AsyncFnOnce(&mut mpsc::Receiver<Batch>)) {
    let settings = FileSettings { path: path.to_owned(), watch: true };
    let mut provider = FileProvider { timing, ..FileProvider::new(settings, environment()) };
    let (completion, watch) = drain::pair();
    let (updates, mut reports) = mpsc::channel(1);
    let task = tokio::spawn(async move { provider.run(updates, watch).await });
    story(&mut reports).await;
    assert_eq!(completion.drain(PATIENCE, PATIENCE).await, drain::Drained::Clean);
    task.await.unwrap().unwrap();
}

async fn next(reports: &mut mpsc::Receiver<Batch>) -> Vec<(String, String)> {
    let batch = tokio::time::timeout(PATIENCE, reports.recv()).await.unwrap().unwrap();
    batch.iter().map(told).collect()
}

#[tokio::test]
async fn the_operating_system_tells_of_changes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.yaml");
    fs::write(&path, "routes: []").unwrap();
    let timing = Timing { poll: Duration::from_secs(3600), ..Timing::default() };
    running(&path, timing, async |reports| {
        assert_eq!(next(reports).await, one("r.yaml", "0"));
        fs::write(dir.path().join("new"), "routes: [{id: 1}]").unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();
        assert_eq!(next(reports).await, one("r.yaml", "1"));
    })
    .await;
}

#[tokio::test]
async fn changes_are_found_without_events_too() {
    let dir = tempfile::tempdir().unwrap();
    let timing = Timing { poll: Duration::from_millis(5), events: false, ..Timing::default() };
    running(dir.path(), timing, async |reports| {
        assert_eq!(next(reports).await, [], "the first report comes even when there is nothing");
        fs::write(dir.path().join("new"), "routes: [{id: 1}]").unwrap();
        fs::rename(dir.path().join("new"), dir.path().join("a.yml")).unwrap();
        assert_eq!(next(reports).await, one("a.yml", "1"));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_changes_is_one() {
    let (tell, mut changes) = mpsc::channel(1);
    let teller = tokio::spawn(async move {
        for _ in 0..5 {
            tell.send(()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        tell
    });
    let start = clock::now();
    settled(&mut changes, Duration::from_millis(50)).await;
    assert_eq!(start.elapsed(), Duration::from_millis(4 * 30 + 50));
    teller.await.unwrap();
}

proptest! {
    #[test]
    fn random_documents_never_panic(text in "((routes|consumers|secrets|x): ?(\\[|\\{)?(id|username|credentials|a|1|: |, |\\{|\\[|\\}|\\]|/)*\n?){0,3}") {
        if let Ok(document) = Document::parse("x.yaml", &text, Format::Yaml, Expansion::Off) {
            let _ = read(&document, "file");
        }
    }
}
