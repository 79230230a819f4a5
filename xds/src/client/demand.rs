//! What a client asks for: everything of a kind, or the names that somebody wants, while it runs. It knows neither messages nor streams.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::TypedUpdate;
use crate::model::{ADDRESS_PREFIX, Kind};

/// A name that exists is let go of when nobody has wanted it for this long: whoever calls once a day does not wait each time.
const KEEP: Duration = Duration::from_secs(26 * 3600);
/// The same for a name that does not exist: names may come from whoever can send a request.
const KEEP_ABSENT: Duration = Duration::from_secs(60);
/// Names of one kind at most. Those that were wanted longest ago make room, and those that are not known to exist before all others.
const MAX_WANTED: usize = 10_000;
/// The same for addresses: an application may connect to any number of them, and what it calls by name must not make room for that. A thousand, each by two names: its
/// own, and that of the instance at one of its ports.
const MAX_ADDRESSES: usize = 2_000;
/// How many make room at once, so that room is seldom looked for.
const MAKE_ROOM: usize = MAX_WANTED / 10;
/// How long nobody else waits for a name after somebody has waited for it in vain: what asks for it in several steps waits once.
const REST: Duration = Duration::from_secs(1);
/// How often it is looked for names that nobody wants any more.
pub(super) const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// How much of a kind a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Interest {
    /// Everything.
    #[default]
    All,
    /// What its [`Demand`] names.
    Named,
    /// Nothing.
    Nothing,
}

/// How much a client asks for of each kind; by default everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Interests([Interest; Kind::ALL.len()]);

impl Interests {
    /// These, and nothing of the other kinds.
    pub fn only(some: &[(Kind, Interest)]) -> Interests {
        let mut all = [Interest::Nothing; Kind::ALL.len()];
        some.iter().for_each(|(kind, interest)| all[kind.index()] = *interest);
        Interests(all)
    }

    /// How much of this kind.
    pub fn of(&self, kind: Kind) -> Interest {
        self.0[kind.index()]
    }
}

/// What is known of a name that somebody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It was asked for; there is no answer yet.
    Asked,
    /// It exists: the consumer has it.
    Present,
    /// The control plane has said that it does not exist. When it comes to exist, that is told.
    Absent,
    /// It exists, and what the control plane sent of it cannot be used. When something comes that can be, that is told.
    Unusable,
}

/// The names that a client asks for by name. Cheap to clone; all clones are the same.
#[derive(Clone, Default)]
pub struct Demand(Arc<Inner>);

#[derive(Default)]
struct Inner {
    ledger: Mutex<Ledger>,
    /// Counts what the client has to ask for.
    asks: watch::Sender<u64>,
    /// Counts what the control plane has answered.
    answers: watch::Sender<u64>,
}

#[derive(Default)]
struct Ledger {
    /// Since when there is no control plane to ask; `None` while there is one, and where none is followed.
    unheard: Option<Instant>,
    kinds: [BTreeMap<Arc<str>, Entry>; Kind::ALL.len()],
    added: [BTreeSet<Arc<str>>; Kind::ALL.len()],
    /// What was known of them, as they may be wanted again before anybody was told.
    dropped: [BTreeMap<Arc<str>, Standing>; Kind::ALL.len()],
}

struct Entry {
    wanted: Instant,
    standing: Standing,
    /// When somebody last waited for an answer in vain.
    in_vain: Option<Instant>,
}

impl Entry {
    fn new(wanted: Instant, standing: Standing) -> Entry {
        Entry { wanted, standing, in_vain: None }
    }
}

/// A change of what is asked for of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asks {
    /// The kind.
    pub kind: Kind,
    /// Names asked for from now on.
    pub added: BTreeSet<Arc<str>>,
    /// Names no longer asked for.
    pub dropped: BTreeSet<Arc<str>>,
}

impl fmt::Debug for Demand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ledger = self.ledger();
        f.debug_list().entries(ledger.kinds.iter().map(BTreeMap::len)).finish()
    }
}

