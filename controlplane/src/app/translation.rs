//! The way from the keeper and the instances to the snapshot: every change is translated and published, nothing else is. What is known of the mesh is
//! written down behind it, so that no endpoint waits for a disk.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use heddle_node::clock;
use heddle_node::drain::DrainWatch;
use heddle_xds::catalog::Catalog;
use heddle_xds::server::{InstanceEvent, InstanceFollower, NodeRegistry};
use heddle_xds::snapshot::{Change, SnapshotStore};
use parking_lot::Mutex;
use tokio::sync::mpsc::Receiver;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::kept::Heard;
use crate::discovery::{Ask, News, Told, Watchers};
use crate::mesh::Mesh;
use crate::model::Key;
use crate::state::{Changes, Keeper, State, Subscription};
use crate::store::{Records, StoreError, fitting};
use crate::translate::Translator;

/// Between two writings of what is known of the mesh. Who restarts asks every instance again anyway.
const WRITING: Duration = Duration::from_secs(1);
/// The longest time between two tries to write what could not be written; it grows to that.
const LONGEST: Duration = Duration::from_secs(30);
/// Until what an instance has said is written down: who is killed right after that is to know it still, and a thousand that come at once are one writing.
const SOON: Duration = Duration::from_millis(20);
/// Events that are taken together, so that a thousand sidecars that come at once are not a thousand translations.
const TOGETHER: usize = 256;

/// How long the first snapshot waits for what upstreams ask of discovery and nobody has told before.
const FIRST_ANSWERS: Duration = Duration::from_secs(2);

/// What is known of the mesh, where it is written down, and what other control planes say of it.
pub(super) struct Known {
    pub(super) mesh: Arc<Mutex<Mesh>>,
    pub(super) records: Arc<dyn Records>,
    pub(super) others: Option<Receiver<Heard>>,
}

/// Keeps a snapshot in step with the keeper and the instances.
pub(super) struct Translation {
    translator: Translator,
    mesh: Arc<Mutex<Mesh>>,
    records: Arc<dyn Records>,
    state: Arc<State>,
    subscription: Subscription,
    events: InstanceFollower,
    /// What other control planes do.
    others: Option<Receiver<Heard>>,
    snapshot: Arc<SnapshotStore>,
    watchers: Watchers,
    news: Told,
    writing: Option<JoinHandle<Result<(), StoreError>>>,
    write_at: Instant,
    /// Before the next try, when the last ones failed.
    patience: Duration,
    not_before: Instant,
    /// Records that the store does not take, as they were told of.
    too_large: BTreeSet<String>,
}

impl Translation {
    /// Puts everything that is believed now into the snapshot.
    pub(super) async fn begin(
        keeper: &Keeper,
        catalog: Arc<dyn Catalog>,
        Known { mesh, records, others }: Known,
        nodes: &Arc<NodeRegistry>,
        (snapshot, (watchers, news)): (Arc<SnapshotStore>, (Watchers, Told)),
    ) -> Translation {
        let (state, subscription) = keeper.subscribe();
        let mut translator = Translator::new(catalog);
        let first = {
            let mut mesh = mesh.lock();
            mesh.resources(&state, None);
            mesh.settle(clock::unix_ms());
            translator.rebuild(&state, mesh.directory())
        };
        let events = nodes.follow_instances();
        let mut translation = Translation {
            translator,
            mesh,
            records,
            state,
            subscription,
            events,
            others,
            snapshot,
            watchers,
            news,
            writing: None,
            write_at: clock::now(),
            patience: WRITING,
            not_before: clock::now(),
            too_large: BTreeSet::new(),
        };
        translation.watch();
        let found = translation.first_answers().await;
        translation.snapshot.apply(first.into_iter().chain(found).collect());
        translation
    }

    /// Follows until the drain begins: what the drain does to streams is not the instances' doing.
    pub(super) async fn run(mut self, mut drain: DrainWatch) {
        let mut heard = Vec::with_capacity(TOGETHER);
        loop {
            let next = self.mesh.lock().next();
            let wait = next.map(|next| Duration::from_millis(next.saturating_sub(clock::unix_ms())));
            tokio::select! {
                biased;
                () = drain.draining() => return,
                changes = self.subscription.next() => self.changed(changes),
                () = self.events.next(&mut heard, TOGETHER) => self.heard(&mut heard),
                Some(news) = self.news.recv() => self.discovered(news),
                heard = next_of(&mut self.others) => self.heard_of(heard),
                () = sleep(wait.unwrap_or_default()), if wait.is_some() => self.heard(&mut heard),
                () = sleep_until(self.write_at) => self.write().await,
            }
        }
    }

    fn changed(&mut self, changes: Changes) {
        self.state = changes.state;
        self.publish(Some(changes.keys.as_deref()));
    }

    /// Looks after what is asked of discovery now, and after nothing else.
    fn watch(&mut self) {
        let Some(asked) = self.translator.newly_asked() else { return };
        let mut mesh = self.mesh.lock();
        mesh.discovered_mut().keep(&asked);
        self.watchers.watch(&asked, mesh.directory().discovered());
    }

