//! Who is there, from what chitchat knows: heartbeats judged, facts read when they have changed, former lives forgotten. Pure; it knows no clock.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use chitchat::ChitchatId;

use super::super::facts::{Facts, Member, MemberState};
use super::codec::{self, Read};
use super::pulse::{Beat, Judge, Pulse};
use crate::clock::Instant;

/// What chitchat knows of one life of one node.
#[derive(Debug, Clone, Copy)]
pub struct Sighting<'a> {
    /// Which life of which node.
    pub id: &'a ChitchatId,
    /// Its newest heartbeat.
    pub heartbeat: u64,
    /// The version of what it says.
    pub version: u64,
}

/// What a life says, of a version that has not been read yet.
#[derive(Debug, Clone)]
pub struct Unread {
    /// Its place on the roll, as long as nobody else comes or goes.
    at: usize,
    version: u64,
    pairs: Vec<(String, String)>,
}

/// What has been seen at a glance, while chitchat waits; it is read when chitchat goes on.
#[derive(Debug, Default)]
pub struct Glance {
    /// Somebody has come, or chitchat has forgotten somebody.
    pub moved: bool,
    unread: Vec<Unread>,
}

/// When one looks.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Monotonic.
    pub now: Instant,
    /// Unix milliseconds.
    pub wall_ms: u64,
}

/// What a look has brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct News {
    /// Something that others act on has changed.
    pub changed: bool,
    /// Members that are suspected now and were not before.
    pub suspected: u64,
    /// Facts that were nonsense or beyond the bounds.
    pub dropped: u64,
}

/// The most of those gone that are remembered.
const MAX_GONE: usize = 1_000;
/// Whose heart beats so often in a row, so many intervals after a good-bye, has not said it himself: news of a heart that has stopped travel less long, but
/// for those that a partition has kept back, and those are few.
const ECHOES: u32 = 15;

/// All lives of all nodes that are known.
#[derive(Debug)]
pub struct Roll {
    judge: Judge,
    remember: Duration,
    /// In chitchat's order, so that a glance runs along both without looking anybody up.
    lives: Vec<(ChitchatId, Life)>,
    /// Places of those shown last, in the order in which they are shown.
    shown: Vec<usize>,
}

#[derive(Debug)]
struct Life {
    pulse: Pulse,
    /// The version of what it says that was read, and the newest one that was seen.
    version: u64,
    known: u64,
    says: Option<Says>,
    left: Option<Farewell>,
    state: Option<MemberState>,
    /// chitchat has forgotten it.
    gone: bool,
    /// It was not seen yet in the glance that is under way.
    missed: bool,
}

/// What says that it has left, and what speaks against it.
#[derive(Debug, Clone, Copy)]
struct Farewell {
    since: Instant,
    /// Heartbeats in a row that were heard too late to be echoes.
    beats: u32,
}

#[derive(Debug)]
struct Says {
    id: Arc<str>,
    facts: Arc<Facts>,
}

impl Roll {
    /// An empty one. Members gone are remembered for a while after they were heard last.
    #[must_use]
    pub fn new(judge: Judge, remember: Duration) -> Roll {
        Roll { judge, remember, lives: Vec::new(), shown: Vec::new() }
    }

