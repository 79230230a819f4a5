//! What both protocols ask of a request before it is served, and how a panic stays within one request.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Poll;

use super::site::Link;
use crate::exchange::Reason;
use crate::http::h1::{BodyLength, Fault};
use crate::http::{BodyError, RequestHead};

/// The reason that a malformed head is refused for.
pub(super) fn fault_reason(fault: Fault) -> Reason {
    match fault {
        Fault::Malformed(_) => Reason::BadRequest,
        Fault::TargetTooLong => Reason::UriTooLong,
        Fault::TooLarge => Reason::HeadersTooLarge,
        Fault::Version => Reason::VersionNotSupported,
        Fault::Method(_) => Reason::MethodNotAllowed,
        Fault::Expectation => Reason::ExpectationFailed,
    }
}

/// Why a well-formed request is not served on this connection.
pub(super) fn refusal(link: &Link, head: &RequestHead, length: BodyLength) -> Option<Reason> {
    let limit = link.site.limits().max_body_bytes;
    if let BodyLength::Known(bytes) = length
        && limit > 0
        && bytes > limit
    {
        return Some(Reason::BodyTooLarge);
    }
    let identity = link.identity.as_ref()?;
    let served = identity.serves_every_host() || (identity.serves(head.host()) && !is_outdated(link));
    (!served).then_some(Reason::Misdirected)
}

/// Whether more is demanded now for the server name of a connection than its client has met, so that it serves nobody any more.
pub(super) fn is_outdated(link: &Link) -> bool {
    let server_name = link.info.tls.as_ref().and_then(|tls| tls.server_name.as_deref());
    link.identity.as_ref().is_some_and(|identity| !identity.is_current(server_name))
}

/// The reason that a response ended for when its body broke off.
pub(super) fn body_reason(error: &BodyError) -> Reason {
    match error {
        BodyError::Timeout => Reason::UpstreamTimeout,
        BodyError::Malformed(_) => Reason::UpstreamProtocol,
        BodyError::TooLarge(_) => Reason::Internal,
        BodyError::Aborted => Reason::UpstreamReset,
        BodyError::Refused => Reason::Policy,
        BodyError::Request(error) => Reason::of_request_body(error),
    }
}

/// What polling gave.
pub(super) enum Caught<T> {
    Polled(Poll<T>),
    Panic,
}

/// Polls something that may panic. It must not be polled again after that.
pub(super) fn catch_poll<T>(poll: impl FnOnce() -> Poll<T>) -> Caught<T> {
    // What the panic left half-changed belongs to the request alone and is dropped with it.
    match catch_unwind(AssertUnwindSafe(poll)) {
        Ok(polled) => Caught::Polled(polled),
        Err(_) => Caught::Panic,
    }
}
