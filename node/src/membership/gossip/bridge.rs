//! A bridge between cells: a control plane that is a member of several passes on, in each of them, a summary of the others. It knows no wire.
//!
//! Only what it sees itself, as a member, is passed on, never what others have told of further cells. So a summary goes one step and no further: there are no
//! loops, however many control planes join the same cells, and a cell is heard of where a control plane is a member of both.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::Gossip;
use super::codec::{MAX_CELL_MEMBERS, MAX_CELLS};
use crate::membership::facts::{Cell, CellMember, Facts, Fleet, MemberState};
use crate::membership::{CONTROL_PLANE, Membership};

/// How often cells are looked at: what is passed on is for people, and travels to all.
const LOOK: Duration = Duration::from_secs(5);

/// A process in several cells.
#[derive(Debug)]
pub struct Bridge {
    others: Vec<Gossip>,
    task: JoinHandle<()>,
}

impl Bridge {
    /// Passes summaries on between the cell of `own` and those of `others`, at most [`MAX_CELLS`] besides the own one; what this process says of itself in its own
    /// cell it says in all.
    #[must_use]
    pub fn between(own: Membership, others: Vec<Gossip>) -> Bridge {
        let memberships: Vec<Membership> =
            std::iter::once(own).chain(others.iter().map(|gossip| gossip.membership().clone())).collect();
        Bridge { others, task: tokio::spawn(pass_on(memberships)) }
    }

    /// The gossip in the other cells.
    #[must_use]
    pub fn others(&self) -> &[Gossip] {
        &self.others
    }

    /// Says good-bye in all other cells.
    pub async fn leave(self) {
        self.task.abort();
        let leaving: Vec<JoinHandle<()>> = self.others.into_iter().map(|gossip| tokio::spawn(gossip.leave())).collect();
        for left in leaving {
            // One that ended by a fault has left as well.
            let _ = left.await;
        }
    }
}

async fn pass_on(memberships: Vec<Membership>) {
    let Some((own, others)) = memberships.split_first() else { return };
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let seen: Vec<(Arc<str>, Arc<Fleet>)> =
            memberships.iter().map(|cell| (cell.facts().cell.clone(), cell.fleet())).collect();
        let about = own.facts();
        for membership in others {
            membership.say(|facts| speak_as(facts, &about));
        }
        for (to, membership) in memberships.iter().enumerate() {
            let cells = summaries(&seen, to);
            membership.say(|facts| facts.cells = cells);
        }
    }
}

/// Says in another cell what is said in the own one; where and in which cell is another matter there.
fn speak_as(facts: &mut Facts, own: &Facts) {
    facts.config_version = own.config_version.clone();
    facts.draining = own.draining;
    facts.load = own.load;
}

/// What the cell at `to` is told: of all others, what is seen of them here.
fn summaries(seen: &[(Arc<str>, Arc<Fleet>)], to: usize) -> Arc<[Cell]> {
    let others = seen.iter().enumerate().filter(|(at, _)| *at != to);
    let mut cells: Vec<Cell> = others.take(MAX_CELLS).map(|(_, (name, fleet))| summary(name, fleet)).collect();
    cells.sort_by(|a, b| a.name.cmp(&b.name));
    cells.into()
}

/// A cell in short: how many there are in which state, and by name first those who are not well, then control planes, then others.
fn summary(name: &Arc<str>, fleet: &Fleet) -> Cell {
    let count = |state| u32::try_from(fleet.members.iter().filter(|member| member.state == state).count()).unwrap_or(u32::MAX);
    let mut members: Vec<CellMember> = fleet
        .members
        .iter()
        .map(|member| CellMember {
            id: member.id.clone(),
            role: member.facts.role.clone(),
            zone: member.facts.zone.clone(),
            state: member.state,
        })
        .collect();
    members.sort_by_cached_key(|member| {
        let well = matches!(member.state, MemberState::Alive | MemberState::Left);
        (well, &*member.role != CONTROL_PLANE, member.id.clone())
    });
    members.truncate(MAX_CELL_MEMBERS);
    Cell {
        name: name.clone(),
        alive: count(MemberState::Alive),
        suspect: count(MemberState::Suspect),
        dead: count(MemberState::Dead),
        left: count(MemberState::Left),
        members: members.into(),
    }
}

