//! Field blocks that come: put together, decoded in the order in which they were sent, and given to their stream.

use heddle_node::clock::Instant;

use super::Connection;
use super::ending::Leaving;
use super::stream::{Item, wake};
use super::table::StreamKey;
use crate::http::h1::Fault;
use crate::http::h2::frame::{DEFAULT_TABLE_SIZE, ErrorCode, Role, Violation};
use crate::http::h2::hpack::{Decoder, Encoder};
use crate::http::h2::message::{self, BlockFault, RequestFacts};
use crate::http::{Fields, RequestHead};

/// Interim responses before the final one.
const MAX_INTERIMS: u32 = 32;
/// Heads whose buffers are kept for the next requests.
const SPARE_MAX: usize = 16;
/// A block may be so much longer than what it says may be, before its connection is given up: so far what is too large is read and refused.
const BLOCK_FACTOR: usize = 2;

/// A request that has come.
#[derive(Debug)]
pub struct Request {
    /// Its stream.
    pub key: StreamKey,
    /// Its head.
    pub head: Box<RequestHead>,
    /// What else its head says.
    pub facts: RequestFacts,
    /// Whether no content follows.
    pub ended: bool,
}

/// What has happened.
#[derive(Debug)]
pub enum Event {
    /// A request: its stream is held until it is released.
    Request(Request),
    /// A request that must be refused with the status of the fault; as much of its head as could be read.
    Refused(Request, Fault),
    /// A request that was malformed; its stream has been reset.
    Malformed,
    /// The answer to a ping of ours.
    Pong,
    /// The peer takes no more streams.
    GoAway(ErrorCode),
}

/// A field block that is not complete.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) stream: u32,
    pub(super) since: Instant,
    end_stream: bool,
    bytes: Vec<u8>,
}

/// Field compression both ways.
#[derive(Debug)]
pub(super) struct Codec {
    decoder: Decoder,
    encoder: Encoder,
    #[expect(clippy::vec_box, reason = "they are taken out and put back")]
    spare: Vec<Box<RequestHead>>,
}

impl Codec {
    pub(super) fn new() -> Codec {
        Codec { decoder: Decoder::new(DEFAULT_TABLE_SIZE), encoder: Encoder::new(), spare: Vec::new() }
    }

    pub(super) fn encoder(&mut self) -> &mut Encoder {
        &mut self.encoder
    }

    pub(super) fn resize(&mut self, smallest: u32, size: u32) {
        self.encoder.allow(smallest, size);
    }

    pub(super) fn slim(&mut self) {
        self.spare = Vec::new();
    }
}

impl Connection {
    /// Gives the buffers of a head back for the next request.
    pub fn recycle(&mut self, mut head: Box<RequestHead>) {
        if self.codec.spare.len() < SPARE_MAX {
            head.clear();
            self.codec.spare.push(head);
        }
    }

    pub(super) fn begin_block(&mut self, stream: u32, end_stream: bool, fragment: &[u8], now: Instant) -> Result<(), Violation> {
        self.block = Some(Block { stream, since: now, end_stream, bytes: fragment.to_vec() });
        Ok(())
    }

    pub(super) fn continue_block(
        &mut self,
        end_headers: bool,
        fragment: &[u8],
        now: Instant,
    ) -> Result<Option<Event>, Violation> {
        self.glitches.note(now);
        let Some(mut block) = self.block.take() else { return Ok(None) };
        if block.bytes.len() + fragment.len() > self.config.heads.max_bytes * BLOCK_FACTOR {
            return Err(Violation::connection(ErrorCode::ENHANCE_YOUR_CALM, "a field block is far too long"));
        }
        block.bytes.extend_from_slice(fragment);
        if end_headers {
            return self.take_block(block.stream, block.end_stream, &block.bytes, now);
        }
        self.block = Some(block);
        Ok(None)
    }

    /// Takes a complete block in. Every block is decoded, whatever becomes of it: the tables of both sides must agree.
    pub(super) fn take_block(&mut self, stream: u32, end: bool, block: &[u8], now: Instant) -> Result<Option<Event>, Violation> {
        if self.role == Role::Server && self.is_untouched(stream) {
            return self.take_request(stream, end, block, now);
        }
        let key = self.find(stream)?;
        let Some(found) = key.and_then(|key| self.streams.get(key)).filter(|found| found.lost.is_none()) else {
            self.skip(block)?;
            return match self.buried.contains(stream) {
                true => Ok(None),
                false => Err(Violation::stream(stream, ErrorCode::STREAM_CLOSED, "a head for a stream that has ended")),
            };
        };
        let Some(key) = key else { return Ok(None) };
        if found.incoming.ended {
            self.skip(block)?;
            return Err(Violation::stream(stream, ErrorCode::STREAM_CLOSED, "a head behind the end"));
        }
        if found.incoming.headed { self.take_trailers(key, end, block) } else { self.take_response(key, end, block) }?;
        self.streams.settle(key);
        Ok(None)
    }

    /// Decodes a block that nobody wants.
    fn skip(&mut self, block: &[u8]) -> Result<(), Violation> {
        message::skip(&mut self.codec.decoder, block).map_err(|fault| self.fault(0, fault))
    }

