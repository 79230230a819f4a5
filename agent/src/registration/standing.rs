//! How the service stands: what the node says of itself and what its application answered, as one status with its reasons. It asks nobody.

use heddle_node::consul::CheckStatus;
use heddle_node::readiness::Verdict;

use crate::health::Finding;

/// A status as Consul knows it, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) status: CheckStatus,
    /// A line for each reason, the worst first.
    pub(super) why: String,
}

/// What is known of one question to the application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// What it is, for people.
    pub(super) name: String,
    /// Failures in a row until it counts as down.
    limit: u32,
    failures: u32,
    /// What was found last; `None`: it has not been asked yet.
    found: Option<Finding>,
    status: CheckStatus,
}

impl Asked {
    /// Not asked yet, which counts as down: who has just been started may not work yet.
    pub(super) fn new(name: String, limit: u32) -> Asked {
        Asked { name, limit, failures: 0, found: None, status: CheckStatus::Critical }
    }

    /// Takes note of an answer. As in Consul's own checks, 429 is a warning; so is a failure before the limit of one that has worked.
    pub(super) fn note(&mut self, finding: Finding) {
        self.found = Some(finding);
        let good = match finding {
            Finding::Connected => Some(CheckStatus::Passing),
            Finding::Status(200..400) => Some(CheckStatus::Passing),
            Finding::Status(429) => Some(CheckStatus::Warning),
            Finding::Status(_) | Finding::Broken | Finding::TimedOut => None,
        };
        self.failures = if good.is_some() { 0 } else { self.failures.saturating_add(1).min(self.limit) };
        let down = self.failures >= self.limit || self.status == CheckStatus::Critical;
        self.status = good.unwrap_or(if down { CheckStatus::Critical } else { CheckStatus::Warning });
    }

    fn reason(&self) -> String {
        match self.found {
            None => format!("{}: not asked yet", self.name),
            Some(found) => format!("{}: {found}", self.name),
        }
    }
}

/// How the service stands by all that is known.
pub(super) fn standing(node: &Verdict, asked: &[Asked]) -> Standing {
    let own = if node.is_ready() { CheckStatus::Passing } else { CheckStatus::Critical };
    let mut reasons: Vec<(CheckStatus, String)> = vec![(own, format!("heddle: {node}"))];
    reasons.extend(asked.iter().map(|one| (one.status, one.reason())));
    // Those that weigh alike stay in their order.
    reasons.sort_by_key(|(status, _)| std::cmp::Reverse(rank(*status)));
    let status = reasons.first().map_or(own, |(status, _)| *status);
    let why = reasons.iter().map(|(_, why)| why.as_str()).collect::<Vec<_>>().join("\n");
    Standing { status, why }
}

/// Its place, the worst highest.
fn rank(status: CheckStatus) -> u8 {
    match status {
        CheckStatus::Passing => 0,
        CheckStatus::Warning => 1,
        CheckStatus::Critical => 2,
    }
}
