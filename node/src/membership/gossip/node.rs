//! One node that gossips: keeps chitchat running, hands it what is said, and copies out of it what is heard, so that nobody else waits for its lock.

use std::collections::{BTreeSet, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chitchat::transport::{Socket, Transport};
use chitchat::{Chitchat, ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, spawn_chitchat};
use tokio::sync::{oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, interval_at, sleep, sleep_until};

use super::doorman::{Count, Doorman};
use super::pulse::Judge;
use super::roll::{Glance, Moment, Roll, Sighting};
use super::settings::GossipSettings;
use super::wire::Named;
use super::{codec, seeds};
use crate::clock;
use crate::membership::{Member, MemberState, Membership};

/// What is said in this time travels together.
const TOGETHER: Duration = Duration::from_millis(50);
/// How often what we say is said anew although it is the same, so that what a lying member has put in our place does not stay.
const SAY_ANEW: Duration = Duration::from_secs(60);
/// In so many intervals chitchat forgets the dead, who take the room of others; the roll remembers them for longer.
const TAKES_ROOM: u32 = 60;
/// The most that are asked at a time whether they are there.
const ASKED: usize = 3;
/// How often what was heard last is brought up to date, when nothing else has changed.
const TOUCH: Duration = Duration::from_secs(1);
/// Chitchat's memory of intervals; it only chooses with whom to gossip by them.
const WINDOW: usize = 16;
/// How many members hear a good-bye from us; they tell the others.
const FAREWELLS: usize = 5;
/// How long after a fault chitchat is started again.
const AGAIN: Duration = Duration::from_secs(1);

/// A node.
pub(super) struct Node {
    settings: GossipSettings,
    membership: Membership,
    address: SocketAddr,
    doorman: Arc<Doorman>,
    transport: Arc<dyn Transport>,
    judge: Judge,
    dice: fastrand::Rng,
}

/// What is known in one run of chitchat.
struct Run {
    handle: ChitchatHandle,
    roll: Roll,
    /// Keys that have been set: what is no longer said has to be emptied.
    keys: BTreeSet<String>,
    touched: clock::Instant,
    proved: clock::Instant,
    doubled: bool,
    /// It has been told that there is little room left.
    crowded: bool,
}

impl Run {
    fn new(handle: ChitchatHandle, roll: Roll) -> Run {
        let now = clock::now();
        Run { handle, roll, keys: BTreeSet::new(), touched: now, proved: now, doubled: false, crowded: false }
    }
}

impl Node {
    pub(super) fn new(
        settings: GossipSettings,
        membership: Membership,
        address: SocketAddr,
        doorman: Arc<Doorman>,
        transport: Arc<dyn Transport>,
    ) -> Node {
        let judge = Judge { interval: settings.interval, threshold: settings.phi_threshold };
        Node { settings, membership, address, doorman, transport, judge, dice: fastrand::Rng::new() }
    }

    /// Starts chitchat, as a new life of this node.
    pub(super) async fn open(&self) -> anyhow::Result<ChitchatHandle> {
        let interval = self.settings.interval;
        let detector = FailureDetectorConfig {
            phi_threshold: self.settings.phi_threshold,
            sampling_window_size: WINDOW,
            max_interval: interval * 10,
            initial_interval: interval,
            dead_node_grace_period: self.settings.forget_after.min(interval * TAKES_ROOM),
        };
        let life = super::life(self.membership.id(), clock::wall(), self.address);
        if let Some(own) = named(&life) {
            self.doorman.is(own);
        }
        let config = ChitchatConfig {
            chitchat_id: life,
            cluster_id: self.settings.cluster_id(),
            gossip_interval: interval,
            listen_addr: self.settings.listen,
            seed_nodes: Vec::new(),
            failure_detector_config: detector,
            marked_for_deletion_grace_period: self.settings.forget_after,
            catchup_callback: None,
            // Nobody reads chitchat's list of the living, into which it would copy all that all of them say whenever one of them says something.
            extra_liveness_predicate: Some(Box::new(|_| false)),
        };
        let (pairs, left_out) = codec::encode(self.membership.id(), &self.membership.facts());
        self.doorman.counters.add(Count::FactsLeftOut, left_out);
        spawn_chitchat(config, pairs.into_iter().collect(), &Borrowed(self.transport.clone())).await
    }

    /// Gossips until it is asked to leave. When chitchat ends by a fault, it is started again.
    pub(super) async fn run(
        mut self,
        first: Option<ChitchatHandle>,
        mut seeded: watch::Receiver<Vec<String>>,
        mut leaving: oneshot::Receiver<oneshot::Sender<()>>,
    ) {
        let mut next = first;
        loop {
            let handle = match next.take() {
                Some(handle) => handle,
                None => match self.open().await {
                    Ok(handle) => handle,
                    Err(error) => {
                        tracing::error!(%error, "gossip does not start again; this is tried on");
                        sleep(AGAIN).await;
                        continue;
                    }
                },
            };
            let mut run = Run::new(handle, Roll::new(self.judge, self.settings.forget_after));
            tokio::select! {
                () = self.gossip(&mut run, &mut seeded) => {}
                asked = &mut leaving => {
                    // Without anybody who asks, the process goes without a good-bye.
                    if let Ok(done) = asked {
                        self.say_farewell(&mut run).await;
                        // Nobody waits any more: that is all right.
                        let _ = done.send(());
                    }
                    return;
                }
            }
            self.doorman.counters.add(Count::Restarts, 1);
            sleep(AGAIN).await;
        }
    }

    /// Says, hears and asks until chitchat ends.
    async fn gossip(&mut self, run: &mut Run, seeded: &mut watch::Receiver<Vec<String>>) {
        self.say(run, false).await;
        let mut said = self.membership.said();
        let mut look = interval((self.settings.interval / 4).clamp(Duration::from_millis(20), Duration::from_millis(500)));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut say_anew = interval_at(clock::now() + SAY_ANEW, SAY_ANEW);
        let mut ask = clock::now();
        let ended = run.handle.termination_watcher();
        tokio::pin!(ended);
        loop {
            tokio::select! {
                end = &mut ended => {
                    let error = end.err().map(|error| error.to_string()).unwrap_or_default();
                    tracing::error!(%error, "gossip has ended, it is started again");
                    return;
                }
                _ = look.tick() => self.hear(run).await,
                _ = say_anew.tick() => self.say(run, true).await,
                Ok(()) = said.changed() => {
                    sleep(TOGETHER).await;
                    said.mark_unchanged();
                    self.say(run, false).await;
                }
                () = sleep_until(ask) => {
                    let others = self.ask(run, seeded).await;
                    ask = clock::now() + seeds::pause(self.settings.interval, others);
                }
                Ok(()) = seeded.changed() => ask = clock::now(),
            }
        }
    }

    /// Hands chitchat what this node says; `anew`: all of it takes the place of what others have of it.
    async fn say(&self, run: &mut Run, anew: bool) {
        let (pairs, left_out) = codec::encode(self.membership.id(), &self.membership.facts());
        self.doorman.counters.add(Count::FactsLeftOut, left_out);
        let gone: Vec<String> = run.keys.iter().filter(|key| !pairs.contains_key(*key)).cloned().collect();
        run.keys = pairs.keys().cloned().collect();
        let claimed = self.doorman.claimed();
        run.handle
            .with_chitchat(|chitchat| {
                let own = chitchat.self_node_state();
                if claimed > own.max_version() {
                    own.set_max_version(claimed);
                }
                if anew {
                    // A value that stays the same would not be said.
                    pairs.keys().for_each(|key| own.set(key, "-"));
                }
                pairs.iter().for_each(|(key, value)| own.set(key, value));
                gone.iter().for_each(|key| own.set(key, ""));
            })
            .await;
    }

    /// Copies what chitchat has heard, and lets everybody know when it matters.
    async fn hear(&mut self, run: &mut Run) {
        let moment = Moment { now: clock::now(), wall_ms: clock::unix_ms() };
        let (roll, unsettled) = (&mut run.roll, !self.doorman.is_settled());
        let (glance, present, own, version) =
            run.handle.with_chitchat(|chitchat| glance(chitchat, roll, unsettled, moment)).await;
        if let Some(present) = present {
            self.doorman.refresh(present);
        }
        if self.doorman.claimed() > version {
            tracing::warn!("another node has written in the name of this one; what this one says is said anew");
            self.say(run, true).await;
        }
        self.prove(run);
        let news = run.roll.look(glance, moment);
        self.doorman.counters.add(Count::Suspicions, news.suspected);
        self.doorman.counters.add(Count::FactsDropped, news.dropped);
        let due = moment.now.saturating_duration_since(run.touched) >= TOUCH;
        if !news.changed && !due {
            return;
        }
        run.touched = moment.now;
        let members = run.roll.members(self.own(moment.wall_ms, MemberState::Alive), moment, news.changed);
        if news.changed {
            self.membership.hear(members);
        } else {
            self.membership.touch(members);
        }
        let doubled = run.roll.doubles(&own, self.membership.id()) > 0;
        if doubled && !run.doubled {
            tracing::warn!(id = %self.membership.id(), "another node says that it has the id of this one; give each node.id to one node only");
        }
        run.doubled = doubled;
        self.look_for_room(run);
    }

    /// Tells operators in time that a cell fills: whoever comes when it is full is not let in.
    fn look_for_room(&self, run: &mut Run) {
        let (members, limit) = (self.membership.fleet().members.len(), self.settings.max_members);
        let crowded = is_crowded(members, limit, run.crowded);
        if crowded && !run.crowded {
            tracing::warn!(
                members,
                limit,
                cell = self.settings.cell,
                "the gossip has little room left, and who comes when it is full is not let in: cut the fleet into cells (gossip.cell), mostly one for each zone"
            );
        }
        run.crowded = crowded;
    }

    /// Asks some of whom only one peer has spoken whether they are there, once in a round.
    fn prove(&mut self, run: &mut Run) {
        let now = clock::now();
        if now.saturating_duration_since(run.proved) < self.settings.interval {
            return;
        }
        run.proved = now;
        for address in self.doorman.unproven(ASKED, &mut self.dice) {
            if address != self.address {
                // An error means that chitchat has ended, which is seen elsewhere.
                let _ = run.handle.gossip(address);
            }
        }
    }

    fn own(&self, wall_ms: u64, state: MemberState) -> Member {
        Member { id: self.membership.id().clone(), facts: self.membership.facts(), state, last_seen_ms: wall_ms }
    }

    /// Asks seeds that are not heard; how many others are.
    async fn ask(&mut self, run: &Run, seeded: &mut watch::Receiver<Vec<String>>) -> usize {
        let told: Vec<String> = self.settings.seeds.iter().chain(seeded.borrow_and_update().iter()).cloned().collect();
        let heard: HashSet<SocketAddr> = run.roll.reachable().map(|id| id.gossip_advertise_addr).collect();
        let mut found = seeds::look_up(&told).await;
        found.extend(run.roll.gone().map(|id| id.gossip_advertise_addr));
        found.remove(&self.address);
        for seed in seeds::pick(found, &heard, &mut self.dice) {
            // An error means that chitchat has ended, which is seen elsewhere.
            let _ = run.handle.gossip(seed);
        }
        heard.len()
    }

    /// Tells a few members that this node leaves; they tell the others.
    async fn say_farewell(&mut self, run: &mut Run) {
        let (key, value) = codec::farewell();
        self.say(run, false).await;
        run.handle.with_chitchat(|chitchat| chitchat.self_node_state().set(key, value)).await;
        let mut members: Vec<SocketAddr> = run.roll.reachable().map(|id| id.gossip_advertise_addr).collect();
        members.sort_unstable();
        self.dice.shuffle(&mut members);
        for member in members.into_iter().take(FAREWELLS) {
            // An error means that chitchat has ended: there is nobody to say good-bye.
            let _ = run.handle.gossip(member);
        }
        // The question, its answer and ours: a round trip and a half, within an interval in every usable network.
        sleep(self.settings.interval.clamp(Duration::from_millis(200), Duration::from_secs(1))).await;
        self.membership.hear(vec![self.own(clock::unix_ms(), MemberState::Left)]);
        // An error means that it has ended already.
        let _ = run.handle.initiate_shutdown();
    }
}

/// Whether nine of ten places are taken; having been so, it ends with eight of ten, so that it is told of once.
fn is_crowded(members: usize, limit: usize, was: bool) -> bool {
    members * 10 >= limit * if was { 8 } else { 9 }
}

/// A life as its messages name it. Who is let in has a name of that length, as we do.
fn named(id: &ChitchatId) -> Option<Named> {
    let name = id.node_id.as_bytes().try_into().ok()?;
    Some(Named { name, generation: id.generation_id, address: id.gossip_advertise_addr })
}

/// A glance at what chitchat knows; who is in, when somebody has come or gone or else `unsettled`; which life is ours, and the version of what we say.
fn glance(
    chitchat: &mut Chitchat,
    roll: &mut Roll,
    unsettled: bool,
    moment: Moment,
) -> (Glance, Option<Vec<Named>>, ChitchatId, u64) {
    let own = chitchat.self_chitchat_id().clone();
    let own_version = chitchat.self_node_state().max_version();
    let states = chitchat.node_states();
    let others = states.iter().filter(|(id, _)| **id != own);
    let sightings = others.map(|(id, state)| Sighting { id, heartbeat: state.heartbeat().into(), version: state.max_version() });
    let says = |id: &ChitchatId| {
        let pairs = states.get(id).into_iter().flat_map(|state| state.key_values());
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    };
    let glance = roll.glance(sightings, says, moment);
    let present = (glance.moved || unsettled).then(|| states.keys().filter_map(named).collect());
    (glance, present, own, own_version)
}

/// The transport, as often as it has to be opened.
struct Borrowed(Arc<dyn Transport>);

#[async_trait::async_trait]
impl Transport for Borrowed {
    async fn open(&self, address: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        self.0.open(address).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_there_is_little_room_is_told_in_time_and_once() {
        assert_eq!([899, 900, 1_000].map(|members| is_crowded(members, 1_000, false)), [false, true, true]);
        assert_eq!([900, 850, 799].map(|members| is_crowded(members, 1_000, true)), [true, true, false]);
    }
}