impl Demand {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // Nothing in here is left half done by a panic.
        self.0.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a name from now on, and says what is known of it. Names that are wanted again now and then are kept.
    pub fn want(&self, kind: Kind, name: &str, now: Instant) -> Standing {
        let mut ledger = self.ledger();
        if let Some(entry) = ledger.kinds[kind.index()].get_mut(name) {
            entry.wanted = now;
            return entry.standing;
        }
        ledger.make_room(kind, name);
        let standing = ledger.add(kind, name.into(), Entry::new(now, Standing::Asked));
        drop(ledger);
        self.0.asks.send_modify(|count| *count += 1);
        standing
    }

    /// What is known of a name; `None` when nobody wants it.
    pub fn standing(&self, kind: Kind, name: &str) -> Option<Standing> {
        self.ledger().kinds[kind.index()].get(name).map(|entry| entry.standing)
    }

    /// Notes that somebody has waited for what is known of a name, and was told nothing.
    pub fn waited_in_vain(&self, kind: Kind, name: &str, now: Instant) {
        if let Some(entry) = self.ledger().kinds[kind.index()].get_mut(name) {
            entry.in_vain = Some(now);
        }
    }

    /// Whether somebody has waited for this name in vain just now.
    pub fn rests(&self, kind: Kind, name: &str, now: Instant) -> bool {
        let ledger = self.ledger();
        let in_vain = ledger.kinds[kind.index()].get(name).and_then(|entry| entry.in_vain);
        in_vain.is_some_and(|last| now.saturating_duration_since(last) < REST)
    }

    /// Since when there is no control plane to ask; `None` while there is one, and where none is followed.
    pub fn unheard_since(&self) -> Option<Instant> {
        self.ledger().unheard
    }

    /// There is no control plane to ask.
    pub(super) fn lost(&self, now: Instant) {
        self.ledger().unheard.get_or_insert(now);
    }

    /// There is one to ask.
    pub(super) fn found(&self) {
        self.ledger().unheard = None;
    }

    /// Changes whenever the control plane has answered.
    pub fn answers(&self) -> watch::Receiver<u64> {
        self.0.answers.subscribe()
    }

    /// Changes whenever there is something to ask for.
    pub(super) fn asks(&self) -> watch::Receiver<u64> {
        self.0.asks.subscribe()
    }

    /// Wants what is held already.
    pub(super) fn adopt(&self, kind: Kind, names: impl Iterator<Item = Arc<str>>, now: Instant) {
        let mut ledger = self.ledger();
        for name in names.take(MAX_WANTED) {
            ledger.add(kind, name, Entry::new(now, Standing::Present));
        }
    }

    /// What has changed since this was asked last.
    pub(super) fn take(&self) -> Vec<Asks> {
        let mut ledger = self.ledger();
        let mut changes = Vec::new();
        for kind in Kind::ALL {
            let added = std::mem::take(&mut ledger.added[kind.index()]);
            let dropped: BTreeSet<_> = std::mem::take(&mut ledger.dropped[kind.index()]).into_keys().collect();
            if !(added.is_empty() && dropped.is_empty()) {
                changes.push(Asks { kind, added, dropped });
            }
        }
        changes
    }

    /// Notes what the control plane has answered, once the consumer has it.
    pub(super) fn note(&self, update: &TypedUpdate) {
        let mut ledger = self.ledger();
        let entries = &mut ledger.kinds[update.kind.index()];
        let mut set = |name: &str, standing| {
            if let Some(entry) = entries.get_mut(name) {
                entry.standing = standing;
            }
        };
        update.set.iter().for_each(|one| set(&one.name, Standing::Present));
        update.removed.iter().for_each(|name| set(name, Standing::Absent));
        for fault in &update.rejected {
            // A last good version stays in use.
            if let Some(entry) = entries.get_mut(&*fault.name).filter(|entry| entry.standing == Standing::Asked) {
                entry.standing = Standing::Unusable;
            }
        }
        drop(ledger);
        self.0.answers.send_modify(|count| *count += 1);
    }

