//! Message bodies: nothing, bytes at hand, or a stream that is pulled.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::{Fields, Name};

/// A piece of a body.
#[derive(Debug)]
pub enum Frame {
    /// Content, never empty.
    Data(Bytes),
    /// Trailer fields; the last frame. Boxed, because they are rare and every piece of content would be as large as they are.
    Trailers(Box<Fields>),
}

/// Whether who sends these fields of a request reads trailers of the answer (RFC 9110 section 6.5.1).
pub fn takes_trailers(fields: &Fields) -> bool {
    let named = |value: &[u8]| value.split(|byte| *byte == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(b"trailers"));
    fields.contains_known(Name::Te) && fields.get_all_known(Name::Te).any(named)
}

/// Why a body ended before its end.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum BodyError {
    /// The sender went away or reset the stream.
    #[error("the sender ended the body early")]
    Aborted,
    /// Framing is wrong (bad chunk size, bytes behind the end …).
    #[error("malformed body: {0}")]
    Malformed(&'static str),
    /// No progress for too long.
    #[error("the body made no progress in time")]
    Timeout,
    /// Longer than a limit allows.
    #[error("the body is longer than {0} bytes")]
    TooLarge(u64),
    /// No authorization policy allows any more what goes on.
    #[error("authorization policies no longer allow this")]
    Refused,
    /// Of a response body: the request body failed while both were under way, so the endpoint is not to blame.
    #[error("the request broke off: {0}")]
    Request(Box<BodyError>),
}

/// A body that is pulled. Dropping it before the end aborts its sender.
pub trait BodySource {
    /// The next frame; `None` after the last one. Pulling is what makes the sender go on, so memory stays bounded.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>>;
    /// Bytes still to come when that is known.
    fn remaining(&self) -> Option<u64>;
}

/// A message body.
#[derive(Default)]
pub enum Body {
    /// No content.
    #[default]
    Empty,
    /// All content at hand, not empty.
    Full(Bytes),
    /// Content that is pulled.
    Stream(Box<dyn BodySource>),
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Body::Empty => f.write_str("Empty"),
            Body::Full(bytes) => write!(f, "Full({} bytes)", bytes.len()),
            Body::Stream(source) => write!(f, "Stream({:?} bytes)", source.remaining()),
        }
    }
}

impl Body {
    /// Bytes still to come when that is known.
    pub fn remaining(&self) -> Option<u64> {
        match self {
            Body::Empty => Some(0),
            Body::Full(bytes) => Some(bytes.len() as u64),
            Body::Stream(source) => source.remaining(),
        }
    }

    /// Whether nothing will come.
    pub fn is_empty(&self) -> bool {
        matches!(self, Body::Empty)
    }

    /// The next frame; `None` after the last one.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        match self {
            Body::Empty => Poll::Ready(None),
            Body::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Body::Empty;
                Poll::Ready(Some(Ok(Frame::Data(bytes))))
            }
            Body::Stream(source) => source.poll_frame(cx),
        }
    }

    /// The next frame; `None` after the last one.
    pub async fn frame(&mut self) -> Option<Result<Frame, BodyError>> {
        std::future::poll_fn(|cx| self.poll_frame(cx)).await
    }

    /// Reads on until `limit` bytes of content are there, or all of it: those bytes, and the whole body with what was read of it.
    pub async fn beginning(mut self, limit: u64) -> Result<Beginning, BodyError> {
        let (mut read, mut trailers, mut ended) = (Vec::new(), None, self.is_empty());
        while !ended && (read.len() as u64) < limit {
            match self.frame().await.transpose()? {
                Some(Frame::Data(bytes)) => read.extend_from_slice(&bytes),
                Some(last @ Frame::Trailers(_)) => trailers = Some(last),
                None => ended = true,
            }
        }
        let (read, most) = (Bytes::from(read), usize::try_from(limit).unwrap_or(usize::MAX));
        let told = read.slice(..read.len().min(most));
        let partial = read.len() > most || (!ended && trailers.is_none() && self.remaining() != Some(0));
        if ended && trailers.is_none() {
            return Ok(Beginning { told, partial, body: Body::from(read) });
        }
        let frames = [(!read.is_empty()).then_some(Frame::Data(read)), trailers].into_iter().flatten().collect();
        Ok(Beginning { told, partial, body: Body::Stream(Box::new(Held { frames, rest: self })) })
    }

    /// Reads all content, at most `limit` bytes. Trailers are dropped.
    pub async fn collect(self, limit: u64) -> Result<Bytes, BodyError> {
        self.collect_whole(limit).await.map(|(content, _)| content)
    }

    /// Reads all content, at most `limit` bytes, and the trailers.
    pub async fn collect_whole(mut self, limit: u64) -> Result<(Bytes, Option<Box<Fields>>), BodyError> {
        let (mut all, mut trailers) = (Vec::new(), None);
        while let Some(frame) = self.frame().await {
            let bytes = match frame? {
                Frame::Data(bytes) => bytes,
                Frame::Trailers(fields) => {
                    trailers = Some(fields);
                    continue;
                }
            };
            if all.len() as u64 + bytes.len() as u64 > limit {
                return Err(BodyError::TooLarge(limit));
            }
            if all.is_empty() && self.is_empty() {
                return Ok((bytes, trailers));
            }
            all.extend_from_slice(&bytes);
        }
        Ok((Bytes::from(all), trailers))
    }
}

