//! What can go wrong with a try, whose fault it is, and whether another try is safe.

use std::borrow::Cow;

use crate::exchange::Reason;

/// How much of a request an endpoint may have seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sent {
    /// Not a byte of it: it cannot have been acted on.
    Nothing,
    /// Some of it, or nobody knows how much.
    Partial,
    /// All of it.
    All,
}

/// Why a try failed before its response head.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}: {detail}", .reason.flag())]
pub struct UpstreamError {
    /// What the client is told when no other try follows.
    pub reason: Reason,
    /// How much of the request the endpoint may have seen.
    pub sent: Sent,
    /// What happened, for logs.
    pub detail: Cow<'static, str>,
    /// Whether the connection failed rather than the request on it: a new one of HTTP/1 ended without a byte, one of HTTP/2 ended or broke the protocol.
    pub broke: bool,
}

impl UpstreamError {
    /// An error.
    pub fn new(reason: Reason, sent: Sent, detail: impl Into<Cow<'static, str>>) -> UpstreamError {
        UpstreamError { reason, sent, detail: detail.into(), broke: false }
    }

    /// Whether the same request may be tried again, here or elsewhere.
    ///
    /// Safe is: nothing was sent, or the method is idempotent (RFC 9110 section 9.2.2); in both cases the body must still be there in full. A limit that
    /// was reached is not the endpoint's fault: another try would only add load.
    pub fn may_retry(&self, idempotent: bool, body_replayable: bool) -> bool {
        self.reason.is_upstream() && body_replayable && (idempotent || self.sent == Sent::Nothing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_safe_tries_are_repeated() {
        let safe = |reason, sent, idempotent, replayable| UpstreamError::new(reason, sent, "x").may_retry(idempotent, replayable);
        for sent in [Sent::Nothing, Sent::Partial, Sent::All] {
            assert!(!safe(Reason::UpstreamReset, sent, true, false), "a body that is gone cannot be sent again");
            assert!(safe(Reason::UpstreamReset, sent, true, true));
            assert_eq!(safe(Reason::UpstreamTimeout, sent, false, true), sent == Sent::Nothing);
            assert!(!safe(Reason::Overflow, sent, true, true), "a limit is not mended by more load");
            assert!(!safe(Reason::ClientClosed, sent, true, true));
        }
    }
}
