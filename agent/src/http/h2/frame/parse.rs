//! Payloads, each checked for the size, the stream and the values that it may have (RFC 9113 section 6). It knows no stream states.

use super::header::{FrameHeader, Kind, MAX_STREAM, flags};
use super::{ErrorCode, Violation};

/// Octets of a priority (section 6.3).
const PRIORITY_LEN: usize = 5;

/// One frame, seen where its payload lies. Stream numbers are not 0 where a frame belongs to a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// Content.
    Data {
        /// Its stream.
        stream: u32,
        /// Whether it is the last.
        end_stream: bool,
        /// Content without padding; a part of the payload.
        data: &'a [u8],
        /// Octets that count against the windows: content, padding and the length of the padding (section 6.9.1).
        flow: u32,
    },
    /// A field block, or the beginning of one.
    Headers {
        /// Its stream.
        stream: u32,
        /// Whether no content follows.
        end_stream: bool,
        /// Whether the block is complete.
        end_headers: bool,
        /// The block, or its first part.
        fragment: &'a [u8],
    },
    /// A priority, which says nothing any more (section 5.3.2).
    Priority,
    /// A stream is ended early.
    Reset {
        /// Which.
        stream: u32,
        /// Why.
        code: ErrorCode,
    },
    /// Settings, whole: what [`super::Settings::apply`] takes in.
    Settings(&'a [u8]),
    /// Our settings were taken in.
    SettingsAck,
    /// A question for a sign of life, or the answer.
    Ping {
        /// Whether it is the answer.
        ack: bool,
        /// What is to be sent back, or came back.
        opaque: [u8; 8],
    },
    /// The sender takes no streams beyond `last`.
    GoAway {
        /// The last stream that the sender may have looked at.
        last: u32,
        /// Why.
        code: ErrorCode,
        /// For people.
        debug: &'a [u8],
    },
    /// A window opens.
    WindowUpdate {
        /// The stream, 0 for the connection.
        stream: u32,
        /// By how much, not 0.
        increment: u32,
    },
    /// A field block goes on.
    Continuation {
        /// Its stream.
        stream: u32,
        /// Whether the block is complete.
        end_headers: bool,
        /// The next part.
        fragment: &'a [u8],
    },
    /// A frame that nobody has to know (section 5.5).
    Unknown,
}

impl<'a> Frame<'a> {
    /// Reads the payload that follows `header`, which is as long as that says.
    pub fn parse(header: FrameHeader, payload: &'a [u8]) -> Result<Frame<'a>, Violation> {
        debug_assert_eq!(header.length as usize, payload.len());
        let Some(kind) = Kind::find(header.kind) else { return Ok(Frame::Unknown) };
        check_place(kind, header.stream)?;
        let (stream, end_stream) = (header.stream, header.has(flags::END_STREAM));
        let end_headers = header.has(flags::END_HEADERS);
        Ok(match kind {
            Kind::Data => Frame::Data { stream, end_stream, data: unpad(header, payload)?, flow: header.length },
            Kind::Headers => Frame::Headers { stream, end_stream, end_headers, fragment: block(header, payload)? },
            Kind::Priority if payload.len() != PRIORITY_LEN => {
                return Err(Violation::stream(stream, ErrorCode::FRAME_SIZE_ERROR, "PRIORITY is not five octets long"));
            }
            Kind::Priority => Frame::Priority,
            Kind::Reset => Frame::Reset { stream, code: ErrorCode(whole(payload, "RST_STREAM is not four octets long")?) },
            Kind::Settings => settings(header, payload)?,
            Kind::PushPromise => return Err(Violation::protocol("PUSH_PROMISE, which is switched off")),
            Kind::Ping => match payload.try_into() {
                Ok(opaque) => Frame::Ping { ack: header.has(flags::ACK), opaque },
                Err(_) => return Err(Violation::size("PING is not eight octets long")),
            },
            Kind::GoAway => goaway(payload)?,
            Kind::WindowUpdate => window_update(stream, payload)?,
            Kind::Continuation => Frame::Continuation { stream, end_headers, fragment: payload },
        })
    }
}

/// Refuses frames of a stream on the connection and the other way round.
fn check_place(kind: Kind, stream: u32) -> Result<(), Violation> {
    match kind {
        Kind::WindowUpdate => Ok(()),
        Kind::Settings | Kind::Ping | Kind::GoAway if stream != 0 => {
            Err(Violation::protocol("a frame of the connection came on a stream"))
        }
        Kind::Settings | Kind::Ping | Kind::GoAway => Ok(()),
        _ if stream == 0 => Err(Violation::protocol("a frame of a stream came on the connection")),
        _ => Ok(()),
    }
}

/// The payload without padding (section 6.1).
fn unpad(header: FrameHeader, payload: &[u8]) -> Result<&[u8], Violation> {
    if !header.has(flags::PADDED) {
        return Ok(payload);
    }
    let Some((&padding, rest)) = payload.split_first() else {
        return Err(Violation::size("a padded frame without the length of its padding"));
    };
    match rest.len().checked_sub(usize::from(padding)) {
        Some(content) => Ok(&rest[..content]),
        None => Err(Violation::protocol("the padding is longer than its frame")),
    }
}

/// The field block of HEADERS without padding and priority (section 6.2).
fn block(header: FrameHeader, payload: &[u8]) -> Result<&[u8], Violation> {
    let content = unpad(header, payload)?;
    if !header.has(flags::PRIORITY) {
        return Ok(content);
    }
    content.get(PRIORITY_LEN..).ok_or(Violation::size("HEADERS is shorter than its priority"))
}

fn settings(header: FrameHeader, payload: &[u8]) -> Result<Frame<'_>, Violation> {
    match (header.has(flags::ACK), payload.len()) {
        (true, 0) => Ok(Frame::SettingsAck),
        (true, _) => Err(Violation::size("an acknowledgement of settings with content")),
        (false, len) if len % super::settings::ENTRY_LEN != 0 => Err(Violation::size("SETTINGS is not a multiple of six octets")),
        (false, _) => Ok(Frame::Settings(payload)),
    }
}

fn goaway(payload: &[u8]) -> Result<Frame<'_>, Violation> {
    let [a, b, c, d, e, f, g, h, debug @ ..] = payload else {
        return Err(Violation::size("GOAWAY is shorter than eight octets"));
    };
    Ok(Frame::GoAway {
        last: u32::from_be_bytes([*a, *b, *c, *d]) & MAX_STREAM,
        code: ErrorCode(u32::from_be_bytes([*e, *f, *g, *h])),
        debug,
    })
}

fn window_update(stream: u32, payload: &[u8]) -> Result<Frame<'static>, Violation> {
    let increment = whole(payload, "WINDOW_UPDATE is not four octets long")? & MAX_STREAM;
    match (increment, stream) {
        (0, 0) => Err(Violation::protocol("the window of the connection opens by nothing")),
        (0, _) => Err(Violation::stream(stream, ErrorCode::PROTOCOL_ERROR, "the window of a stream opens by nothing")),
        _ => Ok(Frame::WindowUpdate { stream, increment }),
    }
}

/// A payload that is one number.
fn whole(payload: &[u8], detail: &'static str) -> Result<u32, Violation> {
    payload.try_into().map(u32::from_be_bytes).map_err(|_| Violation::size(detail))
}