    /// Takes in the heartbeats of every life that chitchat has not forgotten, in its order. `says` is asked for what a life says when that is news.
    pub fn glance<'a>(
        &mut self,
        known: impl Iterator<Item = Sighting<'a>>,
        says: impl Fn(&ChitchatId) -> Vec<(String, String)>,
        moment: Moment,
    ) -> Glance {
        let (mut glance, mut at, mut missed, mut come) = (Glance::default(), 0, 0, Vec::new());
        for sighting in known {
            // Mostly it is the very next one: who is alike is seen before who comes earlier.
            while self.lives.get(at).is_some_and(|(id, _)| id != sighting.id && id < sighting.id) {
                missed += usize::from(self.lives[at].1.miss());
                at += 1;
            }
            let Some((_, life)) = self.lives.get_mut(at).filter(|(id, _)| id == sighting.id) else {
                come.push((sighting.id.clone(), Life::new(sighting, moment.now, self.judge)));
                continue;
            };
            glance.moved |= life.gone;
            (life.gone, life.missed) = (false, false);
            life.hear(sighting.heartbeat, moment.now, self.judge);
            life.known = sighting.version;
            if life.version != sighting.version {
                glance.unread.push(Unread { at, version: sighting.version, pairs: says(sighting.id) });
            }
            at += 1;
        }
        missed += self.lives.iter_mut().skip(at).map(|(_, life)| usize::from(life.miss())).sum::<usize>();
        glance.moved |= missed > 0 || !come.is_empty();
        if !come.is_empty() {
            self.let_in(come, &mut glance, says);
        }
        glance
    }

    /// Puts newcomers in their places; who is read afterwards is found there.
    fn let_in(
        &mut self,
        come: Vec<(ChitchatId, Life)>,
        glance: &mut Glance,
        says: impl Fn(&ChitchatId) -> Vec<(String, String)>,
    ) {
        self.lives.extend(come);
        self.lives.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        self.shown.clear();
        let unread = self.lives.iter().enumerate().filter(|(_, (_, life))| !life.missed && life.version != life.known);
        glance.unread = unread.map(|(at, (id, life))| Unread { at, version: life.known, pairs: says(id) }).collect();
    }

    /// Judges everybody, reads what was unread, and forgets.
    pub fn look(&mut self, glance: Glance, moment: Moment) -> News {
        let mut news = News::default();
        for Unread { at, version, pairs } in glance.unread {
            let Some((id, life)) = self.lives.get_mut(at) else { continue };
            news.dropped += life.read(id, &pairs, moment);
            life.version = version;
            news.changed = true;
        }
        let judge = self.judge;
        for (_, life) in self.lives.iter_mut().filter(|(_, life)| !life.missed) {
            let state = life.judge(moment.now, judge);
            if state != life.state {
                news.changed = true;
                news.suspected += u64::from(state == Some(MemberState::Suspect));
                life.tell(state);
                life.state = state;
            }
        }
        if self.lives.iter().any(|(_, life)| life.missed) {
            news.changed |= self.remember_gone(moment);
        }
        news
    }

    /// Keeps, for a while, those that chitchat has forgotten: it does so soon, since they take the room of others. Whether something has changed by that.
    fn remember_gone(&mut self, moment: Moment) -> bool {
        let present: HashSet<Arc<str>> =
            self.lives.iter().filter(|(_, life)| !life.missed).filter_map(|(_, life)| life.id()).collect();
        let (before, mut changed, remember) = (self.lives.len(), false, self.remember);
        self.lives.retain_mut(|(_, life)| {
            if !life.missed {
                return true;
            }
            let Some(state) = life.state else { return false };
            if life.id().is_none_or(|id| present.contains(&id)) || life.pulse.silence(moment.now) >= remember {
                changed = true;
                return false;
            }
            let end = if state == MemberState::Left { MemberState::Left } else { MemberState::Dead };
            changed |= end != state;
            (life.state, life.gone) = (Some(end), true);
            true
        });
        let mut silences: Vec<Duration> =
            self.lives.iter().filter(|(_, life)| life.gone).map(|(_, life)| life.pulse.silence(moment.now)).collect();
        if silences.len() > MAX_GONE {
            silences.sort_unstable();
            let longest = silences[MAX_GONE];
            self.lives.retain(|(_, life)| !life.gone || life.pulse.silence(moment.now) < longest);
        }
        if self.lives.len() != before {
            self.shown.clear();
        }
        changed
    }

    /// Where the dead were reached that only this node remembers: a part of the fleet that was cut off is found again there.
    pub fn gone(&self) -> impl Iterator<Item = &ChitchatId> {
        self.lives.iter().filter(|(_, life)| life.gone && life.state == Some(MemberState::Dead)).map(|(id, _)| id)
    }

    /// The members by id, `own` among them in place of all its former lives. Who is shown is found out anew when something has changed.
    #[must_use]
    pub fn members(&mut self, own: Member, moment: Moment, changed: bool) -> Vec<Member> {
        if changed || self.shown.is_empty() {
            self.shown = self.choose(&own.id);
        }
        let mut members: Vec<Member> = Vec::with_capacity(self.shown.len() + 1);
        members.extend(self.shown.iter().filter_map(|at| {
            let (_, life) = self.lives.get(*at)?;
            let says = life.says.as_ref()?;
            Some(Member {
                id: says.id.clone(),
                facts: says.facts.clone(),
                state: life.state?,
                last_seen_ms: moment.wall_ms.saturating_sub(millis(life.pulse.silence(moment.now))),
            })
        }));
        let at = members.partition_point(|member| member.id < own.id);
        members.insert(at, own);
        members
    }

    /// Of each member the life that is shown, by id of the member.
    fn choose(&self, own: &Arc<str>) -> Vec<usize> {
        let mut newest: HashMap<&Arc<str>, (usize, MemberState)> = HashMap::new();
        for (at, (id, life)) in self.lives.iter().enumerate() {
            let (Some(says), Some(state)) = (&life.says, life.state) else { continue };
            if says.id == *own {
                continue;
            }
            let better = |(other, theirs): &(usize, MemberState)| takes_place((id, state), (&self.lives[*other].0, *theirs));
            if newest.get(&says.id).is_none_or(better) {
                newest.insert(&says.id, (at, state));
            }
        }
        let mut shown: Vec<(&Arc<str>, usize)> = newest.into_iter().map(|(id, (at, _))| (id, at)).collect();
        shown.sort_unstable();
        shown.into_iter().map(|(_, at)| at).collect()
    }

    /// Lives beside `own` that are alive and say that they have its id: two nodes have been given the same one.
    #[must_use]
    pub fn doubles(&self, own: &ChitchatId, id: &str) -> usize {
        let double = |(life, says): &&(ChitchatId, Life)| {
            life != own && says.state == Some(MemberState::Alive) && says.says.as_ref().is_some_and(|says| &*says.id == id)
        };
        self.lives.iter().filter(double).count()
    }

    /// Where members that can be reached gossip.
    pub fn reachable(&self) -> impl Iterator<Item = &ChitchatId> {
        self.lives.iter().filter(|(_, life)| life.state.is_some_and(is_there)).map(|(id, _)| id)
    }
}

