//! Both directions of an HTTP/1 connection and where the message on each stands; shared by the connection and by the body that it handed out.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use heddle_node::clock;
use tokio::io::AsyncWrite;

use super::super::site::Site;
use super::outbox::Outbox;
use super::spare::Spare;
use crate::http::h1::{BodyDecoder, BodyLength, Step};
use crate::http::{BodyError, Frame};
use crate::net::{Deadline, Io};

/// Bytes of following requests that are read while one is served.
const AHEAD_MAX: usize = 16 * 1024;
/// Unread request body that is thrown away to keep a connection.
pub(super) const DISCARD_MAX: u64 = 64 * 1024;
/// A client that has closed its sending side still gets its answer when it is ready within this: longer would keep upstreams working for the
/// many clients that have closed both sides, which looks the same.
const HALF_CLOSED_GRACE: Duration = Duration::from_secs(2);
/// How long a connection is read on after its last answer.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes thrown away while a connection lingers.
const LINGER_MAX: usize = 256 * 1024;

/// Both directions of a connection.
pub(super) struct Wire {
    pub(super) io: Io,
    pub(super) input: BytesMut,
    pub(super) out: Outbox,
    pub(super) decoder: BodyDecoder,
    /// Number of the request whose body is on the wire; bodies of earlier ones are dead.
    pub(super) turn: u64,
    /// Whether the service still holds the body.
    pub(super) body_alive: bool,
    /// Whether the request body cannot be finished.
    pub(super) body_failed: bool,
    /// Whether the client waits for `100 Continue`.
    pub(super) awaits_continue: bool,
    eof: bool,
    spare: Rc<Spare>,
    reading: Deadline,
    sending: Deadline,
    half_closed: Deadline,
    body_timeout: Duration,
    send_timeout: Duration,
}

/// The client cannot be reached any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gone {
    /// It closed or reset.
    Closed,
    /// It took nothing for too long.
    Stalled,
}

impl Wire {
    pub(super) fn new(io: Io, input: BytesMut, site: &Site, spare: &Rc<Spare>) -> Wire {
        let limits = site.limits();
        Wire {
            io,
            input,
            out: Outbox::new(spare.clone()),
            decoder: BodyDecoder::new(BodyLength::Empty, &site.head_limits, 0, 0),
            turn: 0,
            body_alive: false,
            body_failed: false,
            awaits_continue: false,
            eof: false,
            spare: spare.clone(),
            reading: Deadline::none(),
            sending: Deadline::none(),
            half_closed: Deadline::none(),
            body_timeout: limits.body_timeout,
            send_timeout: limits.send_timeout,
        }
    }