/// The beginning of a body, and all of it.
#[derive(Debug)]
pub struct Beginning {
    /// Its first bytes.
    pub told: Bytes,
    /// There may be more.
    pub partial: bool,
    /// The whole body.
    pub body: Body,
}

/// A body of which something was read already.
struct Held {
    frames: VecDeque<Frame>,
    rest: Body,
}

impl BodySource for Held {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        match self.frames.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => self.rest.poll_frame(cx),
        }
    }

    fn remaining(&self) -> Option<u64> {
        let held = |frame: &Frame| if let Frame::Data(bytes) = frame { bytes.len() as u64 } else { 0 };
        self.rest.remaining().map(|rest| rest + self.frames.iter().map(held).sum::<u64>())
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Body {
        if bytes.is_empty() { Body::Empty } else { Body::Full(bytes) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    struct Frames(VecDeque<Frame>);

    impl BodySource for Frames {
        fn poll_frame(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
            Poll::Ready(self.0.pop_front().map(Ok))
        }

        fn remaining(&self) -> Option<u64> {
            None
        }
    }

    fn pieces(texts: &[&'static str], trailers: bool) -> Body {
        let data = texts.iter().map(|text| Frame::Data(Bytes::from_static(text.as_bytes())));
        let mut fields = Fields::new();
        fields.append("x-last", "1");
        let trailers = trailers.then(|| Frame::Trailers(Box::new(fields)));
        Body::Stream(Box::new(Frames(data.chain(trailers).collect())))
    }

    #[tokio::test]
    async fn the_beginning_is_told_and_all_of_it_goes_on() {
        for (texts, trailers, limit, told, partial) in [
            (&["abc", "def"][..], false, 10, "abcdef", false),
            (&["abc", "def"], true, 10, "abcdef", false),
            (&["abc", "def"], false, 4, "abcd", true),
            (&["abc", "def", "ghi"], true, 3, "abc", true),
            (&[], true, 3, "", false),
            (&[], false, 3, "", false),
        ] {
            let beginning = pieces(texts, trailers).beginning(limit).await.unwrap();
            assert_eq!((&*beginning.told, beginning.partial), (told.as_bytes(), partial), "{texts:?} {limit}");
            let (all, last) = beginning.body.collect_whole(100).await.unwrap();
            assert_eq!((&*all, last.is_some()), (texts.concat().as_bytes(), trailers), "{texts:?} {limit}");
        }
        let known = Body::from(Bytes::from_static(b"abc")).beginning(3).await.unwrap();
        assert_eq!((known.partial, known.body.remaining()), (false, Some(3)), "nothing is missing where the length is known");
        assert!(Body::Empty.beginning(3).await.unwrap().body.is_empty());
    }
}
