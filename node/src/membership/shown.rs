//! The members as they are shown to operators. It knows no endpoint that shows them.

use serde_json::{Value, json};

use super::facts::{Fleet, Member};

/// The members as JSON, for `GET /admin/members` and `heddle members`: what they say of themselves, and how they are seen from here.
#[must_use]
pub fn json(fleet: &Fleet, now_ms: u64) -> Value {
    let members: Vec<Value> = fleet.members.iter().map(|member| one(member, *member.id == *fleet.own, now_ms)).collect();
    json!({ "seen_by": &*fleet.own, "members": members })
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
        "address": facts.address,
        "version": &*facts.version,
        "config_version": &*facts.config_version,
        "draining": facts.draining,
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
        assert_eq!(shown["seen_by"], "gw-1");
        let first = &shown["members"][0];
        assert_eq!(
            (first["state"].as_str(), first["silent_ms"].as_u64(), first["own"].as_bool()),
            (Some("suspect"), Some(5_000), Some(false))
        );
    }
}
