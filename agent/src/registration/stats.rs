//! What registration counts, for Prometheus. It decides nothing.

use std::sync::atomic::{AtomicU64, Ordering};

use heddle_node::clock::{self, Instant};
use heddle_node::consul::CheckStatus;
use parking_lot::Mutex;

use crate::observe::TextWriter;

/// What is said to Consul.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// The registration.
    Register,
    /// A word to the check.
    Tell,
    /// The end.
    Deregister,
}

impl Call {
    const ALL: [(Call, &str); 3] = [(Call::Register, "register"), (Call::Tell, "check"), (Call::Deregister, "deregister")];
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was taken.
    Taken,
    /// Consul did not know what it was about.
    Unknown,
    /// It was not taken, or Consul could not be asked.
    Failed,
}

impl Outcome {
    const ALL: [(Outcome, &str); 3] = [(Outcome::Taken, "taken"), (Outcome::Unknown, "unknown"), (Outcome::Failed, "failed")];
}

/// Counters of one registration.
#[derive(Debug, Default)]
pub struct Stats {
    calls: [[AtomicU64; 3]; 3],
    now: Mutex<Now>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Now {
    registered: bool,
    status: Option<CheckStatus>,
    /// When Consul last took a word.
    heard: Option<Instant>,
}

impl Stats {
    pub(super) fn count(&self, call: Call, outcome: Outcome, now: Instant) {
        self.calls[call as usize][outcome as usize].fetch_add(1, Ordering::Relaxed);
        if outcome == Outcome::Taken {
            self.now.lock().heard = Some(now);
        }
    }

    pub(super) fn stands(&self, registered: bool, status: Option<CheckStatus>) {
        let mut now = self.now.lock();
        (now.registered, now.status) = (registered, status);
    }

    /// The families of this registration.
    #[must_use]
    pub fn page(&self) -> String {
        let Now { registered, status, heard } = *self.now.lock();
        let mut page = TextWriter::new();
        page.family("heddle_consul_registered", "gauge", "1 while Consul knows the service of this node.");
        page.sample("heddle_consul_registered", &[], f64::from(u8::from(registered)));
        page.family("heddle_consul_check_status", "gauge", "1 for the status that Consul was told last.");
        let names = [(CheckStatus::Passing, "passing"), (CheckStatus::Warning, "warning"), (CheckStatus::Critical, "critical")];
        for (one, name) in names {
            page.sample("heddle_consul_check_status", &[("status", name)], f64::from(u8::from(status == Some(one))));
        }
        page.family("heddle_consul_calls_total", "counter", "What this node said to Consul, and how it was taken.");
        for (call, name) in Call::ALL {
            for (outcome, result) in Outcome::ALL {
                let count = self.calls[call as usize][outcome as usize].load(Ordering::Relaxed);
                page.sample("heddle_consul_calls_total", &[("call", name), ("result", result)], count as f64);
            }
        }
        if let Some(heard) = heard {
            page.family("heddle_consul_last_taken_age_seconds", "gauge", "Time since Consul last took a word of this node.");
            let age = clock::now().saturating_duration_since(heard);
            page.sample("heddle_consul_last_taken_age_seconds", &[], age.as_secs_f64());
        }
        page.finish()
    }
}
