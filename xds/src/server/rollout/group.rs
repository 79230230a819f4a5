//! One group: its two snapshots, what is on trial between them, and the task that moves it on. What a canary says comes by its [`Ticket`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use heddle_node::clock;
use heddle_node::clock::Instant;
use heddle_node::drain::DrainWatch;
use tokio::sync::{Notify, watch};
use tokio::time::sleep_until;

use super::needs::led_to;
use super::wave::{Key, Members, Wave};
use super::{FORGET, GroupName, GroupView, HeldView};
use crate::model::Kind;
use crate::protocol::Types;
use crate::server::pace::{self, GATHER, Work};
use crate::server::stage::{Called, House, Stage};
use crate::server::{Machine, Nack};
use crate::snapshot::{Changes, NodeScope, SnapshotFeed, SnapshotSource, SnapshotStore, Versioned, View};

/// Endpoints that change by themselves while they wait together with something else wait no longer.
const ENDPOINTS: Duration = Duration::from_millis(250);
/// Resources that are held at the same time; what is refused beyond that is given to all.
const MAX_HELD: usize = 10_000;

/// Until the first node of a group has asked for everything.
const FIRST: Duration = Duration::from_millis(100);

/// Says whether a group was forgotten just now, since nobody has been a member for long.
pub(super) type Over = Box<dyn Fn(&Group) -> bool + Send + Sync>;

/// What nodes are shown, and where.
#[derive(Debug, Clone)]
pub(super) struct Side {
    pub(super) store: Arc<SnapshotStore>,
    pub(super) house: House,
    pub(super) work: Work,
}

/// A group of nodes.
#[derive(Debug)]
pub(in crate::server) struct Group {
    types: Types,
    pub(super) trial: Side,
    pub(super) rest: Side,
    wait: Duration,
    state: Mutex<State>,
    /// Rings when a canary has said something, has come or is gone, and when somebody said to go on.
    news: Notify,
    /// Whether those who come with a configuration wait for the canary's word on the one that is there.
    begins: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    members: Members,
    wave: Option<Wave>,
    /// What changed and is not on trial yet, and since when.
    pending: BTreeSet<Key>,
    since: Option<Instant>,
    /// Endpoints among them that changed by themselves, and since when the first did.
    urgent: BTreeSet<Key>,
    urged: Option<Instant>,
    /// Refused, and to be set back.
    refused: Vec<HeldView>,
    held: BTreeMap<Key, HeldView>,
    /// Versions that are given to all although they were refused.
    forced: BTreeMap<Key, Arc<str>>,
    /// What is gone and is kept all the same, since versions refer to it that nodes keep in the place of held ones.
    kept: BTreeSet<Key>,
    /// Since when nobody is a member.
    empty: Option<Instant>,
}

impl Group {
    /// A group without nodes that follows `feed` until the drain begins or it is forgotten, in tasks of the present runtime.
    pub(super) fn begin(
        feed: Arc<dyn SnapshotFeed>,
        (types, wait): (Types, Duration),
        (drain, over): (DrainWatch, Over),
    ) -> Arc<Group> {
        let view = feed.view();
        let side = || {
            let store = Arc::new(SnapshotStore::from_view(&view));
            let (stage, house) = Stage::new(store.view(), false);
            (stage, Side { store, house, work: Work::new() })
        };
        let ((trial_stage, trial), (rest_stage, rest)) = (side(), side());
        // What comes there was gathered before.
        tokio::spawn(pace::run(rest.store.clone(), rest_stage, (rest.work.clone(), Duration::ZERO), drain.clone()));
        let state = Mutex::new(State { empty: Some(clock::now()), ..State::default() });
        let begins = watch::Sender::new(true);
        let group = Arc::new(Group { types, trial, rest, wait, state, news: Notify::new(), begins });
        tokio::spawn(run(group.clone(), feed, (trial_stage, view.position()), (drain, over)));
        group
    }

    /// Since when nobody is a member.
    pub(super) fn empty_since(&self) -> Option<Instant> {
        self.lock().empty
    }