impl Life {
    fn new(sighting: Sighting<'_>, now: Instant, judge: Judge) -> Life {
        let pulse = Pulse::new(sighting.heartbeat, now, judge);
        Life { pulse, version: 0, known: sighting.version, says: None, left: None, state: None, gone: false, missed: false }
    }

    /// The node whose life it is, as it says.
    fn id(&self) -> Option<Arc<str>> {
        self.says.as_ref().map(|says| says.id.clone())
    }

    /// Takes note that chitchat does not know it; whether it did before.
    fn miss(&mut self) -> bool {
        self.missed = true;
        !self.gone
    }

    /// Reads what it says; how much of it was nonsense. Who says nothing sensible any more is what it was.
    fn read(&mut self, life: &ChitchatId, pairs: &[(String, String)], moment: Moment) -> u64 {
        let read = codec::decode(pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())), moment.wall_ms);
        let Some(Read { id, mut facts, left, dropped }) = read else { return 0 };
        // Where it gossips has been seen, whatever it says.
        facts.address = Some(life.gossip_advertise_addr);
        self.says = Some(Says { id, facts: Arc::new(facts) });
        self.left = left.then(|| self.left.unwrap_or(Farewell { since: moment.now, beats: 0 }));
        dropped
    }

    /// Takes note of the newest heartbeat, and of whether it belies a good-bye.
    fn hear(&mut self, beat: u64, now: Instant, judge: Judge) {
        let beats = self.pulse.hear(beat, now, judge);
        if let Some(farewell) = &mut self.left
            && let Some(beats) = beats
        {
            let late = now > farewell.since + judge.interval * ECHOES;
            farewell.beats = if late && beats == Beat::InTime { farewell.beats + 1 } else { 0 };
        }
    }

    fn judge(&self, now: Instant, judge: Judge) -> Option<MemberState> {
        self.says.as_ref()?;
        let state = self.pulse.state(now, judge)?;
        // A good-bye that its heart has belied counts when the heart stops after all: the next one may have been its own, and says the same.
        let left = self.left.is_some_and(|farewell| farewell.beats < ECHOES || state == MemberState::Dead);
        Some(if left { MemberState::Left } else { state })
    }

    fn tell(&self, state: Option<MemberState>) {
        let (Some(says), Some(state)) = (&self.says, state) else { return };
        let was = self.state.map_or("unknown", MemberState::as_str);
        tracing::info!(member = %says.id, was, is = state.as_str(), "a member of the fleet is seen otherwise");
    }
}

