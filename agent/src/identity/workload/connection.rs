//! One connection of an application, in our own HTTP/2: that lets it name any authority, as gRPC's C core does with the path of the socket, where the
//! usual one refuses what is no host. It knows nothing of what is asked.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::{self, HeaderMap, HeaderName, HeaderValue};
use bytes::{Bytes, BytesMut};
use heddle_node::clock;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tonic::codegen::BoxFuture;

use super::saying::{self, Saying};
use crate::http::h1::HeadLimits;
use crate::http::h2::connection::{By, Config, Connection, Event, Lost, StreamKey};
use crate::http::h2::frame::{DEFAULT_FRAME_SIZE, DEFAULT_WINDOW, ErrorCode};
use crate::http::h2::hpack::Encoder;
use crate::http::h2::message::{WireLength, write_response};
use crate::http::h2::send::poll_send;
use crate::http::{Fields, Frame, RequestHead, ResponseHead};
use crate::net::Deadline;

/// Calls of one connection at the same time.
const CALLS: u32 = 16;
/// How connections are run: few calls with small heads.
const CONFIG: Config = Config {
    stream_window: DEFAULT_WINDOW,
    connection_window: DEFAULT_WINDOW,
    max_frame_size: DEFAULT_FRAME_SIZE,
    max_streams: CALLS,
    heads: HeadLimits {
        max_bytes: 16 * 1024,
        max_field: 8 * 1024,
        max_fields: 64,
        max_target: 1024,
        connect: false,
        any_authority: true,
    },
    glitch_budget: 100,
};
/// Room made for reading.
const ROOM: usize = 4 * 1024;
/// Bytes that wait for the application beyond which nothing more is read from it.
const BACKLOG_MAX: usize = 256 * 1024;
/// When the preface must have come, and how long the last words may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the rest of a call is waited for that was answered before its end.
const LINGER: Duration = Duration::from_secs(1);

type Answer = http::Response<tonic::body::Body>;

/// A connection being served.
struct Serving<F> {
    machine: Connection,
    stream: UnixStream,
    input: BytesMut,
    calls: Vec<Call>,
    answer: F,
}

/// One call.
struct Call {
    key: StreamKey,
    /// Where what is said goes, until that was all.
    saying: Option<Saying>,
    step: Step,
}

/// How far a call is.
enum Step {
    /// Its head has come.
    Asked(Box<http::Request<Body>>),
    /// It is being answered.
    Called(BoxFuture<Answer, Infallible>),
    /// Its answer is being sent.
    Answering(tonic::body::Body),
    /// The last of it waits for windows.
    Ending,
    /// It was answered before its end, for which it is given a little time: a reset right behind the answer is what some clients see first.
    Lingering(Deadline),
}

/// Serves a connection to its end.
pub(super) async fn serve(stream: UnixStream, answer: impl FnMut(http::Request<Body>) -> BoxFuture<Answer, Infallible>) {
    let (machine, input) = (Connection::server(CONFIG), BytesMut::new());
    let mut serving = Serving { machine, stream, input, calls: Vec::new(), answer };
    let greeted = timeout(PATIENCE, poll_fn(|cx| serving.poll_until(cx, Connection::is_greeted))).await;
    if greeted == Ok(true) {
        poll_fn(|cx| serving.poll_until(cx, Connection::is_finished)).await;
    }
    let Serving { mut machine, mut stream, .. } = serving;
    // Whoever does not listen to the last words is cut.
    let _ = timeout(PATIENCE, poll_fn(|cx| poll_send(&mut machine, &mut stream, cx, || {}))).await;
}