    /// Has it look again whether it was forgotten.
    pub(super) fn wake(&self) {
        self.news.notify_one();
    }

    /// A stream of a node has come; it is a member until what is returned is dropped. `holds`: it has a configuration already.
    pub(super) fn enter(self: &Arc<Self>, (scope, holds): (&NodeScope, bool)) -> Ticket {
        let mut state = self.lock();
        let number = state.members.enter(scope);
        state.empty = None;
        if *self.begins.borrow() && state.wave.is_none() {
            self.try_first(&mut state, (scope, holds));
        }
        let turn = state.members.get_mut(number).map(|member| member.turn.clone()).unwrap_or_default();
        Ticket { group: self.clone(), number, turn }
    }

    /// What is there when a group begins is on trial at the first node, where that has a configuration: what was held before may be among it. Who has none
    /// is given everything, as there is nothing that it could go on with.
    fn try_first(&self, state: &mut State, (scope, holds): (&NodeScope, bool)) {
        if !holds {
            self.begins.send_replace(false);
            return;
        }
        let trial = self.trial.store.view();
        let all = Kind::ALL.into_iter().flat_map(|kind| {
            let versions = trial.all(kind).1;
            versions.iter().map(|(name, found)| ((kind, name.clone()), Some(found.version.clone()))).collect::<Vec<_>>()
        });
        let tried = all.filter(|(key, _)| !is_endpoints(key)).collect();
        let (judge, called) = (scope.id.clone(), Called::everybody());
        state.wave = Some(Wave { tried, position: trial.position(), since: clock::now(), judge, called });
        self.news.notify_one();
    }

    /// How it stands.
    pub(super) fn view(&self, name: GroupName) -> GroupView {
        let state = self.lock();
        GroupView {
            name,
            canaries: state.members.canaries().into_iter().collect(),
            nodes: state.members.nodes(),
            trying: state.wave.as_ref().map_or(0, |wave| wave.tried.len()),
            held: state.held.values().cloned().collect(),
            kept: state.kept.iter().cloned().collect(),
        }
    }

    /// What is held.
    pub(super) fn held(&self) -> Vec<HeldView> {
        self.lock().held.values().cloned().collect()
    }

    /// How many resources are held.
    pub(super) fn count(&self) -> usize {
        self.lock().held.len()
    }

