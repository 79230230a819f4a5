//! With whom agents begin to gossip: with this control plane and the others of their cell that it hears, once it gossips there itself.

use std::sync::Arc;

use heddle_node::membership::{CONTROL_PLANE, Membership};
use heddle_xds::protocol::Advice;
use heddle_xds::server::Seeds;

/// Tells agents of each cell of which this process is a member with whom to begin there, and agents of other cells that it is no member of theirs.
pub(super) fn of_cells(own: Membership, further: Vec<Membership>) -> Seeds {
    Arc::new(move |cell| advise(&own, &further, cell))
}

fn advise(own: &Membership, further: &[Membership], cell: Option<&str>) -> Advice {
    let Some(cell) = cell else { return Advice::Seeds(seeds(own)) };
    let mut cells = std::iter::once(own).chain(further);
    if let Some(membership) = cells.find(|membership| &*membership.facts().cell == cell) {
        return Advice::Seeds(seeds(membership));
    }
    if own.facts().address.is_none() {
        // It does not gossip, or not yet: there is nothing to be said about cells.
        return Advice::Seeds(Vec::new());
    }
    Advice::Elsewhere(std::iter::once(own).chain(further).map(name).collect())
}

/// A cell for people: the one of those who name none has no name.
fn name(membership: &Membership) -> String {
    let facts = membership.facts();
    if facts.cell.is_empty() { "(without a name)".to_owned() } else { facts.cell.to_string() }
}

fn seeds(membership: &Membership) -> Vec<String> {
    let own = membership.facts().address;
    let fleet = membership.fleet();
    let others = fleet.members.iter().filter(|member| member.id != fleet.own && member.is_serving());
    let planes = others.filter(|member| &*member.facts.role == CONTROL_PLANE).filter_map(|member| member.facts.address);
    // Without an address of our own there is no gossip here, and nobody to be heard of.
    own.into_iter().chain(planes).map(|address| address.to_string()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use heddle_node::membership::{Facts, Member, MemberState};

    use super::*;

    fn in_cell(cell: &str, address: Option<&str>) -> Membership {
        let address = address.map(|address| address.parse().unwrap());
        Membership::alone("cp-1", Facts { role: CONTROL_PLANE.into(), cell: cell.into(), address, ..Facts::default() })
    }

    fn told(seeds: &[&str]) -> Advice {
        Advice::Seeds(seeds.iter().map(|seed| (*seed).to_owned()).collect())
    }

    #[test]
    fn agents_are_told_of_control_planes_of_their_own_cell() {
        let (own, further) = (in_cell("eu", Some("10.0.0.1:7946")), in_cell("us", Some("10.0.0.1:7947")));
        let member = |id: &str, role: &str, address: &str| {
            let facts =
                Facts { role: role.into(), cell: "us".into(), address: Some(address.parse().unwrap()), ..Facts::default() };
            Member { id: id.into(), facts: Arc::new(facts), state: MemberState::Alive, last_seen_ms: 0 }
        };
        further.hear(vec![member("cp-9", CONTROL_PLANE, "10.9.0.1:7946"), member("gw-1", "gateway", "10.9.0.2:7946")]);
        let advice = of_cells(own, vec![further]);
        assert_eq!(advice(Some("eu")), told(&["10.0.0.1:7946"]));
        assert_eq!(advice(Some("us")), told(&["10.0.0.1:7947", "10.9.0.1:7946"]));
        assert_eq!(advice(None), told(&["10.0.0.1:7946"]));
    }

    #[test]
    fn agents_of_other_cells_are_told_of_nobody_but_where_it_is_a_member() {
        let cells = vec![in_cell("us", None)];
        let advice = of_cells(in_cell("", Some("10.0.0.1:7946")), cells.clone());
        assert_eq!(advice(Some("moon")), Advice::Elsewhere(vec!["(without a name)".into(), "us".into()]));
        assert_eq!(advice(Some("us")), told(&[]), "it has not joined there yet");
        assert_eq!(of_cells(in_cell("", None), cells)(Some("moon")), told(&[]), "it does not gossip");
    }
}
