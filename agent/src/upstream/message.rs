//! What goes to an endpoint and what comes back, the same for HTTP/1 and HTTP/2.

use std::time::Duration;

use heddle_xds::model::Timeouts;

use crate::exchange::Tunnel;
use crate::http::{Body, RequestHead, ResponseHead};

/// A request as it goes to an endpoint; borrowed, so that a further try costs nothing.
#[derive(Debug, Clone, Copy)]
pub struct OutgoingRequest<'a> {
    /// Method, path, query and end-to-end fields. The client owns the framing: `Connection`, `Content-Length`, `Transfer-Encoding`, `Keep-Alive` and
    /// `Expect` of the head do not go out. `TE: trailers` does where it stands.
    pub head: &'a RequestHead,
    /// Value of `Host` or `:authority`, instead of the head's.
    pub host: &'a str,
    /// Whether the client asks to leave HTTP: `Upgrade` of the head then goes out, with `Connection: upgrade`. HTTP/1 only.
    pub upgrade: bool,
    /// How long each step may take: the route's, or the upstream's.
    pub timeouts: Timeouts,
}

/// An endpoint's answer.
pub struct UpstreamResponse {
    /// Status and fields, hop-by-hop fields still there as received (`Upgrade` of a 101 must be passed on).
    pub head: ResponseHead,
    /// The body; all of it at hand when it came with the head. Dropping it early closes the connection (HTTP/1) or resets the stream (HTTP/2).
    /// While the request body is still being sent, pulling this one sends on.
    pub body: Body,
    /// After 101: the raw connection, with bytes that came behind the head still in front.
    pub upgraded: Option<Box<dyn Tunnel>>,
    /// Time spent connecting (DNS is not in it); zero when the connection was pooled.
    pub connect: Duration,
    /// From the start of the try to the response head.
    pub header: Duration,
    /// Whether the connection had served a request before.
    pub reused: bool,
}

impl std::fmt::Debug for UpstreamResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UpstreamResponse")
            .field("head", &self.head)
            .field("body", &self.body)
            .field("upgraded", &self.upgraded.is_some())
            .field("reused", &self.reused)
            .finish_non_exhaustive()
    }
}
