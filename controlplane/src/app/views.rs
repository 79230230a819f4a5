//! What each of several control planes has read from its own providers, told to the others as digests, so that it shows when they serve different things. It changes
//! no configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{Context, SHA256};
use heddle_node::clock;
use heddle_node::drain::DrainWatch;
use prometheus::{IntGaugeVec, Opts, Registry};
use serde_json::{Value, json};
use tokio::sync::broadcast::Receiver;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::leader::Leader;
use crate::state::{Keeper, State};
use crate::store::{News, RecordWrite, Records};

/// Records of what control planes have read, by control plane.
const VIEW: &str = "view/";
/// How often is looked.
const EVERY: Duration = Duration::from_secs(5);
/// So long control planes may differ before that is told, in milliseconds: files are copied and Consul is heard at different moments.
const PATIENCE: u64 = 30_000;
/// Bytes of a digest that are written down.
const DIGEST: usize = 16;

/// A digest of what each provider supplies, by its name.
type View = BTreeMap<String, String>;

/// What others have read, as far as it differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    provider: String,
    /// Control planes that have read something else than this one.
    planes: Vec<String>,
    /// Unix milliseconds.
    since: u64,
}

/// What is known of it all.
#[derive(Debug, Default)]
struct Views {
    own: View,
    /// What was written down of it, as far as is known.
    said: Option<View>,
    /// By control plane.
    others: BTreeMap<String, View>,
    differences: BTreeMap<String, Difference>,
}

impl Views {
    /// A record was written, or (`None`) removed.
    fn heard(&mut self, own: &str, key: &str, body: Option<&[u8]>) {
        let Some(name) = key.strip_prefix(VIEW).filter(|name| *name != own) else { return };
        match body.and_then(|body| serde_json::from_slice(body).ok()) {
            Some(view) => drop(self.others.insert(name.to_owned(), view)),
            None => drop(self.others.remove(name)),
        }
    }

    /// Looks what differs between those that are `present`; gives what is to be told.
    fn compare(&mut self, present: &BTreeSet<String>, now: u64) -> Vec<Difference> {
        let there: Vec<(&String, &View)> = self.others.iter().filter(|(name, _)| present.contains(*name)).collect();
        let providers: BTreeSet<&String> = self.own.keys().chain(there.iter().flat_map(|(_, view)| view.keys())).collect();
        let mut differences = BTreeMap::new();
        for provider in providers {
            let differs = |(_, view): &&(&String, &View)| view.get(provider) != self.own.get(provider);
            let planes: Vec<String> = there.iter().filter(differs).map(|(name, _)| (*name).clone()).collect();
            if !planes.is_empty() {
                let since = self.differences.get(provider).map_or(now, |known| known.since);
                differences.insert(provider.clone(), Difference { provider: provider.clone(), planes, since });
            }
        }
        self.differences = differences;
        self.differences.values().filter(|one| now.saturating_sub(one.since) >= PATIENCE).cloned().collect()
    }
}

/// Who compares, and with whom.
pub(super) struct Comparing {
    pub(super) name: Arc<str>,
    pub(super) keeper: Keeper,
    pub(super) records: Arc<dyn Records>,
    pub(super) news: Option<Receiver<News>>,
    pub(super) present: watch::Receiver<Option<BTreeSet<String>>>,
    pub(super) leader: Leader,
    pub(super) shown: Shown,
}

/// What differs, for people.
#[derive(Debug, Clone, Default)]
pub(super) struct Shown(Arc<ArcSwap<Vec<Difference>>>);

impl Shown {
    /// An array of objects, one for each provider about which control planes differ.
    pub(super) fn json(&self) -> Value {
        let one = |one: &Difference| json!({ "provider": one.provider, "control_planes": one.planes, "since_ms": one.since });
        self.0.load().iter().map(one).collect()
    }

    /// The same as a metric: of each provider about which control planes differ, how many others have read something else.
    pub(super) fn expose(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        let help = "Other control planes that have read something else from a provider than this one, for 30 s or longer.";
        let differ = IntGaugeVec::new(Opts::new("heddle_provider_differing_control_planes", help), &["provider"])?;
        for one in self.0.load().iter() {
            differ.with_label_values(&[&one.provider]).set(i64::try_from(one.planes.len()).unwrap_or(i64::MAX));
        }
        registry.register(Box::new(differ))
    }
}

impl Comparing {
    /// Tells what is read here, and looks what others read, until the drain begins.
    pub(super) async fn run(mut self, mut drain: DrainWatch) {
        let (mut views, mut generation) = (Views::default(), None);
        let mut is_read = false;
        loop {
            is_read = self.listen(&mut views, is_read).await;
            let state = self.keeper.state();
            if generation.replace(state.generation) != Some(state.generation) {
                views.own = digests(&state);
            }
            if views.said.as_ref() != Some(&views.own) && self.say(&views.own).await {
                views.said = Some(views.own.clone());
            }
            self.look(&mut views).await;
            tokio::select! {
                () = sleep(EVERY) => {}
                () = drain.draining() => break,
            }
        }
        let _ = self.records.record(vec![RecordWrite::Remove(format!("{VIEW}{}", self.name))], Vec::new()).await;
    }

