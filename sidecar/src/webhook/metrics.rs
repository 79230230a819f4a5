//! What the webhook counts. It does not know who reads it.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::review::Verdict;

/// Results of reviews, as their label has them.
const RESULTS: [&str; 5] = ["injected", "unchanged", "passed", "warned", "denied"];
/// Why something is no review, as the label has it.
const REFUSALS: [&str; 5] = ["malformed", "content_type", "too_large", "slow", "handshake"];
/// What is looked after, as the label has it.
const TENDED: [&str; 2] = ["certificate", "roots"];
/// Upper bounds of durations, in microseconds, with their labels: an answer takes about a millisecond, and API servers wait for ten seconds.
const BOUNDS: [(u64, &str); 8] = [
    (500, "0.0005"),
    (1_000, "0.001"),
    (5_000, "0.005"),
    (25_000, "0.025"),
    (100_000, "0.1"),
    (500_000, "0.5"),
    (2_500_000, "2.5"),
    (10_000_000, "10"),
];

/// Why something that was sent is not answered as a review.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is no AdmissionReview.
    Malformed,
    /// It is no JSON by its own word.
    ContentType,
    /// Its body is too large.
    TooLarge,
    /// Its body did not come in time.
    Slow,
    /// The TLS handshake failed.
    Handshake,
}

/// What is looked after every minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tending {
    /// The certificate that is shown.
    Certificate,
    /// The roots that pods are given.
    Roots,
}

/// Counters since the start.
#[derive(Debug, Default)]
pub struct Metrics {
    reviews: [[AtomicU64; 2]; RESULTS.len()],
    refused: [AtomicU64; REFUSALS.len()],
    /// Answers by the first bound that they kept; the last is for those that kept none.
    durations: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
    updates: [AtomicU64; 2],
    untended: [AtomicU64; TENDED.len()],
    not_after: AtomicU64,
}

impl Metrics {
    /// A question was answered, so long after its head had come.
    pub fn reviewed(&self, verdict: Verdict, dry_run: bool, took: Duration) {
        let index = match verdict {
            Verdict::Injected => 0,
            Verdict::Unchanged => 1,
            Verdict::Passed => 2,
            Verdict::Warned => 3,
            Verdict::Denied => 4,
        };
        one(&self.reviews[index][usize::from(dry_run)]);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        one(&self.durations[BOUNDS.iter().position(|(bound, _)| micros <= *bound).unwrap_or(BOUNDS.len())]);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// Something was not answered as a question.
    pub fn refused(&self, why: Refusal) {
        let index = match why {
            Refusal::Malformed => 0,
            Refusal::ContentType => 1,
            Refusal::TooLarge => 2,
            Refusal::Slow => 3,
            Refusal::Handshake => 4,
        };
        one(&self.refused[index]);
    }

    /// The live configuration was looked after.
    pub fn updated(&self, well: bool) {
        one(&self.updates[usize::from(!well)]);
    }

    /// A file could not be used; what it had before stays.
    pub fn untended(&self, what: Tending) {
        one(&self.untended[usize::from(what == Tending::Roots)]);
    }

    /// The certificate that is shown ends then, in seconds since 1970.
    pub fn serving_until(&self, not_after: u64) {
        self.not_after.store(not_after, Ordering::Relaxed);
    }

    /// The page in Prometheus' text format.
    #[must_use]
    pub fn page(&self) -> String {
        let mut page = String::new();
        family(&mut page, "reviews_total", "counter", "Questions of the API server, by what became of them.");
        for (result, counts) in RESULTS.iter().zip(&self.reviews) {
            for (dry_run, count) in [false, true].iter().zip(counts) {
                sample(&mut page, &format!("reviews_total{{result=\"{result}\",dry_run=\"{dry_run}\"}}"), read(count));
            }
        }
        family(&mut page, "refused_total", "counter", "What was sent and is no question, by reason.");
        for (reason, count) in REFUSALS.iter().zip(&self.refused) {
            sample(&mut page, &format!("refused_total{{reason=\"{reason}\"}}"), read(count));
        }
        self.write_durations(&mut page);
        family(&mut page, "updates_total", "counter", "Looks after the live webhook configuration.");
        for (result, count) in ["done", "failed"].iter().zip(&self.updates) {
            sample(&mut page, &format!("updates_total{{result=\"{result}\"}}"), read(count));
        }
        family(&mut page, "tending_failures_total", "counter", "Files that could not be used; what they had before stays.");
        for (what, count) in TENDED.iter().zip(&self.untended) {
            sample(&mut page, &format!("tending_failures_total{{what=\"{what}\"}}"), read(count));
        }
        family(&mut page, "certificate_not_after_seconds", "gauge", "When the certificate that is shown ends.");
        sample(&mut page, "certificate_not_after_seconds", read(&self.not_after));
        page
    }

    fn write_durations(&self, page: &mut String) {
        family(page, "review_duration_seconds", "histogram", "From the head of a question to its answer.");
        let mut sum = 0;
        for ((_, bound), count) in BOUNDS.iter().zip(&self.durations) {
            sum += read(count);
            sample(page, &format!("review_duration_seconds_bucket{{le=\"{bound}\"}}"), sum);
        }
        sum += self.durations.last().map_or(0, read);
        sample(page, "review_duration_seconds_bucket{le=\"+Inf\"}", sum);
        let seconds = read(&self.micros) as f64 / 1e6;
        sample(page, "review_duration_seconds_sum", seconds);
        sample(page, "review_duration_seconds_count", sum);
    }
}

fn one(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn family(page: &mut String, name: &str, kind: &str, help: &str) {
    // Writing into a string cannot fail.
    let _ = writeln!(page, "# HELP heddle_webhook_{name} {help}\n# TYPE heddle_webhook_{name} {kind}");
}

fn sample(page: &mut String, name: &str, value: impl std::fmt::Display) {
    let _ = writeln!(page, "heddle_webhook_{name} {value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_counted_up_to_their_bounds() {
        let metrics = Metrics::default();
        for micros in [500, 501, 30_000_000] {
            metrics.reviewed(Verdict::Injected, false, Duration::from_micros(micros));
        }
        let page = metrics.page();
        for line in [
            "bucket{le=\"0.0005\"} 1\n",
            "bucket{le=\"0.001\"} 2\n",
            "bucket{le=\"10\"} 2\n",
            "bucket{le=\"+Inf\"} 3\n",
            "sum 30.001001\n",
            "count 3\n",
        ] {
            assert!(page.contains(&format!("heddle_webhook_review_duration_seconds_{line}")), "{line} is not in:\n{page}");
        }
    }
}