    /// Goes on with what is held.
    pub(super) fn resume(&self) -> usize {
        let mut state = self.lock();
        let held = std::mem::take(&mut state.held);
        let count = held.len();
        for (key, held) in held {
            state.forced.insert(key.clone(), held.version);
            state.pending.insert(key);
        }
        if count > 0 {
            state.since.get_or_insert(clock::now());
            self.news.notify_one();
        }
        count
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what is due, and says when to look again.
    fn step(&self, feed: &dyn SnapshotFeed, stage: &Stage, looked: &mut u64, now: Instant) -> Option<Instant> {
        let view = feed.view();
        let mut state = self.lock();
        if view.position() > *looked {
            let changes = feed.changed_between(*looked, view.position());
            *looked = view.position();
            self.look(&mut state, (&view, stage), changes, now);
        }
        self.set_back(&mut state, stage);
        self.judge(&mut state, now);
        let alone = state.members.nodes() <= 1;
        if (state.wave.is_none() || alone) && state.since.is_some_and(|since| since + GATHER <= now) {
            self.try_out(&mut state, (&view, stage), now);
            self.judge(&mut state, now);
        }
        self.free_endpoints(&mut state, (&view, stage), now);
        let gathered = state.since.filter(|_| state.wave.is_none() || alone).map(|since| since + GATHER);
        let begun = state.wave.as_ref().map(|wave| wave.since + FIRST).filter(|begun| *self.begins.borrow() && *begun > now);
        let over = state.wave.as_ref().map(|wave| wave.since + self.wait);
        let urged = state.urged.map(|since| since + ENDPOINTS);
        let forgotten = state.empty.map(|since| since + FORGET);
        [gathered, begun, over, urged, forgotten].into_iter().flatten().min()
    }

    /// Takes note of what changed. Where traffic can go is told at once, unless it changed together with something else.
    fn look(&self, state: &mut State, (view, stage): (&View, &Stage), changes: Changes, now: Instant) {
        let names: BTreeSet<Key> = match changes.names {
            Some(names) => names.into_iter().collect(),
            None => {
                let mut names = differing(view, &self.trial.store.view());
                // What was held and is gone may be in neither.
                names.extend(state.held.keys().cloned());
                names.retain(|key| !state.is_held(key, view));
                names
            }
        };
        let is_known =
            |key: &Key| state.pending.contains(key) || state.wave.as_ref().is_some_and(|wave| wave.tried.contains_key(key));
        if !names.iter().all(is_endpoints) {
            state.pending.extend(names);
            state.since.get_or_insert(now);
            return;
        }
        let (known, mut names): (BTreeSet<Key>, BTreeSet<Key>) = names.into_iter().partition(is_known);
        let kept = self.kept(state, view, &names);
        names.retain(|key| !kept.contains(key));
        state.kept.extend(kept);
        let position = (known.is_empty() && state.is_idle()).then_some(view.position());
        self.show(stage, &names, view, position);
        self.rest.store.take_over(&names, view, position);
        if !known.is_empty() {
            state.urgent.extend(known.iter().cloned());
            state.urged.get_or_insert(now);
            state.pending.extend(known);
            state.since.get_or_insert(now);
        }
    }

    /// Tells endpoints that changed by themselves while something that changed with them before waits for its turn, when that takes too long.
    fn free_endpoints(&self, state: &mut State, (view, stage): (&View, &Stage), now: Instant) {
        if state.urged.is_some_and(|since| since + ENDPOINTS <= now) {
            state.urged = None;
            let endpoints = std::mem::take(&mut state.urgent);
            state.pending.retain(|key| !endpoints.contains(key));
            self.show(stage, &endpoints, view, None);
            self.rest.store.take_over(&endpoints, view, None);
        }
    }

    /// Makes resources of the trial what they are in `from`, and shows that.
    fn show(&self, stage: &Stage, names: &BTreeSet<Key>, from: &View, position: Option<u64>) -> Option<Called> {
        let changed = self.trial.store.take_over(names, from, position);
        let next = self.trial.store.view();
        let changes = Changes { position: next.position(), names: Some(names.iter().cloned().collect()) };
        changed.then(|| stage.show(next, &changes))
    }

    /// Sets back in the trial what was refused.
    fn set_back(&self, state: &mut State, stage: &Stage) {
        let refused = std::mem::take(&mut state.refused);
        let Some(wave) = state.wave.as_mut().filter(|_| !refused.is_empty()) else { return };
        let (mut names, mut left, rest) = (BTreeSet::new(), BTreeSet::new(), self.rest.store.view());
        let begins = *self.begins.borrow();
        for held in refused {
            let key = (held.kind, held.name.clone());
            let forced = state.forced.get(&key) == Some(&held.version);
            if forced || state.held.len() >= MAX_HELD || wave.tried.remove(&key).is_none() {
                continue;
            }
            let HeldView { kind, name, node, reason, .. } = &held;
            tracing::warn!(kind = kind.as_str(), %name, %node, reason, "this version is held: no further node of the group is given it");
            // Of what a group began with nobody knows the version before but who has it, for as long as no version of it was taken.
            if rest.find(key.0, &key.1).is_some_and(|found| begins || found.version == held.version) {
                left.insert(key.clone());
            }
            state.held.insert(key.clone(), held);
            names.insert(key);
        }
        if !left.is_empty() {
            self.rest.store.leave(&left);
        }
        let rest = self.rest.store.view();
        let gone = wave.tried.iter().filter(|(_, version)| version.is_none()).map(|(key, _)| key.clone());
        let kept = led_to(self.types, names.iter(), (&rest, &rest), gone.collect());
        wave.tried.retain(|key, _| !kept.contains(key));
        names.extend(kept.iter().cloned());
        state.kept.extend(kept);
        self.show(stage, &names, &rest, None);
    }

    /// Of these names those that are gone, and that what nodes keep in the place of something held refers to.
    fn kept(&self, state: &State, view: &View, names: &BTreeSet<Key>) -> BTreeSet<Key> {
        let (trial, rest) = (self.trial.store.view(), self.rest.store.view());
        let gone = names.iter().filter(|(kind, name)| view.find(*kind, name).is_none() && trial.find(*kind, name).is_some());
        led_to(self.types, state.held.keys(), (&trial, &rest), gone.cloned().collect())
    }

    /// Gives the rest what was on trial, when that is over.
    fn judge(&self, state: &mut State, now: Instant) {
        let State { wave, members, .. } = &mut *state;
        let Some(trying) = wave else { return };
        let waited = now.saturating_duration_since(trying.since);
        // Who comes back asks for one kind after the other.
        if *self.begins.borrow() && waited < FIRST {
            return;
        }
        let judged = match trying.is_judged(members, now) {
            Some(false) if waited >= self.wait => {
                tracing::warn!(node = %trying.judge, "the canary does not answer in time; what it was given goes to all");
                members.too_slow(&trying.judge);
                true
            }
            judged => judged.unwrap_or(true),
        };
        if judged {
            let taken = wave.take().map(|wave| wave.tried.into_keys().collect()).unwrap_or_default();
            self.give(state, &taken, now);
            self.begins.send_replace(false);
        }
    }

    /// Gives the rest what the trial has of these.
    fn give(&self, state: &mut State, taken: &BTreeSet<Key>, now: Instant) {
        self.free_kept(state, taken, now);
        let trial = self.trial.store.view();
        let position = state.pending.is_empty().then_some(trial.position());
        self.rest.store.take_over(taken, &trial, position);
    }

    /// Where nodes have versions that nobody knows of what all are given now, what was kept for those goes after that: not all of them say what they have,
    /// so that nothing else tells what is to go last.
    fn free_kept(&self, state: &mut State, given: &BTreeSet<Key>, now: Instant) {
        let rest = self.rest.store.view();
        if !state.kept.is_empty() && given.iter().any(|(kind, name)| rest.is_untold(*kind, name)) {
            state.pending.append(&mut state.kept);
            state.since.get_or_insert(now);
        }
    }

    /// What is to be tried now, and what goes to all at once although it was refused. What was refused and has not changed since stays as it is.
    fn chosen(&self, state: &mut State, view: &View) -> (BTreeSet<Key>, BTreeSet<Key>) {
        let mut names = std::mem::take(&mut state.pending);
        names.append(&mut state.kept);
        state.since = None;
        let version = |key: &Key| view.find(key.0, &key.1).map(|found| found.version.clone());
        names.retain(|key| !state.is_held(key, view));
        for key in &names {
            state.held.remove(key);
            if state.forced.get(key).is_some_and(|forced| version(key).as_ref() != Some(forced)) {
                state.forced.remove(key);
            }
        }
        state.kept = self.kept(state, view, &names);
        names.retain(|key| !state.kept.contains(key));
        names.into_iter().partition(|key| !state.forced.contains_key(key))
    }

    /// Puts what changed on trial.
    fn try_out(&self, state: &mut State, (view, stage): (&View, &Stage), now: Instant) {
        let version = |key: &Key| view.find(key.0, &key.1).map(|found| found.version.clone());
        let (tried, forced) = self.chosen(state, view);
        self.free_kept(state, &forced, now);
        self.rest.store.take_over(&forced, view, None);
        self.show(stage, &forced, view, None);
        let Some(called) = self.show(stage, &tried, view, Some(view.position())) else { return };
        let trial = self.trial.store.view();
        let versions = tried.iter().map(|key| (key.clone(), version(key)));
        match (&mut state.wave, state.members.judge(&called)) {
            // Nobody but the canary is there to wait for it.
            (Some(wave), Some(_)) => {
                wave.tried.extend(versions);
                (wave.position, wave.since, wave.called) = (trial.position(), now, called);
            }
            (wave, Some(judge)) => {
                let tried = versions.collect();
                *wave = Some(Wave { tried, position: trial.position(), since: now, judge, called });
            }
            (wave, None) => {
                let before = wave.take().map(|wave| wave.tried.into_keys().collect::<BTreeSet<_>>()).unwrap_or_default();
                self.begins.send_replace(false);
                self.give(state, &before.into_iter().chain(tried).collect(), now);
            }
        }
    }
}

impl State {
    /// Whether a view still has the version that is held.
    fn is_held(&self, key: &Key, view: &View) -> bool {
        let version = view.find(key.0, &key.1).map(|found| &found.version);
        self.held.get(key).is_some_and(|held| version == Some(&held.version))
    }

