//! What a worker's listeners count. Each worker writes its own; metrics add them up.

use crate::observe::Counter;

macro_rules! counts {
    ($($(#[$doc:meta])* $variant:ident = $name:literal),* $(,)?) => {
        /// What is counted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Count {
            $($(#[$doc])* $variant,)*
        }

        impl Count {
            /// All of them.
            pub const ALL: &'static [Count] = &[$(Count::$variant,)*];

            /// Name for metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Count::$variant => $name,)* }
            }
        }

        /// Number of counters.
        const LEN: usize = Count::ALL.len();
    };
}

counts! {
    /// Connections accepted.
    Accepted = "accepted",
    /// Connections that have ended; the difference to `accepted` is open.
    Closed = "closed",
    /// Refused: the listener has its limit of connections.
    RefusedListener = "refused_listener",
    /// Refused: the source address has its limit of connections.
    RefusedSource = "refused_source",
    /// Accepting failed (descriptors or memory used up); it paused.
    AcceptFailed = "accept_failed",
    /// PROXY headers that were malformed, late or from peers that are not trusted.
    ProxyRefused = "proxy_refused",
    /// TLS handshakes done.
    TlsDone = "tls_done",
    /// TLS handshakes failed.
    TlsFailed = "tls_failed",
    /// HTTP/1 requests.
    Http1Requests = "http1_requests",
    /// HTTP/2 requests.
    Http2Requests = "http2_requests",
    /// Requests refused before they were served.
    RequestsRefused = "requests_refused",
    /// HTTP/2 connections that broke the protocol.
    Http2Errors = "http2_errors",
    /// HTTP/2 connections closed for too many suspicious frames.
    GlitchKills = "glitch_kills",
    /// Connections closed because a client read or wrote too slowly.
    TimedOut = "timed_out",
    /// Requests ended by a panic.
    Panics = "panics",
}

/// One worker's counters; only that worker adds.
#[derive(Debug)]
pub struct Counters([Counter; LEN]);

impl Default for Counters {
    fn default() -> Counters {
        Counters(std::array::from_fn(|_| Counter::default()))
    }
}

impl Counters {
    /// Adds one.
    pub fn add(&self, count: Count) {
        self.0[count as usize].inc();
    }

    /// The value.
    pub fn get(&self, count: Count) -> u64 {
        self.0[count as usize].get()
    }
}
