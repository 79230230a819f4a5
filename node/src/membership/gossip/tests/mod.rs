//! Fleets in one process, over a net in memory and in time that passes only when all sleep.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cells;
mod fleet;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::membership::{Facts, MemberState, NodeLoad};

/// A fleet under test.
struct TestFleet {
    net: MemoryNet,
    settings: GossipSettings,
    nodes: Vec<Option<Gossip>>,
}

fn address(number: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, (number / 250) as u8, (number % 250) as u8 + 1], 7_946))
}

fn name(number: usize) -> String {
    format!("node-{number:03}")
}

impl TestFleet {
    fn new(settings: GossipSettings) -> TestFleet {
        TestFleet { net: MemoryNet::new(fastrand::Rng::with_seed(7)), settings, nodes: Vec::new() }
    }

    /// A fleet of so many nodes that all begin with the first one.
    async fn of(count: usize) -> TestFleet {
        let mut fleet = TestFleet::new(GossipSettings { forget_after: Duration::from_secs(120), ..GossipSettings::default() });
        for number in 0..count {
            fleet.join(number).await;
        }
        fleet
    }

    async fn join(&mut self, number: usize) {
        let settings = GossipSettings { listen: address(number), seeds: vec![address(0).to_string()], ..self.settings.clone() };
        let membership = Membership::alone(&name(number), Facts { role: "gateway".into(), ..Facts::default() });
        let doorman = Arc::new(Doorman::new(settings.max_members));
        let transport = Arc::new(self.net.transport(doorman.clone()));
        let parts = Parts { settings, membership, identity: None, towards: Vec::new() };
        let gossip = join(parts, address(number), doorman, transport).await.unwrap();
        if self.nodes.len() <= number {
            self.nodes.resize_with(number + 1, || None);
        }
        self.nodes[number] = Some(gossip);
    }

    fn node(&self, number: usize) -> &Gossip {
        self.nodes[number].as_ref().unwrap()
    }

    fn running(&self) -> impl Iterator<Item = &Gossip> {
        self.nodes.iter().flatten()
    }

    fn state(&self, seen_by: usize, of: usize) -> Option<MemberState> {
        self.node(seen_by).membership().fleet().get(&name(of)).map(|member| member.state)
    }

    /// Whether every running node sees so many members in this state.
    fn all_see(&self, state: MemberState, count: usize) -> bool {
        self.running()
            .all(|gossip| gossip.membership().fleet().members.iter().filter(|member| member.state == state).count() == count)
    }

    /// Waits, in its own time, until it is so; how long that took.
    async fn until(&self, what: &str, limit: Duration, is_so: impl Fn(&TestFleet) -> bool) -> Duration {
        let start = crate::clock::now();
        while !is_so(self) {
            assert!(crate::clock::now() - start < limit, "{what} is not so after {limit:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        crate::clock::now() - start
    }

    async fn until_all_alive(&self) -> Duration {
        let count = self.running().count();
        self.until("all are alive", Duration::from_secs(60), |fleet| fleet.all_see(MemberState::Alive, count)).await
    }
}
