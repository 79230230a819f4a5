//! The decisions of the authority as they are kept: who asked, for what, and what became of it. It writes nothing itself.

use serde::{Deserialize, Serialize};

use crate::store::{Append, Ring};

/// Certificates that are remembered; a day of 10,000 services with the default lifetime.
const KEEP_ISSUED: u64 = 20_000;
/// Refusals that are remembered. They are kept apart: strangers can cause as many as they like, and must not make a certificate forgotten.
const KEEP_REFUSED: u64 = 5_000;
/// What nodes say that they have refused, kept apart from both: a node under attack, or a noisy one, pushes out reports only.
const KEEP_REPORTED: u64 = 5_000;
/// Bytes of a text that came from outside.
const MAX_TEXT: usize = 300;

/// One decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// When, Unix milliseconds.
    pub time_ms: u64,
    /// `issued`, or the label of the reason of a refusal.
    pub verdict: String,
    /// Why, for people; empty when issued.
    pub detail: String,
    /// How the caller proved itself.
    pub proof: String,
    /// Who the proof shows; empty when nobody.
    pub subject: String,
    /// Where the caller is; empty within the process.
    pub peer: String,
    /// The identity that was given or asked for; empty when unknown.
    pub spiffe_id: String,
    /// Serial of the certificate, hex; empty when refused.
    pub serial: String,
    /// When the certificate expires, Unix milliseconds; zero when refused.
    pub not_after_ms: u64,
}

/// The verdict of what was signed.
pub const ISSUED: &str = "issued";
/// What begins the verdict of what a node has refused: no name of the authority's own reasons, whatever the node says.
pub const REPORTED: &str = "peer-";

impl Decision {
    /// Whether a certificate was made.
    pub fn is_issued(&self) -> bool {
        self.verdict == ISSUED
    }

    /// Whether a node says that it has refused somebody, where the authority itself had nothing to decide.
    pub fn is_reported(&self) -> bool {
        self.verdict.starts_with(REPORTED)
    }

    /// As it is appended to the journal of its kind.
    pub fn entry(&self) -> Append {
        let (ring, keep) = match () {
            () if self.is_issued() => (Ring::Done, KEEP_ISSUED),
            () if self.is_reported() => (Ring::Reported, KEEP_REPORTED),
            () => (Ring::Refused, KEEP_REFUSED),
        };
        Append { ring, body: self.encode(), keep }
    }

    /// As bytes of a journal.
    pub fn encode(&self) -> Vec<u8> {
        let short = |text: &str| text.chars().filter(|letter| !letter.is_control()).take(MAX_TEXT).collect::<String>();
        let bounded = Decision {
            detail: short(&self.detail),
            subject: short(&self.subject),
            spiffe_id: short(&self.spiffe_id),
            ..self.clone()
        };
        // Texts and numbers always make JSON.
        serde_json::to_vec(&bounded).unwrap_or_default()
    }

    /// From bytes of a journal; `None` for what a newer version wrote differently.
    pub fn decode(bytes: &[u8]) -> Option<Decision> {
        serde_json::from_slice(bytes).ok()
    }

    /// For those who watch the log.
    pub fn log(&self) {
        let Decision { verdict, detail, proof, subject, peer, spiffe_id, serial, not_after_ms, .. } = self;
        if self.is_issued() {
            tracing::info!(proof, subject, peer, spiffe_id, serial, not_after_ms, "identity issued");
        } else {
            tracing::warn!(verdict, detail, proof, subject, peer, spiffe_id, "identity refused");
        }
    }
}

/// How many refusals may be written down: strangers can cause them as fast as they like, and each pushes an older entry out.
#[derive(Debug)]
pub struct RefusalBudget {
    level: u32,
    at_ms: u64,
    unwritten: u64,
    burst: u32,
    per_second: u64,
}

/// Refusals that may come at once, and that come back in each second.
const BURST: u32 = 200;
const PER_SECOND: u64 = 20;
/// The same for what nodes say that they have refused: a mesh under attack must not push the decisions of the authority out of the journal.
const REPORTS_BURST: u32 = 50;
const REPORTS_PER_SECOND: u64 = 2;

impl RefusalBudget {
    /// Full.
    pub fn new(now_ms: u64) -> RefusalBudget {
        RefusalBudget { level: BURST, at_ms: now_ms, unwritten: 0, burst: BURST, per_second: PER_SECOND }
    }

    /// Full, for what nodes say that they have refused.
    pub fn of_reports(now_ms: u64) -> RefusalBudget {
        RefusalBudget { level: REPORTS_BURST, burst: REPORTS_BURST, per_second: REPORTS_PER_SECOND, ..RefusalBudget::new(now_ms) }
    }

    /// Counts what cannot be written down.
    pub fn leave_out(&mut self, count: u64) {
        self.unwritten = self.unwritten.saturating_add(count);
    }

    /// Whether this one is written down; then also how many before it were not.
    pub fn take(&mut self, now_ms: u64) -> Option<u64> {
        let back = now_ms.saturating_sub(self.at_ms) * self.per_second / 1_000;
        if back > 0 {
            self.level = u32::try_from(back).unwrap_or(self.burst).saturating_add(self.level).min(self.burst);
            self.at_ms = now_ms;
        }
        if self.level == 0 {
            self.unwritten += 1;
            return None;
        }
        self.level -= 1;
        Some(std::mem::take(&mut self.unwritten))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_written_is_bounded_and_read_back() {
        let decision = Decision {
            time_ms: 1,
            verdict: "token-used".into(),
            detail: "a\nb".into(),
            proof: "token".into(),
            subject: "x".repeat(10_000),
            peer: "127.0.0.1:1".into(),
            spiffe_id: String::new(),
            serial: String::new(),
            not_after_ms: 0,
        };
        let read = Decision::decode(&decision.encode()).unwrap();
        assert_eq!((read.detail.as_str(), read.subject.len()), ("ab", MAX_TEXT));
        assert_eq!(Decision::decode(b"[]"), None);
    }

    #[test]
    fn what_nodes_say_pushes_nothing_of_the_authority_out() {
        let of = |verdict: &str| {
            let decision = Decision { verdict: verdict.into(), ..Decision::decode(DECISION).unwrap() };
            decision.entry().ring
        };
        assert_eq!(["issued", "token-used", "peer-untrusted"].map(of), [Ring::Done, Ring::Refused, Ring::Reported]);
    }

    /// A decision as it was always written.
    const DECISION: &[u8] = br#"{"time_ms":1,"verdict":"","detail":"","proof":"none","subject":"","peer":"","spiffe_id":"","serial":"","not_after_ms":0}"#;

    #[test]
    fn strangers_cannot_flood_the_journal() {
        let mut budget = RefusalBudget::new(0);
        let written = (0..1_000).filter(|_| budget.take(0).is_some()).count();
        assert_eq!(written, BURST as usize);
        assert_eq!(budget.take(49), None);
        assert_eq!(budget.take(50), Some(801), "it tells how many were left out");
    }
}