    fn is_idle(&self) -> bool {
        self.wave.is_none() && self.pending.is_empty()
    }
}

fn is_endpoints((kind, _): &Key) -> bool {
    *kind == Kind::Endpoints
}

/// What is not the same in two views.
fn differing(a: &View, b: &View) -> BTreeSet<Key> {
    let mut names = BTreeSet::new();
    for kind in Kind::ALL {
        let (ours, theirs) = (a.all(kind).1, b.all(kind).1);
        let differs = |(name, found): &(&Arc<str>, &Arc<Versioned>)| {
            theirs.get(&***name).is_none_or(|other| other.version != found.version)
        };
        names.extend(ours.iter().filter(differs).map(|(name, _)| (kind, name.clone())));
        names.extend(theirs.iter().filter(|(name, _)| !ours.contains_key(&***name)).map(|(name, _)| (kind, name.clone())));
    }
    names
}

async fn run(
    group: Arc<Group>,
    feed: Arc<dyn SnapshotFeed>,
    (stage, mut looked): (Stage, u64),
    (mut drain, over): (DrainWatch, Over),
) {
    let mut signal = feed.watch();
    loop {
        signal.borrow_and_update();
        if over(&group) {
            return;
        }
        let due = group.step(&*feed, &stage, &mut looked, clock::now());
        tokio::select! {
            changed = signal.changed() => if changed.is_err() { return },
            () = group.news.notified() => {}
            () = sleep_until(due.unwrap_or_else(clock::now)), if due.is_some() => {}
            () = drain.draining() => return,
        }
    }
}

/// A stream's membership.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) group: Arc<Group>,
    number: u64,
    /// Rings when it becomes a canary.
    pub(super) turn: Arc<Notify>,
}

