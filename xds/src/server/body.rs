//! The server's side of a stream as an HTTP body: gRPC frames whose larger part many streams share. It decides nothing about xDS.
//!
//! A protobuf message is the merge of its parts, one after the other, so a response is a small head of its own (version and nonce)
//! and a rest that was encoded once for everybody.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use hyper::HeaderMap;
use hyper::body::Frame;
use tokio::sync::mpsc;
use tonic::Status;
use tonic::codegen::Body;

use super::pace::{Telling, Work};

/// Bytes before a gRPC message: whether it is compressed, and its length.
const PREFIX: usize = 5;
/// A shared part below this is copied behind its head: one frame costs less than the copy saves.
const COPIED: usize = 16 * 1024;

/// A response, encoded.
#[derive(Debug)]
pub(super) struct Packet {
    /// What differs from stream to stream.
    pub(super) head: Vec<u8>,
    /// What many streams say.
    pub(super) shared: Bytes,
    /// Hears when it is handed over.
    pub(super) work: Option<Work>,
    /// The last one of a view: with it that is told.
    pub(super) telling: Option<Telling>,
}

impl Packet {
    /// Bytes of the message.
    pub(super) fn len(&self) -> usize {
        self.head.len() + self.shared.len()
    }

    /// The gRPC message in one or two pieces.
    fn pieces(self) -> (Bytes, Option<Bytes>) {
        let copied = if self.shared.len() < COPIED { self.shared.len() } else { 0 };
        let mut first = BytesMut::with_capacity(PREFIX + self.head.len() + copied);
        first.put_u8(0);
        // Bounded by the stream before it comes here, so that it fits.
        first.put_u32(u32::try_from(self.len()).unwrap_or(u32::MAX));
        first.put_slice(&self.head);
        first.put_slice(&self.shared[..copied]);
        (first.freeze(), (copied < self.shared.len()).then_some(self.shared))
    }
}

/// The body: packets, then the status.
#[derive(Debug)]
pub(super) struct Outgoing {
    packets: mpsc::Receiver<Result<Packet, Status>>,
    rest: Option<Bytes>,
    ended: bool,
}

impl Outgoing {
    pub(super) fn new(packets: mpsc::Receiver<Result<Packet, Status>>) -> Outgoing {
        Outgoing { packets, rest: None, ended: false }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(rest) = self.rest.take() {
            return Poll::Ready(Some(Ok(Frame::data(rest))));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let status = match ready!(self.packets.poll_recv(context)) {
            Some(Ok(mut packet)) => {
                packet.work.iter().for_each(Work::done);
                drop(packet.telling.take());
                let (first, rest) = packet.pieces();
                self.rest = rest;
                return Poll::Ready(Some(Ok(Frame::data(first))));
            }
            Some(Err(status)) => status,
            None => Status::ok(""),
        };
        self.ended = true;
        let mut trailers = HeaderMap::new();
        Poll::Ready(Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))))
    }
}
