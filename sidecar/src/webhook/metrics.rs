//! What the webhook counts. It does not know who reads it.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use super::review::Verdict;

/// Results of reviews, as their label has them.
const RESULTS: [&str; 6] = ["injected", "unchanged", "passed", "warned", "denied", "malformed"];

/// Counters since the start.
#[derive(Debug, Default)]
pub struct Metrics {
    reviews: [[AtomicU64; 2]; RESULTS.len()],
    updates: [AtomicU64; 2],
    not_after: AtomicU64,
}

impl Metrics {
    /// A question was answered.
    pub fn reviewed(&self, verdict: Verdict, dry_run: bool) {
        let index = match verdict {
            Verdict::Injected => 0,
            Verdict::Unchanged => 1,
            Verdict::Passed => 2,
            Verdict::Warned => 3,
            Verdict::Denied => 4,
        };
        self.reviews[index][usize::from(dry_run)].fetch_add(1, Ordering::Relaxed);
    }

    /// A question was none.
    pub fn malformed(&self) {
        self.reviews[RESULTS.len() - 1][0].fetch_add(1, Ordering::Relaxed);
    }

    /// The live configuration was looked after.
    pub fn updated(&self, well: bool) {
        self.updates[usize::from(!well)].fetch_add(1, Ordering::Relaxed);
    }

    /// The certificate that is shown ends then, in seconds since 1970.
    pub fn serving_until(&self, not_after: u64) {
        self.not_after.store(not_after, Ordering::Relaxed);
    }

    /// The page in Prometheus' text format.
    #[must_use]
    pub fn page(&self) -> String {
        let mut page =
            "# HELP heddle_webhook_reviews_total Questions of the API server.\n# TYPE heddle_webhook_reviews_total counter\n"
                .to_owned();
        for (result, counts) in RESULTS.iter().zip(&self.reviews) {
            for (dry_run, count) in [false, true].iter().zip(counts) {
                // Writing into a string cannot fail.
                let _ = writeln!(
                    page,
                    "heddle_webhook_reviews_total{{result=\"{result}\",dry_run=\"{dry_run}\"}} {}",
                    count.load(Ordering::Relaxed)
                );
            }
        }
        page.push_str("# HELP heddle_webhook_updates_total Looks after the live webhook configuration.\n# TYPE heddle_webhook_updates_total counter\n");
        for (result, count) in ["done", "failed"].iter().zip(&self.updates) {
            let _ = writeln!(page, "heddle_webhook_updates_total{{result=\"{result}\"}} {}", count.load(Ordering::Relaxed));
        }
        page.push_str("# HELP heddle_webhook_certificate_not_after_seconds When the certificate that is shown ends.\n# TYPE heddle_webhook_certificate_not_after_seconds gauge\n");
        let _ = writeln!(page, "heddle_webhook_certificate_not_after_seconds {}", self.not_after.load(Ordering::Relaxed));
        page
    }
}
