//! One try on one connection, up to the response head.

use std::borrow::Cow;
use std::io;
use std::task::{Context, Poll};

use bytes::Bytes;
use heddle_xds::model::Timeouts;
use tokio::time::Instant;

use super::conn::{Conn, HEAD_LIMITS, MAX_CHUNK_EXTENSIONS, READ_ROOM, Step};
use super::send::{SendError, Sender};
use crate::exchange::{Interim, Reason};
use crate::http::h1::{BodyDecoder, BodyLength, Fault, ParsedResponse, RequestKind, ResponseParser, Step as Decoded};
use crate::http::{Body, Fields, Greeting, Method, Name, ResponseHead};
use crate::upstream::{OutgoingRequest, Sent, UpstreamError};

/// Most interim responses before the final one.
const MAX_INTERIM: u32 = 32;

/// What came back.
pub(in crate::upstream) struct Answered {
    pub(in crate::upstream) head: ResponseHead,
    pub(in crate::upstream) conn: Box<Conn>,
    pub(in crate::upstream) rest: Rest,
}

/// What is left to do on the connection.
pub(in crate::upstream) enum Rest {
    /// Nothing: the exchange is complete. The flag says whether the connection may be used again.
    Done(Body, bool),
    /// The body is still coming, and perhaps still going.
    Stream(super::body::Streaming),
    /// The connection has left HTTP.
    Upgraded,
}

/// A failed try.
pub(in crate::upstream) struct Failed {
    pub(in crate::upstream) error: UpstreamError,
    /// The connection ended before a single byte of an answer came: on a pooled one that says nothing about the endpoint.
    pub(in crate::upstream) silent: bool,
}

struct Try<'a> {
    conn: &'a mut Conn,
    sender: Option<Sender>,
    /// The endpoint took no more of the request; kept for the body in it.
    refused: Option<Sender>,
    written: u64,
    /// All of the request is out.
    sent_all: bool,
    parser: ResponseParser,
    head: ResponseHead,
    kind: RequestKind,
    interim: &'a Interim,
    interims: u32,
    timeouts: Timeouts,
    answered: bool,
    /// When it began, until it has been looked at once.
    now: Option<Instant>,
}

/// Sends a request and reads up to the end of the response head; a body that came with it is taken along. `now` is the time where the caller knows it.
pub(in crate::upstream) async fn try_once(
    mut conn: Box<Conn>,
    request: &OutgoingRequest<'_>,
    body: &mut Body,
    interim: &Interim,
    now: Option<Instant>,
) -> Result<Answered, Failed> {
    conn.served = conn.served.saturating_add(1);
    conn.deadline.clear();
    let kind = if request.head.method == Method::Head { RequestKind::Head } else { RequestKind::Other };
    let sender = Sender::start(&mut conn, request, body);
    let mut this = Try {
        conn: &mut conn,
        sender: Some(sender),
        refused: None,
        written: 0,
        sent_all: false,
        parser: ResponseParser::new(HEAD_LIMITS, kind),
        head: ResponseHead::default(),
        kind,
        interim,
        interims: 0,
        timeouts: request.timeouts,
        answered: false,
        now,
    };
    let polled = std::future::poll_fn(|cx| this.poll(cx)).await;
    let Try { sender, refused, head, sent_all, .. } = this;
    let parsed = match polled {
        Ok(parsed) => parsed,
        Err(failed) => {
            if let Some(sender) = sender.or(refused) {
                sender.give_back(body);
            }
            return Err(failed);
        }
    };
    if head.status == 101 {
        let same = request.upgrade && is_same_protocol(&request.head.fields, &head.fields);
        return if same && parsed.upgrades && sent_all {
            Ok(Answered { head, conn, rest: Rest::Upgraded })
        } else {
            let detail = "101 without having been asked to switch to this protocol";
            Err(Failed { error: UpstreamError::new(Reason::UpstreamProtocol, Sent::All, detail), silent: false })
        };
    }
    conn.is_kept_for(parsed.keeps);
    let rest = take_body(&mut conn, parsed, sender, sent_all);
    Ok(Answered { head, conn, rest })
}

/// Whether the endpoint switches to the protocol that it was asked for, and to no other.
fn is_same_protocol(asked: &Fields, granted: &Fields) -> bool {
    let mut granted = granted.get_all_known(Name::Upgrade);
    let same = |asked: &[u8]| granted.next().is_some_and(|granted| granted.eq_ignore_ascii_case(asked));
    asked.get_known(Name::Upgrade).is_some_and(same) && granted.next().is_none()
}

