//! A fleet that gossips in one process, over a net in memory and in time that passes only when all sleep: how soon it converges, what it costs, whom it
//! wrongly suspects, and how it comes through a partition. `docs/performance.md` has its numbers.
//!
//! `cargo run --release -p heddle-node --example gossip_fleet -- 1000`: takes an hour, most of it what a thousand digests cost. Each second of the fleet's own time is
//! told on the standard error.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use heddle_node::clock;
use heddle_node::membership::gossip::{Count, Doorman, Gossip, GossipSettings, MemoryNet, Parts, StartError, join};
use heddle_node::membership::{Facts, MemberState, Membership};

/// How many nodes unless told otherwise: as many as flat gossip carries.
const NODES: usize = 1_000;
/// How long a message is on its way.
const LATENCY: Duration = Duration::from_millis(2);
/// How often is looked whether something has come to be.
const LOOK: Duration = Duration::from_millis(250);
/// With whom all begin.
const SEEDS: usize = 3;
/// Nothing takes longer than this.
const LIMIT: Duration = Duration::from_secs(300);

struct Fleet {
    net: MemoryNet,
    nodes: Vec<Option<Gossip>>,
}

fn address(number: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, (number / 250) as u8, (number % 250) as u8 + 1], 7_946))
}

impl Fleet {
    async fn of(count: usize) -> Result<Fleet, StartError> {
        let net = MemoryNet::new(fastrand::Rng::with_seed(1));
        net.delay(LATENCY);
        let mut fleet = Fleet { net, nodes: Vec::new() };
        let seeds: Vec<String> = (0..SEEDS).map(|seed| address(seed).to_string()).collect();
        let mut dice = fastrand::Rng::with_seed(2);
        for number in 0..count {
            let settings = GossipSettings { listen: address(number), seeds: seeds.clone(), ..GossipSettings::default() };
            let facts = Facts { role: "gateway".into(), zone: "eu-1".into(), version: "0.1.0".into(), ..Facts::default() };
            let membership = Membership::alone(&format!("gateway-{number:04}.example.internal"), facts);
            let doorman = Arc::new(Doorman::new(settings.max_members));
            let transport = Arc::new(fleet.net.transport(doorman.clone()));
            let parts = Parts { settings, membership, identity: None, towards: Vec::new() };
            fleet.nodes.push(Some(join(parts, address(number), doorman, transport).await?));
            // Their rounds are not in step.
            tokio::time::sleep(Duration::from_micros(dice.u64(0..2_000_000 / count as u64))).await;
        }
        Ok(fleet)
    }

    fn running(&self) -> impl Iterator<Item = &Gossip> {
        self.nodes.iter().flatten()
    }

    /// How many of all pairs see each other as members that are there. Of a million pairs somebody always suspects somebody, which `watch` tells.
    fn present(&self) -> usize {
        self.pairs(MemberState::Alive) + self.pairs(MemberState::Suspect)
    }

    /// How many of all pairs see each other in this state.
    fn pairs(&self, state: MemberState) -> usize {
        let seen = |gossip: &Gossip| gossip.membership().fleet().members.iter().filter(|member| member.state == state).count();
        self.running().map(seen).sum()
    }

