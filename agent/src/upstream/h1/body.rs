//! A response body that is pulled from its connection, while the request body may still be on its way.

use std::task::{Context, Poll};

use heddle_node::clock;
use heddle_xds::model::Timeouts;

use super::conn::{BODY_ROOM, Conn, READ_ROOM, Step};
use super::send::{SendError, Sender};
use crate::http::h1::{BodyDecoder, Step as Decoded};
use crate::http::{BodyError, BodySource, Frame};
use crate::upstream::pools::Work;

/// An exchange whose head has come.
pub(in crate::upstream) struct Streaming {
    pub(super) decoder: BodyDecoder,
    pub(super) sender: Option<Sender>,
    pub(super) sent_all: bool,
    pub(super) persists: bool,
}

/// A response body that is pulled. Dropping it closes the connection.
pub(in crate::upstream) struct H1Body {
    stream: Streaming,
    /// Gone once the body has ended.
    conn: Option<Box<Conn>>,
    work: Option<Work>,
    timeouts: Timeouts,
}

impl H1Body {
    pub(in crate::upstream) fn new(stream: Streaming, conn: Box<Conn>, work: Work, timeouts: Timeouts) -> H1Body {
        H1Body { stream, conn: Some(conn), work: Some(work), timeouts }
    }

    fn fail(&mut self, error: BodyError) -> Poll<Option<Result<Frame, BodyError>>> {
        self.conn = None;
        if let Some(work) = self.work.take() {
            work.broke(&error);
        }
        Poll::Ready(Some(Err(error)))
    }

    /// The end. A connection on which we still have to send, or behind whose body more bytes lie, is closed.
    fn finish(&mut self) {
        let (Some(conn), Some(work)) = (self.conn.take(), self.work.take()) else { return };
        let clean = self.stream.persists && self.stream.sent_all && conn.input.is_empty();
        work.complete(clean.then(|| (conn, clock::now())));
    }
}

impl BodySource for H1Body {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let Some(conn) = &mut self.conn else { return Poll::Ready(None) };
        if let Some(sender) = &mut self.stream.sender {
            match sender.poll(conn, cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => {
                    self.stream.sender = None;
                    self.stream.sent_all = true;
                    conn.deadline.clear();
                }
                Poll::Ready(Err(SendError::Body(error))) => return self.fail(BodyError::Request(Box::new(error))),
                // it has answered already and does not want the rest
                Poll::Ready(Err(SendError::Refused)) => self.stream.sender = None,
            }
        }
        loop {
            match self.stream.decoder.decode(&mut conn.input) {
                Err(error) => return self.fail(error),
                Ok(Decoded::Data(bytes)) => {
                    if self.stream.decoder.is_done() {
                        self.finish();
                    }
                    return Poll::Ready(Some(Ok(Frame::Data(bytes))));
                }
                Ok(Decoded::Trailers(trailers)) => {
                    self.finish();
                    return Poll::Ready(Some(Ok(Frame::Trailers(trailers))));
                }
                Ok(Decoded::End) => {
                    self.finish();
                    return Poll::Ready(None);
                }
                Ok(Decoded::More) => {}
            }
            let room =
                if self.stream.decoder.remaining().is_none_or(|left| left > READ_ROOM as u64) { BODY_ROOM } else { READ_ROOM };
            match conn.poll_fill(cx, room) {
                Poll::Pending => break,
                Poll::Ready(Ok(read)) if read > 0 => conn.deadline.clear(),
                // a TLS stream that is cut without its closing alert is an error here: the body may be incomplete
                Poll::Ready(Err(_)) => return self.fail(BodyError::Aborted),
                Poll::Ready(Ok(_)) => {
                    return match self.stream.decoder.end_of_input() {
                        Ok(()) => {
                            self.finish();
                            Poll::Ready(None)
                        }
                        Err(error) => self.fail(error),
                    };
                }
            }
        }
        let step = self.stream.sender.as_ref().map_or(Step::Read, |sender| sender.step);
        if conn.poll_late(cx, step, &self.timeouts, None) {
            return self.fail(BodyError::Timeout);
        }
        Poll::Pending
    }

    fn remaining(&self) -> Option<u64> {
        self.stream.decoder.remaining()
    }
}