/// Other cells, as the control planes of a cell tell of them: each by one of those that are alive, the first by its id. Members that are in the own cell are
/// not told of twice.
pub(crate) fn heard(fleet: &Fleet) -> Vec<(Arc<str>, Cell)> {
    let own_cell = fleet.get(&fleet.own).map(|member| member.facts.cell.clone()).unwrap_or_default();
    let mut known: HashSet<Arc<str>> = HashSet::from([own_cell]);
    let mut cells = Vec::new();
    let planes = fleet.members.iter().filter(|member| member.state == MemberState::Alive && &*member.facts.role == CONTROL_PLANE);
    for plane in planes {
        for cell in plane.facts.cells.iter().take(MAX_CELLS) {
            if cells.len() < 2 * MAX_CELLS && known.insert(cell.name.clone()) {
                cells.push((plane.id.clone(), cell.clone()));
            }
        }
    }
    cells.sort_by(|a, b| a.1.name.cmp(&b.1.name));
    cells
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::Member;

    fn member(id: &str, role: &str, state: MemberState) -> Member {
        Member { id: id.into(), facts: Arc::new(Facts { role: role.into(), ..Facts::default() }), state, last_seen_ms: 0 }
    }

    fn fleet(own: &str, members: Vec<Member>) -> Arc<Fleet> {
        Arc::new(Fleet { own: own.into(), members })
    }

    #[test]
    fn a_summary_is_short_and_those_who_are_not_well_come_first() {
        let mut members: Vec<Member> =
            (0..900).map(|nth| member(&format!("gw-{nth:03}"), "gateway", MemberState::Alive)).collect();
        members[700].state = MemberState::Dead;
        members[800].state = MemberState::Suspect;
        members.push(member("zz-plane", CONTROL_PLANE, MemberState::Alive));
        let cell = summary(&"eu".into(), &fleet("zz-plane", members));
        assert_eq!((cell.alive, cell.suspect, cell.dead, cell.members.len()), (899, 1, 1, MAX_CELL_MEMBERS));
        let first: Vec<&str> = cell.members.iter().take(4).map(|member| &*member.id).collect();
        assert_eq!(first, ["gw-700", "gw-800", "zz-plane", "gw-000"]);
    }

    #[test]
    fn what_was_told_of_further_cells_is_not_told_on() {
        let far = Cell { name: "far".into(), alive: 9, ..Cell::default() };
        let mut teller = member("cp-2", CONTROL_PLANE, MemberState::Alive);
        teller.facts = Arc::new(Facts { cells: [far].into(), role: CONTROL_PLANE.into(), ..Facts::default() });
        let seen = [("eu".into(), fleet("cp-1", vec![teller])), ("us".into(), fleet("cp-1", Vec::new()))];
        let told: Vec<String> = summaries(&seen, 1).iter().map(|cell| cell.name.to_string()).collect();
        assert_eq!(told, ["eu"]);
    }

    #[test]
    fn only_control_planes_that_live_tell_of_other_cells_and_each_cell_is_told_of_once() {
        let cell = |name: &str, alive| Cell { name: name.into(), alive, ..Cell::default() };
        let telling = |id: &str, role: &str, state, cells: Vec<Cell>| {
            let facts = Facts { role: role.into(), cell: "eu".into(), cells: cells.into(), ..Facts::default() };
            Member { facts: Arc::new(facts), ..member(id, role, state) }
        };
        let members = vec![
            telling("cp-1", CONTROL_PLANE, MemberState::Dead, vec![cell("us", 1)]),
            telling("cp-2", CONTROL_PLANE, MemberState::Alive, vec![cell("us", 2), cell("eu", 7)]),
            telling("cp-3", CONTROL_PLANE, MemberState::Alive, vec![cell("us", 3), cell("ap", 4)]),
            telling("gw-1", "gateway", MemberState::Alive, vec![cell("moon", 5)]),
        ];
        let heard: Vec<(String, String, u32)> = heard(&fleet("gw-1", members))
            .into_iter()
            .map(|(by, cell)| (by.to_string(), cell.name.to_string(), cell.alive))
            .collect();
        assert_eq!(heard, [("cp-3".into(), "ap".into(), 4), ("cp-2".into(), "us".into(), 2)]);
    }
}
