//! The members as they are shown to operators. It knows no endpoint that shows them.

use serde_json::{Value, json};

use super::facts::{Cell, CellMember, Fleet, Member};
use super::gossip::bridge;

/// The members as JSON, for `GET /admin/members` and `heddle members`: what they say of themselves, and how they are seen from here.
#[must_use]
pub fn json(fleet: &Fleet, now_ms: u64) -> Value {
    let cells = bridge::heard(fleet);
    let own = fleet.members.iter().map(|member| one(member, *member.id == *fleet.own, now_ms));
    let others = cells.iter().flat_map(|(by, cell)| cell.members.iter().map(|member| elsewhere(member, cell, by)));
    let members: Vec<Value> = own.chain(others).collect();
    let cells: Vec<Value> = cells.iter().map(|(by, cell)| in_short(cell, by)).collect();
    json!({ "seen_by": &*fleet.own, "members": members, "cells": cells })
}

/// Another cell, as a control plane tells of it.
fn in_short(cell: &Cell, by: &str) -> Value {
    let Cell { name, alive, suspect, dead, left, members } = cell;
    let shown = members.len();
    json!({ "cell": &**name, "told_by": by, "alive": alive, "suspect": suspect, "dead": dead, "left": left, "shown": shown })
}

/// A member of another cell: what a control plane tells of it.
fn elsewhere(member: &CellMember, cell: &Cell, by: &str) -> Value {
    json!({
        "id": &*member.id,
        "own": false,
        "state": member.state.as_str(),
        "role": &*member.role,
        "zone": &*member.zone,
        "cell": &*cell.name,
        "told_by": by,
    })
}

fn one(member: &Member, own: bool, now_ms: u64) -> Value {
    let facts = &member.facts;
    json!({
        "id": &*member.id,
        "own": own,
        "state": member.state.as_str(),
        "role": &*facts.role,
        "group": &*facts.group,
        "zone": &*facts.zone,
        "cell": &*facts.cell,
        "address": facts.address,
        "version": &*facts.version,
        "config_version": &*facts.config_version,
        "draining": facts.draining,
        "sees_store": facts.sees_store,
        "in_flight": facts.load.in_flight,
        "requests_per_second": facts.load.requests_per_second,
        "observations": facts.observations.len(),
        "last_seen_ms": member.last_seen_ms,
        "silent_ms": now_ms.saturating_sub(member.last_seen_ms),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::membership::{Facts, MemberState};

    #[test]
    fn members_are_shown_as_they_are_seen_from_here() {
        let facts = Arc::new(Facts { role: "gateway".into(), zone: "eu-1".into(), ..Facts::default() });
        let member = Member { id: "gw-2".into(), facts, state: MemberState::Suspect, last_seen_ms: 1_000 };
        let shown = json(&Fleet { own: "gw-1".into(), members: vec![member] }, 6_000);
        assert_eq!((&shown["seen_by"], shown["cells"].as_array().map(Vec::len)), (&"gw-1".into(), Some(0)));
        let first = &shown["members"][0];
        assert_eq!(
            (first["state"].as_str(), first["silent_ms"].as_u64(), first["own"].as_bool()),
            (Some("suspect"), Some(5_000), Some(false))
        );
    }

    #[test]
    fn members_of_other_cells_are_shown_with_their_cell_and_who_tells_of_them() {
        let gw = CellMember { id: "gw-us".into(), role: "gateway".into(), zone: "us-1".into(), state: MemberState::Dead };
        let us = Cell { name: "us".into(), alive: 40, dead: 1, members: [gw].into(), ..Cell::default() };
        let plane = Facts { role: "controlplane".into(), cell: "eu".into(), cells: [us].into(), ..Facts::default() };
        let plane = Member { id: "cp-1".into(), facts: Arc::new(plane), state: MemberState::Alive, last_seen_ms: 0 };
        let shown = json(&Fleet { own: "cp-1".into(), members: vec![plane] }, 1);
        let of = |nth: usize, what: &str| shown["members"][nth][what].as_str().unwrap_or_default().to_owned();
        assert_eq!((of(0, "id"), of(0, "cell")), ("cp-1".into(), "eu".into()));
        assert_eq!(["id", "cell", "state", "told_by"].map(|what| of(1, what)), ["gw-us", "us", "dead", "cp-1"]);
        assert_eq!((shown["cells"][0]["alive"].as_u64(), shown["cells"][0]["shown"].as_u64()), (Some(40), Some(1)));
    }
}
