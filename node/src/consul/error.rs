//! What can go wrong between a process and Consul: what, where, whose fault, what to do. It retries nothing.

use std::time::Duration;

/// Characters of Consul's own words that an error repeats.
const SAID: usize = 200;

/// Why Consul did not give what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConsulError {
    /// No connection, or it broke.
    #[error("Consul at {address}: {why}; is the agent running, and is the address the one of its HTTP API?")]
    Unreachable {
        /// Which server.
        address: String,
        /// What the system said.
        why: String,
    },
    /// No whole answer in time.
    #[error(
        "Consul at {address} did not answer {path} within {after:?}; is it overloaded, or does a firewall swallow the answer?"
    )]
    Slow {
        /// Which server.
        address: String,
        /// What was asked for.
        path: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// The token is unknown, or may not do this (401, 403).
    #[error(
        "Consul at {address} refused {path} by its ACLs: {said}; set `token` or `token_file` to a token whose policy allows it \
         (service:read and node:read for discovery, key:read for keys, service:write for registration, intentions:read for intentions)"
    )]
    Denied {
        /// Which server.
        address: String,
        /// What was asked for.
        path: String,
        /// Consul's words.
        said: String,
    },
    /// It has as many connections from here as it takes (429).
    #[error(
        "Consul at {address} takes no more connections from this host (429): raise limits.http_max_conns_per_client there, or lower \
         `max_queries` here"
    )]
    Crowded {
        /// Which server.
        address: String,
    },
    /// Any other answer that is none.
    #[error("Consul at {address} answered {path} with {status}: {said}")]
    Status {
        /// Which server.
        address: String,
        /// What was asked for.
        path: String,
        /// The status of the answer.
        status: u16,
        /// Consul's words.
        said: String,
    },
    /// An answer that is not what the API promises.
    #[error(
        "Consul at {address} answered {path} with something else than expected: {why}; is this the address of Consul's HTTP API?"
    )]
    Malformed {
        /// Which server.
        address: String,
        /// What was asked for.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// An answer longer than is taken.
    #[error("Consul at {address} answered {path} with more than {limit} bytes; ask for less (tags, a longer prefix)")]
    TooLarge {
        /// Which server.
        address: String,
        /// What was asked for.
        path: String,
        /// Bytes that are taken.
        limit: usize,
    },
    /// What was configured cannot work.
    #[error("{0}")]
    Settings(String),
}

impl ConsulError {
    /// The error that an answer with this status stands for.
    pub(super) fn of_status(address: &str, path: &str, status: u16, body: &[u8]) -> ConsulError {
        let (address, path) = (address.to_owned(), path.to_owned());
        let said = said(body);
        match status {
            401 | 403 => ConsulError::Denied { address, path, said },
            429 => ConsulError::Crowded { address },
            _ => ConsulError::Status { address, path, status, said },
        }
    }

    /// Whether another server may give what this one did not: it is away, or has no leader.
    pub(super) fn is_of_server(&self) -> bool {
        match self {
            ConsulError::Unreachable { .. } | ConsulError::Slow { .. } | ConsulError::Crowded { .. } => true,
            ConsulError::Status { status, .. } => *status >= 500,
            _ => false,
        }
    }

    /// Whether Consul's ACLs refused it.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        matches!(self, ConsulError::Denied { .. })
    }
}

/// The beginning of what Consul said, on one line.
fn said(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(4 * SAID)]);
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SAID).collect();
    let line = line.trim();
    if line.is_empty() { "no reason given".to_owned() } else { line.to_owned() }
}