impl Ticket {
    /// Whether it is shown the trial.
    pub(super) fn is_canary(&self) -> bool {
        self.group.lock().members.get_mut(self.number).is_some_and(|member| member.canary)
    }

    /// Ready when nothing speaks against telling this node what is there: at once, but for who comes with a configuration to a group that has just begun.
    pub(super) async fn may_begin(&self) {
        let mut begins = self.group.begins.subscribe();
        // Where the group is gone nobody judges any more.
        let _ = begins.wait_for(|begins| !begins).await;
    }

    /// It sits where the trial is shown.
    pub(super) fn sits(&self, seat: Option<u64>) {
        if let Some(member) = self.group.lock().members.get_mut(self.number) {
            member.seat = seat;
        }
    }

    /// A canary tells how far it is, and what it refuses.
    pub(super) fn report<M: Machine>(&self, machine: &M) {
        let (position, answered) = (machine.position(), machine.answered());
        let nacks: Vec<Nack> = machine.nacks();
        let mut state = self.group.lock();
        state.members.note(self.number, position, answered);
        let node = state.members.node_of(self.number).cloned();
        let refused = state.wave.as_ref().zip(node).map(|(wave, node)| wave.refused(&node, &nacks)).unwrap_or_default();
        state.refused.extend(refused);
        if state.wave.is_some() {
            self.group.news.notify_one();
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.group.lock();
        state.members.leave(self.number);
        state.empty = (state.members.nodes() == 0).then(clock::now);
        drop(state);
        self.group.news.notify_one();
    }
}