    /// What discovery tells first of all that nothing is known of yet, for a short while: an agent is not to be shown upstreams without endpoints only
    /// because the control plane has just begun.
    async fn first_answers(&mut self) -> Vec<Change> {
        let deadline = clock::now() + FIRST_ANSWERS;
        let mut changes = Vec::new();
        let waiting =
            |mesh: &Mesh| mesh.directory().discovered().all().any(|(_, found)| !found.answered && found.fault.is_none());
        while waiting(&self.mesh.lock()) {
            let Ok(Some(news)) = timeout_at(deadline, self.news.recv()).await else { break };
            changes.extend(self.note(news));
        }
        changes
    }

    fn discovered(&mut self, news: (Ask, News)) {
        let changes = self.note(news);
        self.snapshot.apply(changes);
    }

    /// Takes note of what discovery told, and of what it told meanwhile.
    fn note(&mut self, first: (Ask, News)) -> Vec<Change> {
        let mut mesh = self.mesh.lock();
        let mut others = BTreeSet::new();
        let (mut next, now) = (Some(first), clock::unix_ms());
        for _ in 0..TOGETHER {
            let Some((ask, news)) = next.take() else { break };
            if mesh.discovered_mut().note(&ask, news, now) {
                others.insert(ask);
            }
            next = self.news.try_recv().ok();
        }
        if let Some((ask, news)) = next
            && mesh.discovered_mut().note(&ask, news, now)
        {
            others.insert(ask);
        }
        self.translator.found(&self.state, mesh.directory(), &others)
    }

    fn heard(&mut self, events: &mut Vec<InstanceEvent>) {
        let now = clock::unix_ms();
        {
            let mut mesh = self.mesh.lock();
            events.drain(..).for_each(|event| mesh.event(&event, now));
        }
        self.write_at = self.write_at.min(clock::now() + SOON).max(self.not_before);
        self.publish(None);
    }

    /// Other control planes did something.
    fn heard_of(&mut self, heard: Heard) {
        let now = clock::unix_ms();
        {
            let mut mesh = self.mesh.lock();
            match heard {
                Heard::News(news) => news.iter().for_each(|(key, body)| mesh.heard(key, body.as_deref(), now)),
                Heard::All(records) => mesh.reconcile(&records, now),
                Heard::Present(replicas) => mesh.present(&replicas, now),
            }
        }
        self.publish(None);
    }

    /// Translates what differs: of resources, those with these keys (all of them for `Some(None)`), and of instances whatever it is.
    fn publish(&mut self, resources: Option<Option<&[Key]>>) {
        let mut mesh = self.mesh.lock();
        if let Some(keys) = resources {
            mesh.resources(&self.state, keys);
        }
        let services: BTreeSet<_> = mesh.settle(clock::unix_ms());
        let translated = match resources {
            Some(None) => self.translator.rebuild(&self.state, mesh.directory()),
            Some(Some(keys)) => self.translator.apply(&self.state, mesh.directory(), keys, &services),
            None => self.translator.apply(&self.state, mesh.directory(), &[], &services),
        };
        drop(mesh);
        self.snapshot.apply(translated);
        self.watch();
    }

    /// Whether the last writing failed: then all of it is written again, after a pause that grows.
    fn failed(&mut self, written: Result<Result<(), StoreError>, JoinError>) -> bool {
        let why = match written {
            Ok(Ok(())) => {
                self.patience = WRITING;
                return false;
            }
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        let again_ms = u64::try_from(self.patience.as_millis()).unwrap_or(u64::MAX);
        tracing::warn!(why, again_ms, "what is known of the mesh cannot be written down; it is tried again");
        self.mesh.lock().unwritten();
        self.not_before = clock::now() + self.patience;
        self.write_at = self.not_before;
        self.patience = (self.patience * 2).min(LONGEST);
        true
    }

    /// Begins to write down what is new, when the last writing has ended.
    async fn write(&mut self) {
        self.write_at = clock::now() + WRITING;
        if self.writing.as_ref().is_some_and(|writing| !writing.is_finished()) {
            // What came meanwhile may be a drain, of which others are to hear at once.
            self.write_at = clock::now() + SOON;
            return;
        }
        if let Some(written) = self.writing.take()
            && self.failed(written.await)
        {
            return;
        }
        let (writes, too_large) = fitting(self.mesh.lock().writes(), self.records.most());
        for key in too_large {
            if self.too_large.insert(key.clone()) {
                tracing::error!(key, "this record is too large for the store: after a restart it is asked for anew");
            }
        }
        if !writes.is_empty() {
            let records = self.records.clone();
            self.writing = Some(tokio::spawn(async move { records.record(writes, Vec::new()).await }));
        }
    }
}

/// What others do next; never, when there are none.
async fn next_of(others: &mut Option<Receiver<Heard>>) -> Heard {
    if let Some(receiver) = others
        && let Some(heard) = receiver.recv().await
    {
        return heard;
    }
    *others = None;
    std::future::pending().await
}