    /// Reads what has come; 0 at the end.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.eof {
            return Poll::Ready(Ok(0));
        }
        self.spare.make_room(&mut self.input);
        let polled = self.io.poll_fill(cx, &mut self.input);
        // Nothing has come, or the end.
        self.spare.take_back(&mut self.input);
        let read = ready!(polled)?;
        self.eof = read == 0;
        Poll::Ready(Ok(read))
    }

    /// What has come of a head waits where it takes no more room than it needs.
    pub(super) fn tuck(&mut self) {
        self.spare.tuck(&mut self.input);
    }

    /// The next piece of the request body.
    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let polled = self.poll_body_inner(cx);
        if let Poll::Ready(ended) = &polled {
            self.reading.clear();
            self.body_failed |= matches!(ended, Some(Err(_)));
        }
        polled
    }

    fn poll_body_inner(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        loop {
            match self.decoder.decode(&mut self.input) {
                Ok(Step::Data(bytes)) => return Poll::Ready(Some(Ok(Frame::Data(bytes)))),
                Ok(Step::Trailers(fields)) => return Poll::Ready(Some(Ok(Frame::Trailers(fields)))),
                Ok(Step::End) => return Poll::Ready(None),
                Ok(Step::More) => {}
                Err(fault) => return Poll::Ready(Some(Err(fault))),
            }
            if std::mem::take(&mut self.awaits_continue) {
                self.out.gathered().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            }
            if self.poll_send(cx) == Poll::Ready(Err(Gone::Closed)) {
                return Poll::Ready(Some(Err(BodyError::Aborted)));
            }
            match self.poll_fill(cx) {
                Poll::Ready(Ok(read)) if read > 0 => self.reading.clear(),
                Poll::Ready(_) => return Poll::Ready(Some(Err(BodyError::Aborted))),
                Poll::Pending => {
                    self.reading.set_once(|| clock::now() + self.body_timeout);
                    return self.reading.poll_passed(cx).map(|()| Some(Err(BodyError::Timeout)));
                }
            }
        }
    }

    /// Ready when the client has gone. Reads ahead, within bounds, since only reading tells.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Gone> {
        if !self.decoder.is_done() {
            return Poll::Pending;
        }
        while !self.eof && self.input.len() < AHEAD_MAX {
            match self.poll_fill(cx) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Gone::Closed),
                Poll::Pending => return Poll::Pending,
            }
        }
        if self.eof {
            self.half_closed.set_once(|| clock::now() + HALF_CLOSED_GRACE);
            ready!(self.half_closed.poll_passed(cx));
            return Poll::Ready(Gone::Closed);
        }
        Poll::Pending
    }

    /// Something came for a client that has closed its sending side: it waits anew.
    pub(super) fn answer_goes_on(&mut self) {
        self.half_closed.clear();
    }

    /// Sends all that is on its way.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        while !self.out.is_empty() {
            let io = Pin::new(&mut self.io);
            let written = match self.out.single() {
                Some(bytes) => io.poll_write(cx, bytes),
                None => io.poll_write_vectored(cx, &self.out.slices()),
            };
            match written {
                Poll::Ready(Ok(written)) if written > 0 => {
                    self.out.advance(written);
                    self.sending.clear();
                    // Who takes an answer that goes on may say nothing for long.
                    self.reading.clear();
                }
                Poll::Ready(_) => return Poll::Ready(Err(Gone::Closed)),
                Poll::Pending => return self.poll_stalled(cx),
            }
        }
        match Pin::new(&mut self.io).poll_flush(cx) {
            Poll::Ready(Ok(())) => {
                self.sending.clear();
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(_)) => Poll::Ready(Err(Gone::Closed)),
            Poll::Pending => self.poll_stalled(cx),
        }
    }

    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.sending.set_once(|| clock::now() + self.send_timeout);
        self.sending.poll_passed(cx).map(|()| Err(Gone::Stalled))
    }

    /// Whether the connection can serve another request behind this one: its body has been read, or is so short that the rest can be thrown
    /// away. What has come of a body that nobody wants is thrown away at once.
    pub(super) fn can_go_on(&mut self, cx: &mut Context<'_>) -> bool {
        if self.decoder.is_done() {
            return true;
        }
        if self.body_failed || self.awaits_continue || self.eof {
            return false;
        }
        if !self.body_alive {
            // Pending or failed: both are told by the decoder below.
            let _ = self.poll_discard(cx);
        }
        self.decoder.remaining().is_some_and(|left| left <= DISCARD_MAX)
    }

    /// Throws the rest of the request body away; whether its end was reached.
    pub(super) fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut thrown = 0;
        while thrown <= DISCARD_MAX {
            match ready!(self.poll_body(cx)) {
                Some(Ok(Frame::Data(bytes))) => thrown += bytes.len() as u64,
                Some(Ok(Frame::Trailers(_))) => {}
                Some(Err(_)) => return Poll::Ready(false),
                None => return Poll::Ready(true),
            }
        }
        self.body_failed = true;
        Poll::Ready(false)
    }
}

/// Closes our side; with `linger`, reads on for a moment, since closing with bytes unread would make the kernel throw away the answer.
pub(in super::super) async fn close(io: &mut Io, linger: bool, spare: &Spare) {
    use tokio::io::AsyncWriteExt;
    if !linger && matches!(io, Io::Plain(_)) {
        // Dropping the socket says as much.
        return;
    }
    let closing = async {
        if io.shutdown().await.is_err() || !linger {
            return;
        }
        let mut thrown = 0;
        while let Ok(read) = std::future::poll_fn(|cx| poll_discard(io, cx, spare)).await {
            thrown += read;
            if read == 0 || thrown > LINGER_MAX {
                break;
            }
        }
    };
    // Late clients are cut: the answer has had its time.
    let _ = tokio::time::timeout(LINGER, closing).await;
}

/// Reads and throws away; 0 at the end.
fn poll_discard(io: &mut Io, cx: &mut Context<'_>, spare: &Spare) -> Poll<io::Result<usize>> {
    let mut input = BytesMut::new();
    spare.make_room(&mut input);
    let polled = io.poll_fill(cx, &mut input);
    input.clear();
    spare.take_back(&mut input);
    polled
}