/// Whether one life of a node is shown in place of another one: who is there before who is not, then the later one. A later life elsewhere waits until the
/// former one falls silent, so that nobody takes the name of a member that lives.
fn takes_place((id, state): (&ChitchatId, MemberState), (other, theirs): (&ChitchatId, MemberState)) -> bool {
    if is_there(state) != is_there(theirs) {
        return is_there(state);
    }
    let moved = id.gossip_advertise_addr.ip() != other.gossip_advertise_addr.ip();
    if moved && (state == MemberState::Alive) != (theirs == MemberState::Alive) {
        return state == MemberState::Alive;
    }
    let later = id.generation_id > other.generation_id;
    if moved && state == MemberState::Alive { !later } else { later }
}

fn is_there(state: MemberState) -> bool {
    matches!(state, MemberState::Alive | MemberState::Suspect)
}

fn millis(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::clock;

    const JUDGE: Judge = Judge { interval: Duration::from_secs(1), threshold: 8.0 };

    struct Watcher {
        roll: Roll,
        start: Instant,
    }

    impl Watcher {
        fn new() -> Watcher {
            Watcher { roll: Roll::new(JUDGE, Duration::from_secs(60)), start: clock::now() }
        }

        fn at(&self, second: u64) -> Moment {
            Moment { now: self.start + Duration::from_secs(second), wall_ms: 1_000_000 + second * 1_000 }
        }

        fn look(&mut self, second: u64, seen: &[Seen]) -> News {
            let (moment, mut seen) = (self.at(second), seen.to_vec());
            seen.sort_by(|a, b| a.id.cmp(&b.id));
            let sightings =
                seen.iter().map(|Seen { id, heartbeat, version, .. }| Sighting { id, heartbeat: *heartbeat, version: *version });
            let says = |id: &ChitchatId| seen.iter().find(|seen| seen.id == *id).unwrap().pairs.clone().unwrap();
            let glance = self.roll.glance(sightings, says, moment);
            self.roll.look(glance, moment)
        }

        fn shown(&mut self, second: u64) -> Vec<(String, &'static str)> {
            let own = Member { id: "own".into(), facts: Arc::default(), state: MemberState::Alive, last_seen_ms: 0 };
            // Without news the same are shown.
            let moment = self.at(second);
            let members = self.roll.members(own.clone(), moment, false);
            assert_eq!(members, self.roll.members(own, moment, true));
            members.into_iter().map(|member| (member.id.to_string(), member.state.as_str())).collect()
        }
    }

    /// What is seen of a life; `pairs` are there where they are news.
    #[derive(Clone)]
    struct Seen {
        id: ChitchatId,
        heartbeat: u64,
        version: u64,
        pairs: Option<Vec<(String, String)>>,
    }

    fn sighting(node: &str, generation: u64, heartbeat: u64) -> Seen {
        let id = ChitchatId::new("x", generation, "127.0.0.1:1".parse().unwrap());
        let pairs = codec::encode(node, &Facts::default()).0;
        Seen { id, heartbeat, version: 1, pairs: Some(pairs.into_iter().collect()) }
    }

    fn quiet(seen: Seen) -> Seen {
        Seen { pairs: None, ..seen }
    }

    #[test]
    fn a_member_comes_falls_silent_and_is_forgotten() {
        let mut watcher = Watcher::new();
        watcher.look(0, &[sighting("a", 1, 1)]);
        assert_eq!(watcher.shown(0), [("own".into(), "alive")]);
        assert!(watcher.look(1, &[quiet(sighting("a", 1, 2))]).changed);
        assert_eq!(watcher.shown(1)[0], ("a".into(), "alive"));
        assert_eq!(watcher.look(2, &[quiet(sighting("a", 1, 3))]), News::default());
        assert_eq!(watcher.look(7, &[quiet(sighting("a", 1, 3))]).suspected, 1);
        assert_eq!(watcher.look(8, &[quiet(sighting("a", 1, 3))]), News::default());
        assert!(watcher.look(11, &[quiet(sighting("a", 1, 3))]).changed);
        assert_eq!(watcher.shown(11)[0], ("a".into(), "dead"));
        // chitchat forgets it, the roll does not yet.
        assert_eq!(watcher.look(12, &[]), News::default());
        assert_eq!(watcher.shown(12)[0], ("a".into(), "dead"));
        assert_eq!(watcher.roll.gone().count(), 1);
        assert!(watcher.look(62, &[]).changed);
        assert_eq!(watcher.shown(62), [("own".into(), "alive")]);
    }

    #[test]
    fn a_restarted_node_takes_the_place_of_its_former_self() {
        let mut watcher = Watcher::new();
        watcher.look(0, &[sighting("a", 1, 1)]);
        watcher.look(1, &[quiet(sighting("a", 1, 2)), sighting("a", 2, 1)]);
        watcher.look(2, &[quiet(sighting("a", 1, 2)), quiet(sighting("a", 2, 2))]);
        assert_eq!(watcher.shown(2), [("a".into(), "alive"), ("own".into(), "alive")]);
        // The new self dies as well: it is not the old one that is shown.
        watcher.look(30, &[quiet(sighting("a", 1, 2)), quiet(sighting("a", 2, 2))]);
        assert_eq!(watcher.shown(30)[0], ("a".into(), "dead"));
    }

    #[test]
    fn who_was_forgotten_and_comes_back_is_there_again() {
        let mut watcher = Watcher::new();
        watcher.look(0, &[sighting("a", 1, 1)]);
        watcher.look(1, &[quiet(sighting("a", 1, 2))]);
        watcher.look(20, &[]);
        assert_eq!(watcher.shown(20)[0], ("a".into(), "dead"));
        watcher.look(21, &[sighting("a", 1, 30)]);
        assert_eq!(watcher.shown(21)[0], ("a".into(), "dead"), "it may be its last heartbeat");
        watcher.look(22, &[quiet(sighting("a", 1, 31))]);
        watcher.look(23, &[quiet(sighting("a", 1, 32))]);
        assert_eq!(watcher.shown(23)[0], ("a".into(), "alive"));
        assert_eq!(watcher.roll.gone().count(), 0);
    }

    #[test]
    fn a_later_life_elsewhere_waits_until_the_former_one_is_silent() {
        let elsewhere = |heartbeat| {
            let id = ChitchatId::new("x", 2, "127.0.0.2:1".parse().unwrap());
            let facts = Facts { version: "elsewhere".into(), ..Facts::default() };
            let pairs = codec::encode("a", &facts).0;
            Seen { id, heartbeat, version: 1, pairs: Some(pairs.into_iter().collect()) }
        };
        let version = |watcher: &mut Watcher, second| {
            let own = Member { id: "own".into(), facts: Arc::default(), state: MemberState::Alive, last_seen_ms: 0 };
            let moment = watcher.at(second);
            watcher.roll.members(own, moment, true)[0].facts.version.to_string()
        };
        let mut watcher = Watcher::new();
        for second in 0..3 {
            watcher.look(second, &[sighting("a", 1, second + 1), elsewhere(second + 1)]);
        }
        assert_eq!(version(&mut watcher, 2), "");
        for second in 3..8 {
            watcher.look(second, &[quiet(sighting("a", 1, 3)), quiet(elsewhere(second + 1))]);
        }
        assert_eq!(version(&mut watcher, 8), "elsewhere");
    }

    #[test]
    fn a_good_bye_that_somebody_else_has_said_is_seen_through() {
        let mut watcher = Watcher::new();
        watcher.look(0, &[sighting("a", 1, 1)]);
        let mut forged = Seen { version: 2, ..sighting("a", 1, 2) };
        let (key, value) = codec::farewell();
        forged.pairs.as_mut().unwrap().push((key.into(), value.into()));
        watcher.look(1, &[forged.clone()]);
        assert_eq!(watcher.shown(1)[0], ("a".into(), "left"));
        for second in 2..40 {
            watcher.look(second, &[Seen { version: 2, ..quiet(sighting("a", 1, second + 1)) }]);
        }
        assert_eq!(watcher.shown(39)[0], ("a".into(), "alive"));
        // Before it has heard of that and taken it back, it leaves of its own accord.
        watcher.look(40, &[Seen { version: 3, heartbeat: 41, ..forged }]);
        for second in 41..60 {
            watcher.look(second, &[Seen { version: 3, ..quiet(sighting("a", 1, 41)) }]);
        }
        assert_eq!(watcher.shown(59)[0], ("a".into(), "left"));
    }

    #[test]
    fn who_has_left_stays_so_when_a_partition_heals_and_its_last_heartbeats_come_late() {
        let mut watcher = Watcher::new();
        watcher.look(0, &[sighting("a", 1, 1)]);
        let mut leaving = Seen { version: 2, ..sighting("a", 1, 2) };
        let (key, value) = codec::farewell();
        leaving.pairs.as_mut().unwrap().push((key.into(), value.into()));
        watcher.look(1, &[leaving]);
        for (second, beat) in [(40, 3), (41, 5), (42, 6), (60, 7), (61, 8)] {
            watcher.look(second, &[Seen { version: 2, ..quiet(sighting("a", 1, beat)) }]);
            assert_eq!(watcher.shown(second)[0], ("a".into(), "left"), "after {second} s");
        }
    }

    #[test]
    fn nobody_speaks_in_our_place() {
        let mut watcher = Watcher::new();
        watcher.look(0, &[sighting("own", 1, 1)]);
        watcher.look(1, &[quiet(sighting("own", 1, 2))]);
        assert_eq!(watcher.shown(1), [("own".into(), "alive")]);
        let own = ChitchatId::new("own", 9, "127.0.0.1:2".parse().unwrap());
        assert_eq!(watcher.roll.doubles(&own, "own"), 1);
    }

    #[test]
    fn who_said_good_bye_has_left() {
        let mut watcher = Watcher::new();
        watcher.look(0, &[sighting("a", 1, 1)]);
        let mut leaving = Seen { version: 2, ..sighting("a", 1, 2) };
        let (key, value) = codec::farewell();
        leaving.pairs.as_mut().unwrap().push((key.into(), value.into()));
        assert!(watcher.look(1, &[leaving]).changed);
        assert_eq!(watcher.shown(1)[0], ("a".into(), "left"));
        assert_eq!(watcher.roll.reachable().count(), 0);
    }

    #[test]
    fn what_makes_no_sense_changes_nothing_of_what_made_sense() {
        let mut watcher = Watcher::new();
        watcher.look(0, &[sighting("a", 1, 1)]);
        let mut odd = Seen { version: 2, ..sighting("a", 1, 2) };
        odd.pairs = Some(vec![("about".into(), "?".into())]);
        watcher.look(1, &[odd]);
        assert_eq!(watcher.shown(1)[0], ("a".into(), "alive"));
    }
}