impl<F: FnMut(http::Request<Body>) -> BoxFuture<Answer, Infallible>> Serving<F> {
    /// Moves bytes and calls; true when `is_there` holds, false when the connection has ended before.
    fn poll_until(&mut self, cx: &mut Context<'_>, is_there: fn(&Connection) -> bool) -> Poll<bool> {
        loop {
            let Some(stopped) = self.read(cx) else { return Poll::Ready(false) };
            let Serving { machine, answer, calls, .. } = self;
            calls.retain_mut(|call| {
                let goes_on = call.poll(machine, answer, cx).is_pending();
                if !goes_on {
                    machine.release(call.key);
                }
                goes_on
            });
            let sent = poll_send(&mut self.machine, &mut self.stream, cx, || {});
            if matches!(sent, Poll::Ready(Err(_))) {
                return Poll::Ready(false);
            }
            if is_there(&self.machine) {
                return Poll::Ready(true);
            }
            if !stopped || sent.is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Reads all that has come; true when it stopped for what waits to be sent, `None` at the end.
    fn read(&mut self, cx: &mut Context<'_>) -> Option<bool> {
        while self.machine.output().len() < BACKLOG_MAX {
            self.input.reserve(ROOM);
            // This future keeps no state of its own, so that dropping it when pending loses nothing.
            match Future::poll(pin!(self.stream.read_buf(&mut self.input)), cx) {
                Poll::Pending => return Some(false),
                Poll::Ready(Ok(read)) if read > 0 => {}
                Poll::Ready(_) => return None,
            }
            loop {
                match self.machine.receive(&mut self.input, clock::now()) {
                    Ok(None) => break,
                    Ok(Some(Event::Request(request))) => {
                        let (saying, heard) = saying::channel();
                        let asked = asked(&request.head).map(|()| Body::from_stream(heard));
                        self.calls.push(Call { key: request.key, saying: Some(saying), step: Step::Asked(Box::new(asked)) });
                        self.machine.recycle(request.head);
                    }
                    Ok(Some(Event::Refused(request, _))) => self.machine.release(request.key),
                    Ok(Some(Event::Malformed | Event::Pong | Event::GoAway(_))) => {}
                    Err(violation) => {
                        self.machine.shut(violation.code, violation.detail);
                        return None;
                    }
                }
            }
        }
        Some(true)
    }
}

impl Call {
    /// Hands on what is said, as far as there is room for it.
    ///
    /// # Errors
    /// The call is broken.
    fn hear(&mut self, machine: &mut Connection, cx: &mut Context<'_>) -> Result<(), ()> {
        while let Some(saying) = self.saying.take() {
            if saying.poll_room(cx).is_pending() {
                self.saying = Some(saying);
                return Ok(());
            }
            match machine.poll_frame(self.key, cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Frame::Data(bytes) = frame {
                        saying.push(bytes);
                    }
                    self.saying = Some(saying);
                }
                Poll::Ready(Some(Err(_))) => return Err(()),
                Poll::Ready(None) => saying.end(),
                Poll::Pending => {
                    self.saying = Some(saying);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Goes on as far as it can; ready when it has ended.
    fn poll(
        &mut self,
        machine: &mut Connection,
        answer: &mut impl FnMut(http::Request<Body>) -> BoxFuture<Answer, Infallible>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        loop {
            if machine.poll_lost(self.key, cx).is_ready() || self.hear(machine, cx).is_err() {
                return Poll::Ready(());
            }
            match &mut self.step {
                Step::Asked(asked) => self.step = Step::Called(answer(std::mem::take(&mut **asked))),
                Step::Called(answering) => {
                    let Ok(answer) = ready!(answering.as_mut().poll(cx));
                    let (parts, body) = answer.into_parts();
                    let head = ResponseHead { status: parts.status.as_u16(), fields: fields(&parts.headers) };
                    let ended = body.is_end_stream();
                    let write = |encoder: &mut Encoder, out: &mut Vec<u8>| {
                        write_response(encoder, out, &head, WireLength::Absent, None);
                    };
                    self.step = if ended { Step::Ending } else { Step::Answering(body) };
                    if machine.send_head(self.key, ended, write).is_err() {
                        return Poll::Ready(());
                    }
                }
                Step::Answering(body) => match ready!(pass_on(machine, self.key, body, cx)) {
                    Ok(false) => {}
                    Ok(true) => self.step = Step::Ending,
                    Err(_) => return Poll::Ready(()),
                },
                Step::Ending => {
                    if ready!(machine.poll_flushed(self.key, cx)).is_err() {
                        return Poll::Ready(());
                    }
                    // Nobody hears it any more.
                    self.saying = None;
                    let mut late = Deadline::none();
                    late.set(clock::now() + LINGER);
                    self.step = Step::Lingering(late);
                }
                Step::Lingering(late) => {
                    if machine.poll_heard(self.key, cx).is_ready() {
                        return Poll::Ready(());
                    }
                    return late.poll_passed(cx);
                }
            }
        }
    }
}

/// Sends the next piece of an answer; whether that was its end.
fn pass_on(
    machine: &mut Connection,
    key: StreamKey,
    body: &mut tonic::body::Body,
    cx: &mut Context<'_>,
) -> Poll<Result<bool, Lost>> {
    ready!(machine.poll_room(key, cx))?;
    let Some(frame) = ready!(Pin::new(body).poll_frame(cx)) else {
        return Poll::Ready(machine.send_data(key, Bytes::new(), true).map(|()| true));
    };
    let Ok(frame) = frame else { return Poll::Ready(Err(Lost { code: ErrorCode::INTERNAL_ERROR, by: By::Us })) };
    Poll::Ready(match frame.into_data().map_err(|frame| frame.into_trailers()) {
        Ok(bytes) => machine.send_data(key, bytes, false).map(|()| false),
        Err(Ok(trailers)) => machine.send_trailers(key, Box::new(fields(&trailers))).map(|()| true),
        Err(Err(_)) => Ok(false),
    })
}

/// What is asked, but for its message. Of the address only the path counts; what is no field of ours is left out.
fn asked(head: &RequestHead) -> http::Request<()> {
    let mut request = http::Request::new(());
    if let Ok(method) = head.method.as_str().parse() {
        *request.method_mut() = method;
    }
    *request.uri_mut() = head.path.parse().unwrap_or_default();
    for field in head.fields.iter() {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(field.name), HeaderValue::from_bytes(field.value)) {
            request.headers_mut().append(name, value);
        }
    }
    request
}

fn fields(map: &HeaderMap) -> Fields {
    let mut fields = Fields::new();
    map.iter().for_each(|(name, value)| fields.append(name.as_str(), value.as_bytes()));
    fields
}
