//! What was signed and refused, as metrics. It knows nobody who asks.

use prometheus::core::Collector;
use prometheus::{IntCounterVec, Opts};

use super::refusal::Reason;

/// How callers prove themselves; see [`super::Proof`].
const PROOFS: [&str; 5] = ["token", "kubernetes", "identity", "process", "own"];

/// The counters; `None` when the library refuses their names, which a test rules out.
pub(crate) struct Counters(Option<(IntCounterVec, IntCounterVec)>);

impl Counters {
    pub(crate) fn new() -> Counters {
        let counter = |name: &str, help: &str, label: &str| IntCounterVec::new(Opts::new(name, help), &[label]);
        let issued = counter("heddle_identity_issued_total", "Identities signed, by proof.", "proof");
        let refused = counter("heddle_identity_refused_total", "Signatures refused, by reason.", "reason");
        let both = issued.ok().zip(refused.ok());
        if let Some((issued, refused)) = &both {
            PROOFS.iter().for_each(|proof| drop(issued.with_label_values(&[proof])));
            Reason::ALL.iter().for_each(|reason| drop(refused.with_label_values(&[reason.label()])));
        }
        Counters(both)
    }

    pub(super) fn issued(&self, proof: &str) {
        if let Some((issued, _)) = &self.0 {
            issued.with_label_values(&[proof]).inc();
        }
    }

    pub(super) fn refused(&self, reason: Reason) {
        if let Some((_, refused)) = &self.0 {
            refused.with_label_values(&[reason.label()]).inc();
        }
    }

    /// For a page of metrics.
    pub(crate) fn collectors(&self) -> Vec<Box<dyn Collector>> {
        let boxed = |vec: &IntCounterVec| Box::new(vec.clone()) as Box<dyn Collector>;
        self.0.iter().flat_map(|(issued, refused)| [boxed(issued), boxed(refused)]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_counted_from_zero() {
        let counters = Counters::new();
        counters.refused(Reason::Rate);
        counters.issued("token");
        let series: usize =
            counters.collectors().iter().flat_map(|one| one.collect()).map(|family| family.get_metric().len()).sum();
        assert_eq!(series, PROOFS.len() + Reason::ALL.len());
    }
}
