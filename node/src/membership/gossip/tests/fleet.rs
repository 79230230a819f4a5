//! What happens to members: they come, speak, fall silent, leave, come back, are parted and are too many.

use chitchat::ChitchatId;
use chitchat::transport::Transport;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn all_hear_what_one_says() {
    let fleet = TestFleet::of(5).await;
    fleet.until_all_alive().await;
    let load = NodeLoad { in_flight: 7, requests_per_second: 100 };
    fleet.node(3).membership().say(|facts| (facts.load, facts.config_version) = (load, "v9".into()));
    let told = |fleet: &TestFleet| {
        fleet.running().all(|gossip| {
            gossip.membership().fleet().get(&name(3)).is_some_and(|member| {
                member.facts.load == load && &*member.facts.config_version == "v9" && member.facts.address == Some(address(3))
            })
        })
    };
    let took = fleet.until("all have heard", MINUTE, told).await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(fleet.node(0).counters().get(Count::BytesIn) > 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_longer_said_is_forgotten() {
    let fleet = TestFleet::of(2).await;
    fleet.until_all_alive().await;
    let uses = |count: u64| (0..count).map(|key| crate::membership::LimitUse { key, window_ms: 1, used: 1 }).collect();
    let heard = |count: usize| {
        move |fleet: &TestFleet| {
            fleet.node(1).membership().fleet().get(&name(0)).is_some_and(|member| member.facts.uses.len() == count)
        }
    };
    fleet.node(0).membership().say(|facts| facts.uses = uses(40));
    fleet.until("all uses are there", MINUTE, heard(40)).await;
    fleet.node(0).membership().say(|facts| facts.uses = uses(3));
    fleet.until("the rest is gone", MINUTE, heard(3)).await;
}

#[tokio::test(start_paused = true)]
async fn who_falls_silent_is_suspected_then_dead_then_forgotten() {
    let mut fleet = TestFleet::of(4).await;
    fleet.until_all_alive().await;
    // So that what is usual is known.
    tokio::time::sleep(MINUTE).await;
    fleet.nodes[2].take().unwrap().abort();
    let suspected = fleet.until("it is suspected", MINUTE, |fleet| fleet.state(0, 2) == Some(MemberState::Suspect)).await;
    let dead = fleet.until("it is dead", MINUTE, |fleet| fleet.all_see(MemberState::Dead, 1)).await;
    assert!((Duration::from_secs(3)..Duration::from_secs(8)).contains(&suspected), "{suspected:?}");
    assert!((Duration::from_secs(2)..Duration::from_secs(8)).contains(&dead), "{dead:?}");
    assert_eq!(fleet.node(0).counters().get(Count::Suspicions), 1);
    let limit = fleet.settings.forget_after * 2;
    fleet
        .until("it is forgotten", limit, |fleet| fleet.running().all(|gossip| gossip.membership().fleet().members.len() == 3))
        .await;
}

#[tokio::test(start_paused = true)]
async fn who_leaves_is_not_waited_for() {
    let mut fleet = TestFleet::of(6).await;
    fleet.until_all_alive().await;
    let gone = fleet.nodes[4].take().unwrap();
    let own = gone.membership().clone();
    gone.leave().await;
    let took = fleet.until("it has left", MINUTE, |fleet| fleet.all_see(MemberState::Left, 1)).await;
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert_eq!(own.fleet().members[0].state, MemberState::Left);
    assert_eq!(fleet.node(0).counters().get(Count::Suspicions), 0);
}

#[tokio::test(start_paused = true)]
async fn a_restarted_node_takes_the_place_of_its_former_self() {
    let mut fleet = TestFleet::of(4).await;
    fleet.until_all_alive().await;
    fleet.nodes[2].take().unwrap().abort();
    tokio::time::sleep(Duration::from_secs(2)).await;
    fleet.join(2).await;
    fleet.node(2).membership().say(|facts| facts.version = "2".into());
    let replaced = |fleet: &TestFleet| {
        let fresh =
            |gossip: &Gossip| gossip.membership().fleet().get(&name(2)).is_some_and(|member| &*member.facts.version == "2");
        fleet.running().all(fresh) && fleet.all_see(MemberState::Alive, 4)
    };
    fleet.until("the new self is seen", MINUTE, replaced).await;
    tokio::time::sleep(MINUTE).await;
    assert!(replaced(&fleet), "the death of the former self is not the new one's");
}

#[tokio::test(start_paused = true)]
async fn parts_of_a_fleet_find_together_again() {
    let fleet = TestFleet::of(9).await;
    fleet.until_all_alive().await;
    let parts: Vec<SocketAddr> = (0..9).map(address).collect();
    fleet.net.part(|node| parts.iter().position(|address| *address == node).unwrap_or(0) as u32 % 3);
    fleet.until("each part sees the others dead", MINUTE, |fleet| fleet.all_see(MemberState::Dead, 6)).await;
    assert!(fleet.all_see(MemberState::Alive, 3));
    // Longer than the dead are remembered: only seeds lead back.
    tokio::time::sleep(fleet.settings.forget_after * 2).await;
    fleet.net.heal();
    fleet.until_all_alive().await;
}

#[tokio::test(start_paused = true)]
async fn one_too_many_is_told_and_not_let_in() {
    let mut fleet = TestFleet::new(GossipSettings { max_members: 5, forget_after: MINUTE, ..GossipSettings::default() });
    for number in 0..5 {
        fleet.join(number).await;
    }
    fleet.until_all_alive().await;
    fleet.join(5).await;
    fleet.until("it is told", MINUTE, |fleet| fleet.node(5).counters().get(Count::Refused) > 0).await;
    tokio::time::sleep(MINUTE).await;
    assert_eq!(fleet.node(5).membership().fleet().members.len(), 1);
    for number in 0..5 {
        assert_eq!(fleet.node(number).membership().fleet().members.len(), 5);
        assert_eq!(fleet.node(number).counters().get(Count::Suspicions), 0);
    }
    // Once there is room again, it is let in.
    fleet.nodes[1].take().unwrap().leave().await;
    let limit = fleet.settings.forget_after * 3;
    fleet.until("it is let in", limit, |fleet| fleet.all_see(MemberState::Alive, 5)).await;
}

#[tokio::test(start_paused = true)]
async fn seeds_may_be_told_later() {
    let mut fleet = TestFleet::of(1).await;
    fleet.join(1).await;
    let lonely = GossipSettings { listen: address(2), seeds: Vec::new(), ..GossipSettings::default() };
    let doorman = Arc::new(Doorman::new(9));
    let transport = Arc::new(fleet.net.transport(doorman.clone()));
    let membership = Membership::alone(&name(2), Facts::default());
    let parts = Parts { settings: lonely, membership, identity: None, towards: Vec::new() };
    fleet.nodes.push(Some(join(parts, address(2), doorman, transport).await.unwrap()));
    tokio::time::sleep(MINUTE).await;
    assert_eq!(fleet.node(2).membership().fleet().members.len(), 1);
    fleet.node(2).seeds().send_replace(vec![address(1).to_string()]);
    fleet.until_all_alive().await;
}

#[tokio::test(start_paused = true)]
async fn a_lossy_fleet_of_fifty_takes_nobody_alive_for_dead() {
    const NODES: usize = 50;
    let fleet = TestFleet::of(NODES).await;
    let converged = fleet.until_all_alive().await;
    assert!(converged < Duration::from_secs(20), "{converged:?}");
    fleet.net.lose(0.05);
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(
            fleet.running().all(|gossip| gossip
                .membership()
                .fleet()
                .members
                .iter()
                .all(|member| member.state != MemberState::Dead))
        );
    }
}

#[tokio::test]
async fn in_clear_it_stays_within_the_host() {
    let parts = |listen: &str| Parts {
        settings: GossipSettings { listen: listen.parse().unwrap(), ..GossipSettings::default() },
        membership: Membership::alone("a", Facts::default()),
        identity: None,
        towards: Vec::new(),
    };
    let error = start(parts("0.0.0.0:0")).await.unwrap_err().to_string();
    assert!(error.contains("no identity") && error.contains("127.0.0.1"), "{error}");
    let gossip = start(parts("127.0.0.1:0")).await.unwrap();
    assert!(gossip.address().is_some());
    assert_eq!(gossip.membership().facts().address, gossip.address());
    gossip.leave().await;
}

#[tokio::test]
async fn a_node_whose_seeds_cannot_be_looked_up_starts_all_the_same() {
    let authority = crate::identity::tests::Authority::new("fleet.test");
    let settings = GossipSettings {
        listen: "0.0.0.0:0".parse().unwrap(),
        seeds: vec!["no-such-host.invalid:7946".into()],
        ..GossipSettings::default()
    };
    let parts = Parts {
        settings,
        membership: Membership::alone("a", Facts::default()),
        identity: Some(authority.member("/ns/default/svc/a")),
        towards: Vec::new(),
    };
    let gossip = start(parts).await.unwrap();
    assert_eq!(gossip.address(), None);
    // What the control plane hands out can be looked up.
    gossip.seeds().send_replace(vec!["127.0.0.1:7946".into()]);
    let found = async {
        while gossip.address().is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(MINUTE, found).await.unwrap();
    gossip.leave().await;
}

/// A node that takes part in the gossip by no rule: it writes what it likes.
struct Liar {
    socket: Box<dyn chitchat::transport::Socket>,
}

impl Liar {
    async fn among(fleet: &TestFleet, number: usize) -> Liar {
        let transport = fleet.net.transport(Arc::new(Doorman::new(1_000)));
        Liar { socket: Transport::open(&transport, address(number)).await.unwrap() }
    }

    /// Tells all nodes a digest of these lives with these heartbeats, over and over again.
    async fn tells(&mut self, lives: &[(ChitchatId, u64)], to: usize, rounds: u32) {
        use chitchat::{ChitchatMessage, Deserializable, Serializable};
        for round in 0..rounds {
            let mut bytes = vec![83, 176, 0, 0];
            bytes.extend((lives.len() as u16).to_le_bytes());
            for (id, beat) in lives {
                id.serialize(&mut bytes);
                [beat + u64::from(round), 0, 1].iter().for_each(|number: &u64| bytes.extend(number.to_le_bytes()));
            }
            "default".serialize(&mut bytes);
            for node in 0..to {
                let message = ChitchatMessage::deserialize(&mut &bytes[..]).unwrap();
                self.socket.send(address(node), message).await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_liar_raises_no_dead_and_kills_nobody() {
    let mut fleet = TestFleet::of(8).await;
    fleet.until_all_alive().await;
    let mut liar = Liar::among(&fleet, 50).await;
    let (dead, living) = (liar.finds(7).await, liar.finds(6).await);
    fleet.nodes[7].take().unwrap().abort();
    let told = [(dead, 1 << 40), (living, 1 << 40)];
    let lying = async { liar.tells(&told, 7, 60).await };
    let watching = async {
        fleet
            .until("the dead is dead", MINUTE / 2, |fleet| (0..7).all(|node| fleet.state(node, 7) == Some(MemberState::Dead)))
            .await;
    };
    tokio::join!(lying, watching);
    // The liar stops: nobody has believed that the living is far ahead, so it does not look dead now.
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!((0..6).all(|node| fleet.state(node, 6) == Some(MemberState::Alive)));
    }
}

#[tokio::test(start_paused = true)]
async fn invented_names_take_nobodys_place() {
    let mut fleet = TestFleet::new(GossipSettings { max_members: 12, ..GossipSettings::default() });
    for number in 0..8 {
        fleet.join(number).await;
    }
    fleet.until_all_alive().await;
    let mut liar = Liar::among(&fleet, 50).await;
    let invented: Vec<(ChitchatId, u64)> =
        (100..400).map(|number| (life(&name(number), std::time::SystemTime::UNIX_EPOCH, address(number)), 5)).collect();
    liar.tells(&invented, 8, 60).await;
    for number in 8..12 {
        fleet.join(number).await;
    }
    fleet.until_all_alive().await;
}

#[tokio::test(start_paused = true)]
async fn members_that_restart_again_and_again_leave_room_for_others() {
    let mut fleet = TestFleet::new(GossipSettings { max_members: 5, ..GossipSettings::default() });
    for number in 0..4 {
        fleet.join(number).await;
    }
    fleet.until_all_alive().await;
    for _ in 0..12 {
        fleet.nodes[2].take().unwrap().abort();
        tokio::time::sleep(Duration::from_secs(3)).await;
        fleet.join(2).await;
    }
    fleet.join(4).await;
    fleet.until_all_alive().await;
    assert_eq!(fleet.node(0).counters().get(Count::TurnedAway), 0);
}

#[tokio::test(start_paused = true)]
async fn what_a_liar_writes_in_the_name_of_another_does_not_stay() {
    let fleet = TestFleet::of(3).await;
    fleet.until_all_alive().await;
    let mut liar = Liar::among(&fleet, 50).await;
    let victim = liar.finds(2).await;
    liar.says_of(&victim, "left", "true", 1_000_000, 2).await;
    fleet.until("it is believed", MINUTE, |fleet| (0..2).any(|node| fleet.state(node, 2) != Some(MemberState::Alive))).await;
    fleet.until("it is taken back", MINUTE, |fleet| (0..2).all(|node| fleet.state(node, 2) == Some(MemberState::Alive))).await;
    // And what the member says from now on is heard.
    fleet.node(2).membership().say(|facts| facts.config_version = "v9".into());
    let told = |fleet: &TestFleet| {
        (0..2).all(|node| &*fleet.node(node).membership().fleet().get(&name(2)).unwrap().facts.config_version == "v9")
    };
    fleet.until("it is heard", MINUTE, told).await;
}

impl Liar {
    /// The present life of a node, as another one tells of it.
    async fn finds(&mut self, of: usize) -> ChitchatId {
        self.tells(&[], 1, 1).await;
        let heard = format!("{:?}", self.socket.recv().await.unwrap().1);
        let life = heard.split(&format!("{}:", short_name(&name(of)))).nth(1).unwrap();
        ChitchatId::new(short_name(&name(of)), life.split(':').next().unwrap().parse().unwrap(), address(of))
    }

    /// Tells nodes that somebody says so.
    async fn says_of(&mut self, id: &ChitchatId, key: &str, value: &str, version: u64, to: usize) {
        use chitchat::{ChitchatMessage, Deserializable, Serializable};
        let mut said = vec![0];
        id.serialize(&mut said);
        said.extend([0; 16]);
        said.push(1);
        key.serialize(&mut said);
        value.serialize(&mut said);
        said.extend(version.to_le_bytes());
        said.push(0);
        let mut bytes = vec![83, 176, 0, 2, 2];
        bytes.extend((said.len() as u16).to_le_bytes());
        bytes.extend(said);
        bytes.push(0);
        for node in 0..to {
            let message = ChitchatMessage::deserialize(&mut &bytes[..]).unwrap();
            self.socket.send(address(node), message).await.unwrap();
        }
    }
}