    fn sum(&self, count: Count) -> u64 {
        self.running().map(|gossip| gossip.counters().get(count)).sum()
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Fleet) -> bool) -> f64 {
        let start = clock::now();
        while !is_so(self) {
            assert!(clock::now() - start < LIMIT, "{what}: not within {LIMIT:?}");
            tokio::time::sleep(LOOK).await;
        }
        let took = (clock::now() - start).as_secs_f64();
        println!("{what:<58} {took:>9.2} s");
        took
    }

    async fn until_all_there(&self, what: &str) {
        let count = self.running().count();
        self.until(what, |fleet| fleet.present() == count * count).await;
    }

    /// Lets a while pass, each second looking for members that are alive and not seen so.
    async fn watch(&self, what: &str, seconds: u32) {
        let (bytes, messages) = (self.sum(Count::BytesOut), self.sum(Count::MessagesOut));
        let suspicions = self.sum(Count::Suspicions);
        let (mut suspected, mut dead) = (0, 0);
        for _ in 0..seconds {
            tokio::time::sleep(Duration::from_secs(1)).await;
            suspected += self.pairs(MemberState::Suspect);
            dead += self.pairs(MemberState::Dead);
        }
        let count = self.running().count();
        let (node_seconds, looks) = (count as f64 * f64::from(seconds), (count * (count - 1)) as f64 * f64::from(seconds));
        println!("{what}, {seconds} s:");
        println!("  bytes sent per node and second {:>36.0}", (self.sum(Count::BytesOut) - bytes) as f64 / node_seconds);
        println!("  messages sent per node and second {:>33.2}", (self.sum(Count::MessagesOut) - messages) as f64 / node_seconds);
        println!("  suspicions per pair and hour {:>38.6}", (self.sum(Count::Suspicions) - suspicions) as f64 / looks * 3_600.0);
        println!("  wrongly suspected, share of all looks {:>29.8}", suspected as f64 / looks);
        println!("  wrongly taken for dead, share of all looks {:>24.8}", dead as f64 / looks);
    }
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let count: usize = std::env::args()
        .nth(1)
        .map_or(Ok(NODES), |word| word.parse())
        .map_err(|why| format!("how many nodes, a number, was expected: {why}"))?;
    tokio::spawn(tell_the_time());
    println!("{count} nodes, a round a second, {LATENCY:?} per message, {SEEDS} seeds");
    let mut fleet = Fleet::of(count).await?;
    fleet.until_all_there("all see all, after the last has joined").await;
    fleet.watch("at rest", 5).await;
    let one = fleet.running().nth(count / 2).map(|gossip| gossip.membership().clone()).ok_or("there is nobody")?;
    one.say(|facts| facts.config_version = "news".into());
    let id = one.id().clone();
    let told = |fleet: &Fleet| {
        let knows =
            |gossip: &&Gossip| gossip.membership().fleet().get(&id).is_some_and(|member| &*member.facts.config_version == "news");
        fleet.running().filter(knows).count()
    };
    fleet.until("half have heard what one said", |fleet| told(fleet) * 2 >= count).await;
    fleet.until("and then all", |fleet| told(fleet) == count).await;
    fleet.net.lose(0.05);
    fleet.watch("with 5 % of messages lost", 20).await;
    fleet.net.lose(0.0);
    let gone = count / 20;
    for node in fleet.nodes.iter_mut().rev().take(gone) {
        if let Some(node) = node.take() {
            node.abort();
        }
    }
    let left = count - gone;
    fleet.until("one in twenty killed: the first is seen dead somewhere", |fleet| fleet.pairs(MemberState::Dead) > 0).await;
    fleet.until("and then all of them everywhere", |fleet| fleet.pairs(MemberState::Dead) == gone * left).await;
    fleet.net.part(|address| {
        u32::from_be_bytes(match address {
            SocketAddr::V4(v4) => v4.ip().octets(),
            SocketAddr::V6(_) => [0; 4],
        }) % 3
    });
    let own_part = |fleet: &Fleet| {
        let parts = [0, 1, 2].map(|part| (0..left).filter(|number| part_of(*number) == part).count());
        fleet.present() == parts.iter().map(|part| part * part).sum::<usize>()
    };
    fleet.until("parted in three: each part sees only itself", own_part).await;
    fleet.net.heal();
    fleet.until_all_there("healed: all see all").await;
    Ok(())
}

/// Says on the standard error what time it is in the fleet.
async fn tell_the_time() {
    for second in 1.. {
        tokio::time::sleep(Duration::from_secs(1)).await;
        eprint!("\r{second} s of the fleet's time ");
    }
}

fn part_of(number: usize) -> u32 {
    match address(number) {
        SocketAddr::V4(v4) => u32::from_be_bytes(v4.ip().octets()) % 3,
        SocketAddr::V6(_) => 0,
    }
}
