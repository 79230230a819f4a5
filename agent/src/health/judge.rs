//! Thresholds, compiled: which statuses are good or bad and how many in a row decide.

use heddle_xds::model::Thresholds;

/// A set of status codes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StatusSet([u64; 16]);

impl StatusSet {
    /// Whether the status is in it.
    pub fn has(&self, status: u16) -> bool {
        self.0.get(usize::from(status >> 6)).is_some_and(|word| word >> (status & 63) & 1 == 1)
    }
}

impl FromIterator<u16> for StatusSet {
    /// Codes of 1024 and above do not exist and are left out.
    fn from_iter<I: IntoIterator<Item = u16>>(codes: I) -> StatusSet {
        let mut set = StatusSet::default();
        for code in codes {
            if let Some(word) = set.0.get_mut(usize::from(code >> 6)) {
                *word |= 1 << (code & 63);
            }
        }
        set
    }
}

/// Thresholds, compiled. Zero switches a rule off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judge {
    /// Statuses that count as success.
    pub healthy: StatusSet,
    /// Statuses that count as failure.
    pub unhealthy: StatusSet,
    /// Successes in a row until healthy.
    pub successes: u32,
    /// Bad statuses in a row until unhealthy.
    pub http_failures: u32,
    /// Failed connections in a row until unhealthy.
    pub tcp_failures: u32,
    /// Timeouts in a row until unhealthy.
    pub timeouts: u32,
}

impl Judge {
    /// Compiles thresholds.
    pub fn new(thresholds: &Thresholds) -> Judge {
        Judge {
            healthy: thresholds.healthy_statuses.iter().copied().collect(),
            unhealthy: thresholds.unhealthy_statuses.iter().copied().collect(),
            successes: thresholds.successes,
            http_failures: thresholds.http_failures,
            tcp_failures: thresholds.tcp_failures,
            timeouts: thresholds.timeouts,
        }
    }
}