    /// Lets go of what nobody has wanted for long. What does not exist is remembered for longer while nobody can be asked again.
    pub(super) fn expire(&self, now: Instant) {
        let mut ledger = self.ledger();
        let is_heard = ledger.unheard.is_none();
        for kind in Kind::ALL {
            let late = |entry: &Entry| {
                let keep =
                    if matches!(entry.standing, Standing::Absent | Standing::Unusable) && is_heard { KEEP_ABSENT } else { KEEP };
                now.saturating_duration_since(entry.wanted) >= keep
            };
            let gone: Vec<_> =
                ledger.kinds[kind.index()].iter().filter(|(_, entry)| late(entry)).map(|(name, _)| name.clone()).collect();
            gone.into_iter().for_each(|name| ledger.let_go(kind, name));
        }
        drop(ledger);
        self.0.asks.send_modify(|count| *count += 1);
    }
}

impl Ledger {
    /// Says what is known of it.
    fn add(&mut self, kind: Kind, name: Arc<str>, mut entry: Entry) -> Standing {
        match self.dropped[kind.index()].remove(&name) {
            // It is asked for still, and not answered again.
            Some(before) => entry.standing = before,
            None => drop(self.added[kind.index()].insert(name.clone())),
        }
        let standing = entry.standing;
        self.kinds[kind.index()].insert(name, entry);
        standing
    }

    fn let_go(&mut self, kind: Kind, name: Arc<str>) {
        let Some(entry) = self.kinds[kind.index()].remove(&name) else { return };
        if !self.added[kind.index()].remove(&name) {
            self.dropped[kind.index()].insert(name, entry.standing);
        }
    }

    /// Makes room for this name.
    fn make_room(&mut self, kind: Kind, name: &str) {
        let entries = &self.kinds[kind.index()];
        let is_address = name.starts_with(ADDRESS_PREFIX);
        let rivals = || entries.iter().filter(|(other, _)| !is_address || other.starts_with(ADDRESS_PREFIX));
        let (there, most) = if is_address { (rivals().count(), MAX_ADDRESSES) } else { (entries.len(), MAX_WANTED) };
        if there < most && entries.len() < MAX_WANTED {
            return;
        }
        let rank = |entry: &Entry| (entry.standing == Standing::Present, entry.wanted);
        let mut ages: Vec<_> = rivals().map(|(name, entry)| (rank(entry), name.clone())).collect();
        ages.sort_unstable();
        ages.into_iter().take((most / 10).min(MAKE_ROOM)).for_each(|(_, name)| self.let_go(kind, name));
    }
}

/// What a machine asks for on its streams.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    interests: Interests,
    names: [BTreeSet<Arc<str>>; Kind::ALL.len()],
}

impl Asked {
    /// By these interests; no names yet.
    pub fn new(interests: Interests) -> Asked {
        Asked { interests, names: Default::default() }
    }

    /// Names asked for of a kind; `None` is everything.
    pub(super) fn names(&self, kind: Kind) -> Option<&BTreeSet<Arc<str>>> {
        (self.interests.of(kind) != Interest::All).then(|| &self.names[kind.index()])
    }

    /// Kinds of which something is asked for, in their order. A request that names nothing would ask for everything.
    pub(super) fn kinds(&self) -> impl Iterator<Item = Kind> {
        Kind::ALL.into_iter().filter(|kind| self.names(*kind).is_none_or(|names| !names.is_empty()))
    }

