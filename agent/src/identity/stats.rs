//! What is counted of the identity, how far our clock is off, and how both are shown. It knows no control plane.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use heddle_node::identity::Identity;

use crate::observe::TextWriter;

/// A clock that is off by more than this is told about.
const NOTABLE_SKEW: Duration = Duration::from_secs(5);

/// Counters of one process.
#[derive(Debug, Default)]
pub struct Stats {
    renewals: AtomicU64,
    failures: AtomicU64,
    overdue: AtomicBool,
    skew_ms: AtomicI64,
    measured: AtomicBool,
    skewed: AtomicBool,
}

impl Stats {
    pub(super) fn renewed(&self) {
        self.renewals.fetch_add(1, Relaxed);
        self.overdue.store(false, Relaxed);
    }

    pub(super) fn failed(&self) {
        self.failures.fetch_add(1, Relaxed);
    }

    /// Notes that a renewal is overdue; whether that is new.
    pub(super) fn is_overdue_now(&self) -> bool {
        !self.overdue.swap(true, Relaxed)
    }

    /// Takes a measurement of the clocks: `theirs` was read between `sent` and `received`. It is told once when the difference is notable, and again
    /// only after it was gone.
    pub(super) fn clocks(&self, theirs: SystemTime, sent: SystemTime, received: SystemTime) {
        let skew = skew_ms(theirs, sent, received);
        self.skew_ms.store(skew, Relaxed);
        self.measured.store(true, Relaxed);
        let notable = u128::from(skew.unsigned_abs()) > NOTABLE_SKEW.as_millis();
        if notable && !self.skewed.swap(true, Relaxed) {
            let (by, direction) = (skew.unsigned_abs() / 1_000, if skew > 0 { "ahead of" } else { "behind" });
            tracing::warn!(
                "the clock of this node is {by} s {direction} that of the control plane: certificates will seem expired or not yet valid; run NTP on both"
            );
        } else if !notable {
            self.skewed.store(false, Relaxed);
        }
    }

    /// By how many milliseconds our clock was ahead when that was last measured.
    pub(super) fn skew_ms(&self) -> Option<i64> {
        self.measured.load(Relaxed).then(|| self.skew_ms.load(Relaxed))
    }

    /// Writes the metrics.
    #[must_use]
    pub fn page(&self, identity: &Identity) -> String {
        let mut page = expiry(identity);
        let mut one = |name, kind, help, value| {
            page.family(name, kind, help);
            page.sample(name, &[], value);
        };
        let (renewals, failures) = (self.renewals.load(Relaxed) as f64, self.failures.load(Relaxed) as f64);
        one("heddle_identity_renewals_total", "counter", "Identities obtained, the first one included.", renewals);
        one("heddle_identity_renewal_failures_total", "counter", "Attempts to get an identity that failed.", failures);
        let overdue = f64::from(u8::from(self.overdue.load(Relaxed)));
        one("heddle_identity_renewal_overdue", "gauge", "1 when two thirds of its life have passed without a renewal.", overdue);
        let skew = self.skew_ms.load(Relaxed) as f64 / 1e3;
        one("heddle_identity_clock_skew_seconds", "gauge", "By how much our clock is ahead of the control plane's.", skew);
        page.finish()
    }
}

/// The metric of an identity that is kept elsewhere in this process.
pub fn expiry_page(identity: &Identity) -> String {
    expiry(identity).finish()
}

fn expiry(identity: &Identity) -> TextWriter {
    let mut page = TextWriter::new();
    if let Some(svid) = identity.svid() {
        let name = "heddle_identity_expiry_timestamp_seconds";
        page.family(name, "gauge", "When the identity of this process ends, Unix seconds.");
        page.sample(name, &[], svid.not_after().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
    }
    page
}

/// By how many milliseconds our clock is ahead, if their clock was read halfway.
fn skew_ms(theirs: SystemTime, sent: SystemTime, received: SystemTime) -> i64 {
    let halfway = sent + received.duration_since(sent).unwrap_or_default() / 2;
    let whole = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    match halfway.duration_since(theirs) {
        Ok(ahead) => whole(ahead),
        Err(behind) => -whole(behind.duration()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_compared_halfway() {
        let at = |ms| UNIX_EPOCH + Duration::from_millis(ms);
        assert_eq!(skew_ms(at(1_500), at(1_000), at(2_000)), 0);
        assert_eq!(skew_ms(at(1_500), at(11_000), at(12_000)), 10_000);
        assert_eq!(skew_ms(at(61_500), at(1_000), at(2_000)), -60_000);
        // The wall clock was set back meanwhile.
        assert_eq!(skew_ms(at(2_000), at(2_000), at(1_000)), 0);
    }

    #[test]
    fn the_page_says_how_the_identity_stands() {
        let stats = Stats::default();
        stats.clocks(UNIX_EPOCH, UNIX_EPOCH + Duration::from_secs(7), UNIX_EPOCH + Duration::from_secs(7));
        stats.failed();
        assert!(stats.is_overdue_now() && !stats.is_overdue_now());
        let page = stats.page(&Identity::new());
        for line in [
            "heddle_identity_clock_skew_seconds 7\n",
            "heddle_identity_renewal_failures_total 1\n",
            "heddle_identity_renewal_overdue 1\n",
        ] {
            assert!(page.contains(line), "{line} is not in\n{page}");
        }
        assert!(!page.contains("heddle_identity_expiry"));
        stats.renewed();
        assert!(stats.page(&Identity::new()).contains("heddle_identity_renewal_overdue 0\n"));
    }
}
