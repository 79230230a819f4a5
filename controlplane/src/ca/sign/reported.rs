//! What nodes say of peers that they have refused, in the audit beside what the authority itself has refused. A node is believed for what it says of itself only:
//! its entries bear its own verified identity. It knows no messages.

use super::Decision;
use super::journal::REPORTED;
use crate::ca::authority::Authority;

/// Peers that a node has refused for the same reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRefusal {
    /// Why, as a short name.
    pub reason: String,
    /// Address of the peer, empty when unknown.
    pub peer: String,
    /// The SPIFFE id that it has shown, empty when none.
    pub subject: String,
    /// Why, for people.
    pub detail: String,
    /// How many there were.
    pub count: u64,
}

impl Authority {
    /// Writes down whom a node has refused, as far as there is room; `left_out` are refusals of which it tells nothing else.
    pub async fn reported(&self, node: &str, identity: &str, refused: Vec<PeerRefusal>, left_out: u64) {
        let mut left_out = left_out;
        for refusal in refused {
            let (decision, unwritten) = {
                let mut book = self.0.book.lock();
                book.reports_budget.leave_out(std::mem::take(&mut left_out));
                let now_ms = self.now_ms();
                match book.reports_budget.take(now_ms) {
                    Some(unwritten) => (decision(node, identity, refusal, now_ms), unwritten),
                    None => {
                        book.reports_budget.leave_out(refusal.count.saturating_sub(1));
                        continue;
                    }
                }
            };
            let decision = match unwritten {
                0 => decision,
                _ => Decision {
                    detail: format!("{} ({unwritten} refusals of nodes before this one are not listed)", decision.detail),
                    ..decision
                },
            };
            decision.log();
            if let Err(error) = self.write(Vec::new(), Some(&decision)).await {
                tracing::error!(%error, "what a node has refused could not be written down");
            }
        }
    }
}

fn decision(node: &str, identity: &str, refusal: PeerRefusal, now_ms: u64) -> Decision {
    let PeerRefusal { reason, peer, subject, detail, count } = refusal;
    let times = if count > 1 { format!(", {count} times") } else { String::new() };
    Decision {
        time_ms: now_ms,
        verdict: format!("{REPORTED}{reason}"),
        detail: format!("by {node}{times}: {detail}"),
        proof: if subject.is_empty() { "none" } else { "identity" }.into(),
        subject,
        peer,
        spiffe_id: identity.to_owned(),
        serial: String::new(),
        not_after_ms: 0,
    }
}