impl Try<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<ParsedResponse, Failed>> {
        if let Some(sender) = &mut self.sender {
            let polled = sender.poll(self.conn, cx);
            self.written = sender.written;
            match polled {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => {
                    self.sender = None;
                    self.sent_all = true;
                    self.conn.deadline.clear();
                }
                Poll::Ready(Err(SendError::Body(error))) => {
                    return Poll::Ready(Err(self.fail(Reason::of_request_body(&error), "request body")));
                }
                // the endpoint may have answered before it stopped reading
                Poll::Ready(Err(SendError::Refused)) => self.refused = self.sender.take(),
            }
        }
        loop {
            match self.conn.poll_fill(cx, READ_ROOM) {
                Poll::Pending => break,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(self.cut(&error))),
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(self.cut(&io::ErrorKind::UnexpectedEof.into()))),
                Poll::Ready(Ok(_)) => {
                    self.answered = true;
                    self.conn.deadline.clear();
                    match self.parse() {
                        Ok(None) if self.begins_http2() => return Poll::Ready(Err(self.other_version())),
                        Ok(None) => {}
                        Ok(Some(parsed)) => return Poll::Ready(Ok(parsed)),
                        Err(_) if self.begins_http2() => return Poll::Ready(Err(self.other_version())),
                        Err(fault) => return Poll::Ready(Err(self.fail(Reason::UpstreamProtocol, fault.to_string()))),
                    }
                }
            }
        }
        let step = self.sender.as_ref().map_or(Step::Read, |sender| sender.step);
        if self.conn.poll_late(cx, step, &self.timeouts, self.now.take()) {
            let what = if step == Step::Send { "the endpoint took no bytes in time" } else { "no answer in time" };
            return Poll::Ready(Err(self.fail(Reason::UpstreamTimeout, what)));
        }
        Poll::Pending
    }

    /// Reads heads until the final one is complete.
    fn parse(&mut self) -> Result<Option<ParsedResponse>, Fault> {
        loop {
            let Some(parsed) = self.parser.advance(&self.conn.input, &mut self.head)? else { return Ok(None) };
            let _ = self.conn.input.split_to(parsed.consumed);
            if self.head.status >= 200 || self.head.status == 101 {
                return Ok(Some(parsed));
            }
            self.interims += 1;
            if self.interims > MAX_INTERIM {
                return Err(Fault::Malformed("too many interim responses"));
            }
            self.interim.send(std::mem::take(&mut self.head));
            self.parser = ResponseParser::new(HEAD_LIMITS, self.kind);
            if self.conn.input.is_empty() {
                return Ok(None);
            }
        }
    }

    fn sent(&self) -> Sent {
        match (self.sent_all, self.written) {
            (true, _) => Sent::All,
            (false, 0) => Sent::Nothing,
            (false, _) => Sent::Partial,
        }
    }

    fn fail(&self, reason: Reason, detail: impl Into<Cow<'static, str>>) -> Failed {
        Failed { error: UpstreamError::new(reason, self.sent(), detail), silent: false }
    }

    /// Whether the endpoint has begun HTTP/2, as it does whatever it is asked.
    fn begins_http2(&self) -> bool {
        self.interims == 0 && self.conn.input.first() == Some(&0) && Greeting::of(&self.conn.input) == Greeting::Http2
    }

    fn other_version(&self) -> Failed {
        self.fail(Reason::UpstreamHttp2, "the endpoint speaks HTTP/2 only: its scheme, or service.protocol, must say so")
    }

    fn cut(&self, error: &io::Error) -> Failed {
        // over TLS a truncated stream is an error of its own; both mean that the endpoint left
        let detail = if self.answered {
            Cow::from("the connection ended within the response head")
        } else {
            Cow::from(format!("the connection ended before an answer: {error}"))
        };
        Failed { error: UpstreamError::new(Reason::UpstreamReset, self.sent(), detail), silent: !self.answered }
    }
}

fn take_body(conn: &mut Box<Conn>, parsed: ParsedResponse, sender: Option<Sender>, sent_all: bool) -> Rest {
    let whole = match parsed.length {
        BodyLength::Empty => Some(0),
        BodyLength::Known(bytes) if bytes <= conn.input.len() as u64 => Some(bytes as usize),
        _ => None,
    };
    let Some(len) = whole else {
        let mut decoder = BodyDecoder::new(parsed.length, &HEAD_LIMITS, 0, MAX_CHUNK_EXTENSIONS);
        if parsed.length == BodyLength::Chunked
            && is_one_chunk(&conn.input)
            && let Ok(Decoded::Data(body)) = decoder.decode(&mut conn.input)
            && let Ok(Decoded::End) = decoder.decode(&mut conn.input)
        {
            return Rest::Done(Body::Full(body), parsed.persists && sent_all && conn.input.is_empty());
        }
        return Rest::Stream(super::body::Streaming { decoder, sender, sent_all, persists: parsed.persists });
    };
    let body = match len {
        0 => Body::Empty,
        // copying keeps the read buffer for the next answer; beyond this size sharing it is cheaper
        1..=4096 => Body::Full(Bytes::copy_from_slice(&conn.input.split_to(len))),
        _ => Body::Full(conn.input.split_to(len).freeze()),
    };
    Rest::Done(body, parsed.persists && sent_all && conn.input.is_empty())
}

/// Whether the buffer holds exactly one chunk and the end behind it: the usual small answer of a server that chunks.
fn is_one_chunk(input: &[u8]) -> bool {
    const END: &[u8] = b"\r\n0\r\n\r\n";
    let Some(line) = input.iter().take(8).position(|byte| *byte == b'\r') else { return false };
    let size = std::str::from_utf8(&input[..line]).ok().and_then(|digits| usize::from_str_radix(digits, 16).ok());
    size.is_some_and(|size| size > 0 && input.len() == line + 2 + size + END.len() && input.ends_with(END))
}
