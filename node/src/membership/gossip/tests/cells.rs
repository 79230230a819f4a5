//! Cells that do not hear each other, and control planes that are members of several.

use super::*;
use crate::membership::{CONTROL_PLANE, json};

const MINUTE: Duration = Duration::from_secs(60);

/// A node of a cell in the net; the ones of a cell begin with its first.
async fn node(net: &MemoryNet, cell: usize, number: usize, id: &str, role: &str) -> Gossip {
    let place = |number: usize| address(cell * 250 + number);
    let settings = GossipSettings {
        listen: place(number),
        seeds: vec![place(0).to_string()],
        cell: format!("cell-{cell}"),
        max_members: 20,
        ..GossipSettings::default()
    };
    let membership = Membership::alone(id, Facts { role: role.into(), zone: format!("zone-{cell}").into(), ..Facts::default() });
    let doorman = Arc::new(Doorman::new(settings.max_members));
    let transport = Arc::new(net.transport(doorman.clone()));
    join(Parts { settings, membership, identity: None, towards: Vec::new() }, place(number), doorman, transport).await.unwrap()
}

async fn gateways(net: &MemoryNet, cell: usize) -> Vec<Gossip> {
    let mut nodes = Vec::new();
    for number in 0..8 {
        nodes.push(node(net, cell, number, &format!("gw-{cell}-{number}"), "gateway").await);
    }
    nodes
}

/// A control plane in two cells.
async fn bridge(net: &MemoryNet, id: &str, cells: [usize; 2], number: usize) -> (Gossip, Bridge) {
    let own = node(net, cells[0], number, id, CONTROL_PLANE).await;
    let other = node(net, cells[1], number, id, CONTROL_PLANE).await;
    let bridge = Bridge::between(own.membership().clone(), vec![other]);
    (own, bridge)
}

/// Members of a cell in a state, as a node shows them.
fn shown(node: &Gossip, cell: usize, state: &str) -> Vec<String> {
    let shown = json(&node.membership().fleet(), 0);
    let members = shown["members"].as_array().unwrap().iter();
    let of = members.filter(|member| member["cell"] == format!("cell-{cell}") && member["state"] == state);
    of.map(|member| member["id"].as_str().unwrap().to_owned()).collect()
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let start = crate::clock::now();
    while !is_so() {
        assert!(crate::clock::now() - start < 2 * MINUTE, "{what} is not so");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn control_planes_tell_cells_of_each_other_one_step_far() {
    let net = MemoryNet::new(fastrand::Rng::with_seed(3));
    let mut cells = Vec::new();
    for cell in 0..3 {
        cells.push(gateways(&net, cell).await);
    }
    // A chain: nobody is a member of the first and the last cell.
    let (left, left_bridge) = bridge(&net, "cp-left", [0, 1], 100).await;
    let (right, right_bridge) = bridge(&net, "cp-right", [1, 2], 101).await;
    let first = &cells[0][3];
    // Eight gateways and two control planes, of which one is its own member too.
    until("the first cell hears of the second", || shown(first, 1, "alive").len() == 10).await;
    until("the second hears of both", || {
        let middle = &cells[1][3];
        shown(middle, 0, "alive").len() == 9 && shown(middle, 2, "alive").len() == 9
    })
    .await;
    tokio::time::sleep(MINUTE).await;
    assert_eq!(shown(first, 2, "alive"), [""; 0], "what is heard of others is not told on");
    // Cells stay cells: nobody of another one is a member.
    assert!(first.membership().fleet().members.iter().all(|member| &*member.facts.cell == "cell-0"));
    assert_eq!(first.membership().fleet().members.len(), 9);
    cells[1].remove(7).abort();
    until("a death is told in the other cells", || {
        shown(&cells[0][3], 1, "dead") == ["gw-1-7"] && shown(&cells[2][3], 1, "dead") == ["gw-1-7"]
    })
    .await;
    left_bridge.leave().await;
    left.leave().await;
    until("without a control plane in both nothing is told", || shown(&cells[0][3], 1, "alive").is_empty()).await;
    right_bridge.leave().await;
    right.leave().await;
}

#[tokio::test(start_paused = true)]
async fn several_control_planes_in_the_same_cells_say_nothing_twice() {
    let net = MemoryNet::new(fastrand::Rng::with_seed(4));
    let cells = [gateways(&net, 0).await, gateways(&net, 1).await];
    let mut planes = Vec::new();
    for number in 0..3 {
        planes.push(bridge(&net, &format!("cp-{number}"), [number % 2, 1 - number % 2], 100 + number).await);
    }
    until("both hear of each other", || {
        cells.iter().enumerate().all(|(own, nodes)| shown(&nodes[2], 1 - own, "alive").len() == 11)
    })
    .await;
    let facts = planes[0].0.membership().facts();
    assert!(facts.cells.len() == 1 && facts.cells[0].members.len() == 11);
    assert_eq!(json(&cells[0][2].membership().fleet(), 0)["cells"].as_array().map(Vec::len), Some(1));
}