    fn fault(&self, stream: u32, fault: BlockFault) -> Violation {
        match fault {
            BlockFault::Compression(violation) => violation,
            BlockFault::Malformed(detail) => Violation::stream(stream, ErrorCode::PROTOCOL_ERROR, detail),
            BlockFault::Refused(_) => Violation::stream(stream, ErrorCode::PROTOCOL_ERROR, "fields beyond the limits"),
        }
    }

    fn take_request(&mut self, stream: u32, ended: bool, block: &[u8], now: Instant) -> Result<Option<Event>, Violation> {
        if stream.is_multiple_of(2) {
            return Err(Violation::connection(ErrorCode::PROTOCOL_ERROR, "a client opened a stream with an even number"));
        }
        self.last_peer = stream;
        let mut head = self.codec.spare.pop().unwrap_or_default();
        let read = message::read_request(&mut self.codec.decoder, block, ended, &self.config.heads, &mut head);
        if matches!(self.leaving, Leaving::Said(last) if stream > last) {
            return read.map(|_| None).or_else(|fault| match fault {
                BlockFault::Compression(_) => Err(self.fault(stream, fault)),
                _ => Ok(None),
            });
        }
        let full =
            self.streams.open_count() >= self.config.max_streams as usize || self.streams.taken() >= self.config.max_places();
        if full {
            if let Err(fault @ BlockFault::Compression(_)) = read {
                return Err(self.fault(stream, fault));
            }
            if self.acknowledged {
                self.glitches.note(now);
            }
            self.recycle(head);
            self.reject(stream, ErrorCode::REFUSED_STREAM);
            return Ok(None);
        }
        let (facts, fault) = match read {
            Ok(facts) => (facts, None),
            Err(BlockFault::Refused(fault)) => (RequestFacts::default(), Some(fault)),
            Err(BlockFault::Malformed(_)) => {
                self.recycle(head);
                self.glitches.note(now);
                self.reject(stream, ErrorCode::PROTOCOL_ERROR);
                return Ok(Some(Event::Malformed));
            }
            Err(fault) => return Err(self.fault(stream, fault)),
        };
        let (ours, theirs) = (i64::from(self.config.stream_window), i64::from(self.peer.initial_window_size));
        let key = self.streams.open(stream, ours, theirs);
        if let Some(opened) = self.streams.get_mut(key) {
            opened.incoming.headed = true;
            opened.incoming.ended = ended;
            opened.incoming.expected = facts.length;
        }
        let request = Request { key, head, facts, ended };
        Ok(Some(match fault {
            None => Event::Request(request),
            Some(fault) => Event::Refused(request, fault),
        }))
    }

    fn take_response(&mut self, key: StreamKey, end: bool, block: &[u8]) -> Result<(), Violation> {
        let read = message::read_response(&mut self.codec.decoder, block, &self.config.heads);
        let (head, length) = read.map_err(|fault| self.fault(key.id(), fault))?;
        let malformed = |detail| Err(Violation::stream(key.id(), ErrorCode::PROTOCOL_ERROR, detail));
        let Some(stream) = self.streams.get_mut(key) else { return Ok(()) };
        let incoming = &mut stream.incoming;
        if head.status < 200 {
            incoming.interims += 1;
            if end || head.status == 101 || incoming.interims > MAX_INTERIMS {
                return malformed("an interim response that cannot be one");
            }
        } else {
            incoming.headed = true;
            incoming.ended = end;
            // A response to HEAD, and 304, state the length of what they do not bring (RFC 9110 section 8.6).
            let bare = incoming.bodiless || matches!(head.status, 204 | 304);
            // What follows a CONNECT that succeeds is no content, and has no length (RFC 9110 section 9.3.6).
            let is_tunnel = incoming.connects && head.status < 300;
            incoming.expected = if bare { Some(0) } else { length.filter(|_| !is_tunnel) };
            if end && incoming.expected.is_some_and(|length| length > 0) {
                return malformed("the content is not as long as was announced");
            }
        }
        incoming.queue.push_back(Item::Head(Box::new(head)));
        wake(&mut incoming.waker);
        Ok(())
    }

    fn take_trailers(&mut self, key: StreamKey, end: bool, block: &[u8]) -> Result<(), Violation> {
        let mut trailers = Box::<Fields>::default();
        let read = message::read_trailers(&mut self.codec.decoder, block, &self.config.heads, &mut trailers);
        read.map_err(|fault| self.fault(key.id(), fault))?;
        let malformed = |detail| Err(Violation::stream(key.id(), ErrorCode::PROTOCOL_ERROR, detail));
        let Some(stream) = self.streams.get_mut(key) else { return Ok(()) };
        let incoming = &mut stream.incoming;
        if !end {
            return malformed("trailers that are not the end");
        }
        if incoming.expected.is_some_and(|left| left > 0) {
            return malformed("the content is not as long as was announced");
        }
        incoming.ended = true;
        if !trailers.is_empty() && !incoming.unwanted {
            incoming.queue.push_back(Item::Trailers(trailers));
        }
        wake(&mut incoming.waker);
        Ok(())
    }
}
