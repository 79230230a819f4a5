//! The body of an answer on its way to the client: messages as they come, and the trailers as a frame behind them (the gRPC-Web protocol). It holds nothing.

use std::task::{Context, Poll};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::http::{Body, BodyError, BodySource, Fields, Frame};

/// First byte of the frame that holds the trailers; messages have 0, or 1 when they are compressed.
const TRAILERS: u8 = 0x80;
/// First byte and length of a frame.
const PREFIX: usize = 5;

/// The answer as the client reads it.
pub(super) fn web(body: Body, text: bool) -> Body {
    if body.is_empty() { body } else { Body::Stream(Box::new(Web { body, text })) }
}

struct Web {
    body: Body,
    /// Each piece is base64 with its padding, so that none waits for the next one.
    text: bool,
}

impl BodySource for Web {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        self.body.poll_frame(cx).map(|polled| {
            let bytes = match polled? {
                Ok(Frame::Data(bytes)) => bytes,
                Ok(Frame::Trailers(fields)) => frame(&fields),
                Err(error) => return Some(Err(error)),
            };
            Some(Ok(Frame::Data(if self.text { Bytes::from(STANDARD.encode(&bytes)) } else { bytes })))
        })
    }

    fn remaining(&self) -> Option<u64> {
        None
    }
}

/// Trailers as a frame: fields of HTTP/1 with names in lower case.
fn frame(fields: &Fields) -> Bytes {
    let mut out = vec![TRAILERS, 0, 0, 0, 0];
    for field in fields.iter() {
        out.extend(field.name.iter().map(u8::to_ascii_lowercase));
        out.push(b':');
        out.extend_from_slice(field.value);
        out.extend_from_slice(b"\r\n");
    }
    // Trailers are bounded far below this, as all fields are.
    let length = u32::try_from(out.len() - PREFIX).unwrap_or(u32::MAX);
    out[1..PREFIX].copy_from_slice(&length.to_be_bytes());
    Bytes::from(out)
}