    /// Takes over what was written since; `false`: something was missed, and all is to be read the next time.
    async fn listen(&mut self, views: &mut Views, mut is_read: bool) -> bool {
        while let Some(news) = &mut self.news {
            match news.try_recv() {
                Ok(told) if !told.is_empty() => {
                    told.iter().for_each(|(key, body)| views.heard(&self.name, key, body.as_deref()));
                }
                Ok(_) | Err(tokio::sync::broadcast::error::TryRecvError::Lagged(_)) => is_read = false,
                Err(_) => break,
            }
        }
        if !is_read && let Ok(all) = self.records.records().await {
            views.others.clear();
            let own = format!("{VIEW}{}", self.name);
            if !all.iter().any(|(key, _)| *key == own) {
                views.said = None;
            }
            all.iter().for_each(|(key, body)| views.heard(&self.name, key, Some(body)));
            return true;
        }
        is_read
    }

    async fn say(&self, view: &View) -> bool {
        // Texts always have a form in JSON.
        let body = serde_json::to_vec(view).unwrap_or_default();
        let written = self.records.record(vec![RecordWrite::Set(format!("{VIEW}{}", self.name), body)], Vec::new()).await;
        written.is_ok()
    }

    async fn look(&self, views: &mut Views) {
        let Some(present) = self.present.borrow().clone() else { return };
        let (before, now) = (self.shown.0.load_full(), views.compare(&present, clock::unix_ms()));
        for one in now.iter().filter(|one| !before.contains(one)) {
            tracing::warn!(
                provider = one.provider,
                others = ?one.planes,
                "other control planes have read something else from this provider: see that all have the same files and reach the same Consul, and no broken source"
            );
        }
        self.shown.0.store(Arc::new(now));
        let gone = views.others.keys().filter(|name| !present.contains(*name));
        let writes: Vec<RecordWrite> = gone.map(|name| RecordWrite::Remove(format!("{VIEW}{name}"))).collect();
        if self.leader.leads() && !writes.is_empty() {
            // What is not removed now is removed the next time.
            let _ = self.records.record(writes, Vec::new()).await;
        }
    }
}

/// A digest of all resources of each provider.
fn digests(state: &State) -> View {
    let mut contexts: BTreeMap<String, Context> = BTreeMap::new();
    for (key, stored) in state.all() {
        let Some(provider) = key.provider() else { continue };
        let context = contexts.entry(provider.to_owned()).or_insert_with(|| Context::new(&SHA256));
        context.update(format!("{key}\n{}\n", stored.value).as_bytes());
    }
    let hex = |context: Context| heddle_node::hex::encode(&context.finish().as_ref()[..DIGEST]);
    contexts.into_iter().map(|(provider, context)| (provider, hex(context))).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::model::{Key, ResourceKind};
    use crate::state::Stored;

    fn view(text: &str) -> View {
        BTreeMap::from([("file".to_owned(), text.to_owned())])
    }

    #[test]
    fn who_has_read_something_else_is_named_once_that_has_lasted() {
        let mut views = Views { own: view("a"), ..Views::default() };
        let present = BTreeSet::from(["one", "two", "three"].map(str::to_owned));
        let body = |text: &str| serde_json::to_vec(&view(text)).unwrap();
        views.heard("one", "view/one", Some(&body("b")));
        views.heard("one", "view/two", Some(&body("a")));
        views.heard("one", "view/gone", Some(&body("b")));
        views.heard("one", "mesh/vips/x", Some(&body("b")));
        assert!(views.compare(&present, 0).is_empty() && views.differences.is_empty());
        views.heard("one", "view/three", Some(b"{}"));
        assert!(views.compare(&present, 1_000).is_empty(), "not yet");
        let told = views.compare(&present, 1_000 + PATIENCE);
        assert_eq!(told, [Difference { provider: "file".into(), planes: vec!["three".into()], since: 1_000 }]);
        views.heard("one", "view/three", Some(&body("a")));
        assert!(views.compare(&present, 40_000).is_empty());
        views.heard("one", "view/two", None);
        assert_eq!(views.others.len(), 2);
    }

    #[test]
    fn a_digest_is_of_what_a_provider_supplies() {
        let put = |state: &mut State, id: &str, n: u64| {
            let stored = Stored { value: json!({ "n": n }), created: 1, modified: 1, expires_at_ms: None };
            state.set(&Key::new(ResourceKind::Route, id), Some(Arc::new(stored)));
        };
        let (mut one, mut two) = (State::default(), State::default());
        put(&mut one, "r1@file", 1);
        put(&mut two, "r1@file", 1);
        put(&mut two, "r2", 1);
        assert_eq!(digests(&one), digests(&two), "what is in the store is the same for all");
        put(&mut two, "r1@file", 2);
        assert_ne!(digests(&one), digests(&two));
        assert_eq!(digests(&two).len(), 1);
    }
}
