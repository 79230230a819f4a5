//! Moving the bytes of one connection until it ends: by GOAWAY, by a fault, for want of a pong, or because nobody uses it any more. It knows no
//! requests.

use std::io;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use heddle_node::clock::{self, Instant};
use tokio::io::AsyncWriteExt;
use tokio::task::coop;
use tokio::time::timeout;

use super::session::Session;
use crate::http::h2::connection::Event;
use crate::http::h2::frame::{DEFAULT_FRAME_SIZE, ErrorCode, Violation};
use crate::http::h2::send::poll_send;
use crate::http::h2::wire::Wire;
use crate::net::{Deadline, Io};
use crate::upstream::host::Slot;

/// Room made for reading: a frame of the size that we allow fits in. A connection that fills it gets more.
const ROOM: usize = DEFAULT_FRAME_SIZE as usize + 1024;
const ROOM_MAX: usize = 4 * ROOM;
/// Bytes that wait for the endpoint beyond which nothing more is read from it: it would only call forth more.
const BACKLOG_MAX: usize = 256 * 1024;
/// Rounds after which others get their turn.
const ROUNDS: usize = 16;
/// A ping goes out this often while requests are under way; without its answer the connection is given up.
const PING_EVERY: Duration = Duration::from_secs(30);
const PONG_WITHIN: Duration = Duration::from_secs(20);
const PING: [u8; 8] = *b"alive? ?";
/// How long the last words of a connection may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// One connection and its bytes.
struct Driver {
    wire: Rc<Wire>,
    session: Weak<Session>,
    io: Io,
    input: BytesMut,
    room: usize,
    alarm: Deadline,
    /// When the alarm goes off.
    alarm_at: Instant,
    /// Until when its timer surely sleeps.
    armed: Instant,
    /// Whether a ping waits for its answer.
    pinged: bool,
    /// Whether the endpoint's settings have come.
    greeted: bool,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the endpoint has said goodbye, and all requests have ended")]
    Finished,
    #[error("nobody uses it any more")]
    Unused,
    #[error("closed: {0}")]
    Closed(io::Error),
    #[error("the endpoint broke the protocol: {0}")]
    Broken(Violation),
    #[error("the endpoint answers no pings")]
    Dead,
}

/// Moves the bytes of a connection to its end.
pub(super) async fn drive(wire: Rc<Wire>, session: Weak<Session>, io: Io, slot: Slot) {
    let now = clock::now();
    let alarm_at = now + PING_EVERY;
    let mut alarm = Deadline::none();
    alarm.set(alarm_at);
    let (input, pinged, greeted) = (BytesMut::new(), false, false);
    let mut driver = Driver { wire, session, io, input, room: ROOM, alarm, alarm_at, armed: now, pinged, greeted };
    let end = std::future::poll_fn(|cx| driver.poll(cx)).await;
    tracing::debug!(%end, "HTTP/2 connection to an endpoint ended");
    driver.tell(&end);
    drop(slot);
    driver.say_goodbye(end).await;
}

/// Whether the peer has refused our certificate. With TLS 1.3 that comes after our side of the handshake is done, and before the peer has looked at
/// anything behind it.
fn is_unwelcome(error: &io::Error) -> bool {
    use rustls::AlertDescription as Alert;
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    let Some(rustls::Error::AlertReceived(alert)) = cause else { return false };
    matches!(
        alert,
        Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::CertificateRequired
            | Alert::UnknownCA
            | Alert::AccessDenied
    )
}

