//! What gossip shows of itself, in Prometheus' text format. It counts nothing.

use std::fmt::Write;

use super::super::Membership;
use super::super::facts::{Fleet, MemberState};
use super::doorman::{Count, Doorman};
use crate::clock;

/// Counters, by what they count.
const COUNTERS: [(Count, &str, &str); 12] = [
    (Count::BytesIn, "heddle_gossip_received_bytes_total", "Bytes of gossip messages read."),
    (Count::BytesOut, "heddle_gossip_sent_bytes_total", "Bytes of gossip messages written."),
    (Count::MessagesIn, "heddle_gossip_received_messages_total", "Gossip messages read."),
    (Count::MessagesOut, "heddle_gossip_sent_messages_total", "Gossip messages written."),
    (Count::MessagesDropped, "heddle_gossip_dropped_messages_total", "Messages thrown away: nonsense, or nowhere to put them."),
    (Count::FactsDropped, "heddle_gossip_dropped_facts_total", "Facts of other members that were nonsense or beyond the bounds."),
    (Count::FactsLeftOut, "heddle_gossip_left_out_facts_total", "Facts of this node that did not fit."),
    (Count::Suspicions, "heddle_membership_suspicions_total", "How often a member was suspected."),
    (Count::TurnedAway, "heddle_membership_turned_away_total", "How often a node was not let in, as the fleet is full."),
    (Count::Refused, "heddle_membership_refused_total", "How often this node was not let in."),
    (Count::StreamsFailed, "heddle_gossip_failed_streams_total", "Streams that could not be opened or ended by a fault."),
    (Count::Restarts, "heddle_gossip_restarts_total", "How often gossip was started again after a fault."),
];

/// The metrics.
pub(super) fn page(membership: &Membership, doorman: &Doorman) -> String {
    let (fleet, mut text) = (membership.fleet(), String::new());
    head(&mut text, "heddle_membership_members", "gauge", "Members of the fleet by state, this node among them.");
    for state in [MemberState::Alive, MemberState::Suspect, MemberState::Dead, MemberState::Left] {
        let count = fleet.members.iter().filter(|member| member.state == state).count();
        line(&mut text, &format!("heddle_membership_members{{state=\"{}\"}}", state.as_str()), count);
    }
    head(&mut text, "heddle_membership_limit", "gauge", "The most members that gossip carries here.");
    line(&mut text, "heddle_membership_limit", doorman.limit());
    let (oldest, mean) = ages(&fleet, clock::unix_ms());
    head(
        &mut text,
        "heddle_membership_oldest_heartbeat_seconds",
        "gauge",
        "Age of the newest heartbeat of the member alive that was heard least lately.",
    );
    line(&mut text, "heddle_membership_oldest_heartbeat_seconds", oldest);
    head(
        &mut text,
        "heddle_membership_mean_heartbeat_seconds",
        "gauge",
        "Mean age of the newest heartbeats of members alive: how far behind the fleet this node is.",
    );
    line(&mut text, "heddle_membership_mean_heartbeat_seconds", mean);
    for (count, name, help) in COUNTERS {
        head(&mut text, name, "counter", help);
        line(&mut text, name, doorman.counters.get(count));
    }
    text
}

/// Age in seconds of the oldest of the newest heartbeats, and their mean, over the others that are alive.
fn ages(fleet: &Fleet, now_ms: u64) -> (f64, f64) {
    let others = fleet.members.iter().filter(|member| member.id != fleet.own && member.state == MemberState::Alive);
    let ages: Vec<f64> = others.map(|member| now_ms.saturating_sub(member.last_seen_ms) as f64 / 1_000.0).collect();
    if ages.is_empty() {
        return (0.0, 0.0);
    }
    (ages.iter().copied().fold(0.0, f64::max), ages.iter().sum::<f64>() / ages.len() as f64)
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(text: &mut String, name: &str, value: impl std::fmt::Display) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{name} {value}");
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::membership::{Facts, Member};

    #[test]
    fn everything_is_shown() {
        let membership = Membership::alone("a", Facts::default());
        let member = |id: &str, state, last_seen_ms| Member { id: id.into(), facts: Arc::default(), state, last_seen_ms };
        let now = clock::unix_ms();
        membership.hear(vec![
            member("a", MemberState::Alive, now),
            member("b", MemberState::Alive, now - 4_000),
            member("c", MemberState::Dead, 0),
        ]);
        let doorman = Doorman::new(7);
        doorman.counters.add(Count::Suspicions, 3);
        let text = page(&membership, &doorman);
        for part in [
            "heddle_membership_members{state=\"alive\"} 2\n",
            "heddle_membership_members{state=\"dead\"} 1\n",
            "heddle_membership_limit 7\n",
            "heddle_membership_suspicions_total 3\n",
            "heddle_membership_oldest_heartbeat_seconds 4",
        ] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
    }
}
