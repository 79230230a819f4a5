//! Serving one HTTP/2 connection: its streams, its drain and its bounds. The protocol library keeps the protocol; it knows neither routes nor
//! upstreams.

mod body;
mod request;
mod respond;
mod sniff;
mod stream;
#[cfg(test)]
mod tests;
mod tunnel;

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, Connection};
use heddle_node::clock::{self, Instant};
use heddle_xds::model::EdgeLimits;
use tokio::sync::futures::OwnedNotified;
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::sniff::{Glitches, Sniffed};
use super::counters::Count;
use super::site::{Link, Worker};
use crate::exchange::Service;
use crate::net::{Deadline, Io};

/// Bytes of a stream that a client may send before they are pulled.
const STREAM_WINDOW: u32 = 64 * 1024;
/// The same for all streams of a connection.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of a stream that wait to be sent.
const SEND_BUFFER: usize = 64 * 1024;
/// Streams that were reset before they were looked at.
const MAX_PENDING_RESETS: usize = 20;
/// How long the last words of a connection may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// One connection being served.
struct Serving<S> {
    worker: Rc<Worker<S>>,
    link: Link,
    connection: Connection<Sniffed, Bytes>,
    glitches: Rc<Glitches>,
    streams: JoinSet<()>,
    patience: Deadline,
    drained: Pin<Box<OwnedNotified>>,
    served: u32,
    leaving: bool,
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Done,
    Broken,
    TooManyGlitches,
    TimedOut,
}

/// Serves a connection to its end; its preface and settings must have come `until` then.
pub(super) async fn serve<S: Service>(worker: &Rc<Worker<S>>, link: &Link, io: Io, until: Instant) {
    let limits = link.site.limits();
    let glitches = Rc::new(Glitches::new(limits.glitch_budget));
    let io = Sniffed::new(io, glitches.clone(), limits.send_timeout);
    let Ok(Ok(connection)) = tokio::time::timeout_at(until, builder(limits).handshake(io)).await else {
        worker.counters.add(Count::Http2Errors);
        return;
    };
    let mut serving = Serving {
        worker: worker.clone(),
        link: link.clone(),
        connection,
        glitches,
        streams: JoinSet::new(),
        patience: Deadline::none(),
        drained: Box::pin(link.site.drain.begins()),
        served: 0,
        leaving: false,
    };
    let end = std::future::poll_fn(|cx| serving.poll_end(cx)).await;
    serving.finish(end).await;
}

fn builder(limits: &EdgeLimits) -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(limits.max_streams)
        .max_header_list_size(limits.max_header_bytes)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(Some(limits.glitch_budget as usize))
        .enable_connect_protocol();
    builder
}

impl<S: Service> Serving<S> {
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            // What has been heard since the last look is judged before more is taken in.
            if self.glitches.exhausted() {
                return Poll::Ready(End::TooManyGlitches);
            }
            match self.connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    self.served = self.served.saturating_add(1);
                    let max = self.link.site.limits().max_requests_per_connection;
                    if max > 0 && self.served >= max {
                        self.leave();
                    }
                    self.worker.counters.add(Count::Http2Requests);
                    self.streams.spawn_local(stream::serve(self.worker.clone(), self.link.clone(), request, respond));
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(if error.is_io() { End::Done } else { End::Broken }),
                Poll::Ready(None) => return Poll::Ready(End::Done),
                Poll::Pending => break,
            }
        }
        if self.glitches.exhausted() {
            return Poll::Ready(End::TooManyGlitches);
        }
        while let Poll::Ready(Some(_)) = self.streams.poll_join_next(cx) {}
        if !self.leaving && (self.link.site.drain.has_begun() || self.drained.as_mut().poll(cx).is_ready()) {
            self.leave();
            // The goodbye goes out with the next look.
            cx.waker().wake_by_ref();
        }
        self.poll_patience(cx)
    }

    /// A header block must be completed soon, and a connection without streams is not kept for ever.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let limits = self.link.site.limits();
        if let Some(since) = self.glitches.block_since() {
            self.patience.set(since + limits.header_timeout);
            return self.patience.poll_passed(cx).map(|()| End::TimedOut);
        }
        if !self.streams.is_empty() {
            self.patience.clear();
            return Poll::Pending;
        }
        self.patience.set_once(|| clock::now() + limits.idle_timeout);
        if self.patience.poll_passed(cx).is_ready() {
            if self.leaving {
                return Poll::Ready(End::TimedOut);
            }
            self.leave();
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Says GOAWAY, first without and then with the last stream, so that requests on their way are still served (RFC 9113 section 6.8).
    fn leave(&mut self) {
        self.leaving = true;
        self.connection.graceful_shutdown();
    }

    async fn finish(mut self, end: End) {
        match end {
            End::Done => return,
            End::Broken => self.worker.counters.add(Count::Http2Errors),
            End::TooManyGlitches => self.worker.counters.add(Count::GlitchKills),
            End::TimedOut => self.worker.counters.add(Count::TimedOut),
        }
        // Streams end with their connection, and upstream work with them.
        self.streams.abort_all();
        if matches!(end, End::TooManyGlitches | End::TimedOut) {
            self.connection.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
        }
        // Late clients are cut.
        let _ = timeout(FAREWELL, std::future::poll_fn(|cx| self.connection.poll_closed(cx))).await;
    }
}