impl Driver {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.wire.work(cx.waker());
        let ended = self.turn(cx);
        self.wire.rest();
        ended.map_or(Poll::Pending, Poll::Ready)
    }

    /// Reads, sends, and looks after the connection.
    fn turn(&mut self, cx: &mut Context<'_>) -> Option<End> {
        let mut heard = None;
        for _ in 0..ROUNDS {
            let stopped = match self.read(cx, &mut heard) {
                Ok(stopped) => stopped,
                Err(end) => return Some(end),
            };
            if self.session.strong_count() == 0 {
                return Some(End::Unused);
            }
            if let Err(error) = self.write(cx) {
                return Some(End::Closed(error));
            }
            if self.wire.with(|machine| machine.is_finished()) {
                return Some(End::Finished);
            }
            if !stopped || self.backlog() >= BACKLOG_MAX {
                return self.watch(cx, heard);
            }
        }
        cx.waker().wake_by_ref();
        None
    }

    fn backlog(&self) -> usize {
        self.wire.with(|machine| machine.output().len())
    }

    /// Reads all that has come; true when it stopped for what waits to be sent.
    fn read(&mut self, cx: &mut Context<'_>, heard: &mut Option<Instant>) -> Result<bool, End> {
        while self.backlog() < BACKLOG_MAX {
            if self.input.capacity() - self.input.len() < self.room / 4 || self.input.capacity() < ROOM {
                self.input.reserve(self.room);
            }
            let space = self.input.capacity() - self.input.len();
            match self.io.poll_fill(cx, &mut self.input) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Ok(0)) => return Err(End::Closed(io::ErrorKind::UnexpectedEof.into())),
                Poll::Ready(Ok(read)) => self.room = if read == space { ROOM_MAX.min(self.room * 2) } else { ROOM },
                Poll::Ready(Err(error)) => return Err(End::Closed(error)),
            }
            let now = *heard.insert(clock::now());
            while let Some(event) = self.wire.with(|machine| machine.receive(&mut self.input, now)).map_err(End::Broken)? {
                self.take(event, now);
            }
            if !self.greeted && self.wire.with(|machine| machine.is_greeted()) {
                self.greeted = true;
                self.session.upgrade().iter().for_each(|session| session.greet());
            }
        }
        Ok(true)
    }

    fn take(&mut self, event: Event, now: Instant) {
        match event {
            Event::Pong => {
                self.pinged = false;
                self.set_alarm(now + PING_EVERY);
            }
            Event::GoAway(code) => {
                tracing::debug!(%code, "an endpoint takes no more requests on a connection");
                if let Some(session) = self.session.upgrade() {
                    session.close();
                }
            }
            // A server opens no streams: push is switched off.
            Event::Request(_) | Event::Refused(..) | Event::Malformed => {}
        }
    }

    /// Sends what waits and what the endpoint's windows allow, as far as the socket takes it.
    fn write(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let io = &mut self.io;
        match self.wire.with(|machine| poll_send(machine, io, cx, || {})) {
            Poll::Ready(written) => written,
            Poll::Pending => Ok(()),
        }
    }

    fn set_alarm(&mut self, at: Instant) {
        self.alarm_at = at;
        self.alarm.set(at);
    }

    /// Looks whether the alarm has gone off, but not while its timer surely sleeps: it is asked more often than any other timer.
    fn watch(&mut self, cx: &mut Context<'_>, heard: Option<Instant>) -> Option<End> {
        let now = heard.unwrap_or_else(clock::now);
        if now < self.armed {
            return None;
        }
        while self.alarm.poll_passed(cx).is_ready() {
            if self.pinged {
                return Some(End::Dead);
            }
            self.pinged = self.wire.with(|machine| machine.open_streams() > 0);
            let wait = if self.pinged { PONG_WITHIN } else { PING_EVERY };
            self.set_alarm(now + wait);
            if self.pinged {
                self.wire.with(|machine| machine.ping(PING));
                if let Err(error) = self.write(cx) {
                    return Some(End::Closed(error));
                }
            }
        }
        // A task that has had its turn is polled again soon, and its timer may have been set to nothing.
        self.armed = if coop::has_budget_remaining() { self.alarm_at } else { now };
        None
    }

    /// Tells those who have requests on the connection, and those who look for one.
    fn tell(&mut self, end: &End) {
        if let Some(session) = self.session.upgrade() {
            session.close();
            match end {
                End::Broken(violation) => session.blame(*violation),
                End::Closed(error) if is_unwelcome(error) => session.turn_away(),
                _ => {}
            }
        }
        self.wire.with(|machine| match end {
            End::Unused => machine.shut(ErrorCode::NO_ERROR, ""),
            End::Broken(violation) => machine.shut(violation.code, violation.detail),
            End::Finished | End::Closed(_) | End::Dead => machine.close(),
        });
    }

    /// Says the last words; endpoints that do not listen are cut.
    async fn say_goodbye(mut self, end: End) {
        if matches!(end, End::Closed(_) | End::Dead) {
            return;
        }
        let words = async {
            let io = &mut self.io;
            let said = std::future::poll_fn(|cx| self.wire.with(|machine| poll_send(machine, io, cx, || {}))).await;
            match said {
                Ok(()) => self.io.shutdown().await,
                Err(error) => Err(error),
            }
        };
        let _ = timeout(FAREWELL, words).await;
    }
}
