//! Choosing one of ten endpoints.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use heddle_agent::bench::{Epoch, Node, NodeView, Picker, Policy, Standing, Zones, hash_key};
use heddle_node::clock::{self, Instant};
use heddle_xds::model::HashTable;

use super::Case;
use crate::subject::Subject;

/// Endpoints to choose from.
const NODES: u64 = 10;
/// Rounds that are counted.
const ROUNDS: usize = 4096;

struct Picking {
    view: NodeView,
    picker: Picker,
    dice: fastrand::Rng,
    now: Instant,
    key: u64,
}

impl Subject for Picking {
    fn run(&mut self, rounds: usize) {
        for _ in 0..rounds {
            self.key = self.key.wrapping_add(1);
            let key = hash_key(&black_box(self.key).to_le_bytes());
            let pick = self.picker.pick(&self.view, Some(key), &[], &mut self.dice, self.now);
            assert!(black_box(pick).is_some(), "every endpoint stands");
        }
    }
}

pub fn cases() -> Vec<Case> {
    let case = |name, make| Case { name, rounds: ROUNDS, less: None, make };
    vec![
        case("pick/roundrobin", || picking(Policy::RoundRobin)),
        case("pick/chash", || picking(Policy::ConsistentHash(HashTable::RING))),
        case("pick/least_conn", || picking(Policy::LeastConn)),
        case("pick/ewma", || picking(Policy::Ewma)),
    ]
}

fn picking(policy: Policy) -> Box<dyn Subject> {
    let (epoch, now) = (Arc::new(Epoch::default()), clock::now());
    let node = |id| Node {
        id,
        identity: format!("10.0.0.{id}:80").into(),
        weight: 1 + id as u32 % 3,
        priority: 0,
        zone: "".into(),
        standing: Arc::new(Standing::new(epoch.clone(), now)),
    };
    let view = NodeView::new(policy, (0..NODES).map(node).collect(), Duration::ZERO, Some(50), Zones::default(), epoch.clone());
    Box::new(Picking { view, picker: Picker::default(), dice: fastrand::Rng::with_seed(7), now, key: 0 })
}