    /// Takes a change; says whether there is anything in it for a machine with these interests.
    pub(super) fn change(&mut self, asks: &Asks) -> bool {
        if self.interests.of(asks.kind) != Interest::Named {
            return false;
        }
        let names = &mut self.names[asks.kind.index()];
        names.retain(|name| !asks.dropped.contains(name));
        names.extend(asks.added.iter().cloned());
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::client::SetResource;
    use crate::codec::InvalidResource;
    use crate::model::{Resource, Secret, SecretBody};

    fn update(set: &[&str], removed: &[&str], rejected: &[&str]) -> TypedUpdate {
        let resource = |name: &str| Resource::Secret(Secret { name: name.into(), body: SecretBody::Roots("".into()) });
        let fault =
            |name: &str| InvalidResource { kind: Kind::Secret, name: name.into(), field: String::new(), reason: String::new() };
        TypedUpdate {
            kind: Kind::Secret,
            set: set
                .iter()
                .map(|name| SetResource { name: (*name).into(), version: "".into(), resource: resource(name) })
                .collect(),
            removed: removed.iter().map(|name| Arc::from(*name)).collect(),
            rejected: rejected.iter().map(|name| fault(name)).collect(),
        }
    }

    fn names(names: &[&str]) -> BTreeSet<Arc<str>> {
        names.iter().map(|name| Arc::from(*name)).collect()
    }

    #[test]
    fn a_name_is_asked_for_once_and_its_answer_is_known() {
        let (demand, now) = (Demand::default(), heddle_node::clock::now());
        assert_eq!(demand.want(Kind::Secret, "a", now), Standing::Asked);
        assert_eq!(demand.want(Kind::Secret, "a", now), Standing::Asked);
        demand.want(Kind::Secret, "b", now);
        demand.want(Kind::Secret, "c", now);
        assert_eq!(demand.take(), [Asks { kind: Kind::Secret, added: names(&["a", "b", "c"]), dropped: names(&[]) }]);
        assert_eq!(demand.take(), []);
        let answers = demand.answers();
        demand.note(&update(&["a", "stranger"], &["b"], &["c"]));
        assert!(answers.has_changed().unwrap());
        assert_eq!(demand.want(Kind::Secret, "a", now), Standing::Present);
        assert_eq!(demand.want(Kind::Secret, "b", now), Standing::Absent);
        assert_eq!(demand.want(Kind::Secret, "c", now), Standing::Unusable, "it exists, though nobody can use it");
        assert_eq!(demand.standing(Kind::Secret, "stranger"), None);
        demand.note(&update(&["b"], &[], &["a"]));
        assert_eq!(demand.standing(Kind::Secret, "b"), Some(Standing::Present));
        assert_eq!(demand.standing(Kind::Secret, "a"), Some(Standing::Present), "its last good version stays");
    }

    #[test]
    fn it_is_known_who_has_waited_in_vain_and_since_when_nobody_answers() {
        let (demand, now) = (Demand::default(), heddle_node::clock::now());
        demand.waited_in_vain(Kind::Secret, "stranger", now);
        assert!(!demand.rests(Kind::Secret, "stranger", now), "nobody has asked for it");
        demand.want(Kind::Secret, "a", now);
        assert!(!demand.rests(Kind::Secret, "a", now));
        demand.waited_in_vain(Kind::Secret, "a", now);
        assert!(demand.rests(Kind::Secret, "a", now + REST / 2) && !demand.rests(Kind::Secret, "a", now + REST));

        assert_eq!(demand.unheard_since(), None);
        demand.lost(now);
        demand.lost(now + REST);
        assert_eq!(demand.unheard_since(), Some(now), "tries that fail in between change nothing");
        demand.found();
        assert_eq!(demand.unheard_since(), None);
    }

    #[test]
    fn what_nobody_wants_is_let_go_of_sooner_when_it_does_not_exist() {
        let (demand, start) = (Demand::default(), heddle_node::clock::now());
        for name in ["there", "missing", "used"] {
            demand.want(Kind::Secret, name, start);
        }
        demand.note(&update(&["there", "used"], &["missing"], &[]));
        demand.take();
        demand.expire(start + KEEP_ABSENT);
        assert_eq!(demand.take(), [Asks { kind: Kind::Secret, added: names(&[]), dropped: names(&["missing"]) }]);
        demand.want(Kind::Secret, "used", start + KEEP / 2);
        demand.expire(start + KEEP);
        assert_eq!(demand.take(), [Asks { kind: Kind::Secret, added: names(&[]), dropped: names(&["there"]) }]);
    }

    #[test]
    fn what_does_not_exist_is_remembered_while_nobody_can_be_asked_again() {
        let (demand, start) = (Demand::default(), heddle_node::clock::now());
        demand.want(Kind::Secret, "missing", start);
        demand.note(&update(&[], &["missing"], &[]));
        demand.lost(start);
        demand.expire(start + 10 * KEEP_ABSENT);
        assert_eq!(demand.standing(Kind::Secret, "missing"), Some(Standing::Absent));
        demand.found();
        demand.expire(start + 10 * KEEP_ABSENT);
        assert_eq!(demand.standing(Kind::Secret, "missing"), None);
    }

    #[test]
    fn what_is_wanted_again_before_anybody_was_told_is_known_as_before() {
        let (demand, start) = (Demand::default(), heddle_node::clock::now());
        demand.want(Kind::Secret, "there", start);
        demand.want(Kind::Secret, "missing", start);
        demand.take();
        demand.note(&update(&["there"], &["missing"], &[]));
        demand.expire(start + KEEP);
        let later = start + KEEP;
        assert_eq!(demand.want(Kind::Secret, "there", later), Standing::Present);
        assert_eq!(demand.want(Kind::Secret, "missing", later), Standing::Absent);
        assert_eq!(demand.take(), [], "they are asked for all the time");
    }

    #[test]
    fn names_of_nobody_push_out_nothing_that_exists() {
        let (demand, start) = (Demand::default(), heddle_node::clock::now());
        demand.want(Kind::Secret, "there", start);
        demand.note(&update(&["there"], &[], &[]));
        for n in 0..3 * MAX_WANTED {
            demand.want(Kind::Secret, &n.to_string(), start + Duration::from_millis(n as u64 + 1));
        }
        assert_eq!(demand.standing(Kind::Secret, "there"), Some(Standing::Present));
        assert!(demand.ledger().kinds[Kind::Secret.index()].len() <= MAX_WANTED);
    }

    #[test]
    fn names_are_bounded_and_the_oldest_make_room() {
        let (demand, start) = (Demand::default(), heddle_node::clock::now());
        for n in 0..=MAX_WANTED {
            demand.want(Kind::Secret, &n.to_string(), start + Duration::from_millis(n as u64));
        }
        assert_eq!(demand.standing(Kind::Secret, "0"), None);
        assert_eq!(demand.standing(Kind::Secret, &MAX_WANTED.to_string()), Some(Standing::Asked));
        let asks = demand.take();
        assert_eq!((asks[0].added.len(), asks[0].dropped.len()), (MAX_WANTED + 1 - MAKE_ROOM, 0), "nobody had asked yet");
    }

    #[test]
    fn addresses_make_room_for_addresses_and_push_no_service_out() {
        let (demand, start) = (Demand::default(), heddle_node::clock::now());
        demand.want(Kind::MeshService, "shop/api", start);
        for n in 0..3 * MAX_ADDRESSES {
            demand.want(
                Kind::MeshService,
                &format!("@10.0.{}.{}", n / 256, n % 256),
                start + Duration::from_millis(n as u64 + 1),
            );
        }
        assert_eq!(demand.standing(Kind::MeshService, "shop/api"), Some(Standing::Asked));
        assert_eq!(demand.standing(Kind::MeshService, "@10.0.0.0"), None);
        assert!(demand.ledger().kinds[Kind::MeshService.index()].len() <= MAX_ADDRESSES + 1);
    }

    #[test]
    fn only_what_is_named_is_asked_for_by_name() {
        let mut asked = Asked::new(Interests::only(&[(Kind::Secret, Interest::Named), (Kind::Route, Interest::All)]));
        assert_eq!(asked.kinds().collect::<Vec<_>>(), [Kind::Route]);
        assert!(asked.change(&Asks { kind: Kind::Secret, added: names(&["a", "b"]), dropped: names(&[]) }));
        assert!(asked.change(&Asks { kind: Kind::Secret, added: names(&[]), dropped: names(&["a"]) }));
        assert!(!asked.change(&Asks { kind: Kind::Route, added: names(&["r"]), dropped: names(&[]) }));
        assert_eq!((asked.names(Kind::Secret), asked.names(Kind::Route)), (Some(&names(&["b"])), None));
        assert_eq!(asked.kinds().collect::<Vec<_>>(), [Kind::Secret, Kind::Route]);
    }
}
