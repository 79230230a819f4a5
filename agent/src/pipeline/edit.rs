//! Bodies as filters change them: replaced, buffered with a limit, or piece by piece.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};

use crate::filters::BodyEdit;
use crate::http::{Body, BodyError, BodySource, Frame};

/// The body after one edit.
pub fn edited(body: Body, edit: BodyEdit) -> Body {
    match edit {
        BodyEdit::Replace(bytes) => Body::from(bytes),
        BodyEdit::Buffer { limit, edit } => {
            Body::Stream(Box::new(Buffered { body, held: BytesMut::new(), limit, edit: Some(edit), out: VecDeque::new() }))
        }
        BodyEdit::Stream(edit) => Body::Stream(Box::new(Streamed { body, edit, ended: false, trailers: None })),
    }
}

type WholeEdit = Box<dyn FnOnce(Bytes) -> Result<Bytes, BodyError>>;
type PieceEdit = Box<dyn FnMut(Option<Bytes>) -> Result<Bytes, BodyError>>;

struct Buffered {
    body: Body,
    held: BytesMut,
    limit: u64,
    edit: Option<WholeEdit>,
    out: VecDeque<Frame>,
}

impl BodySource for Buffered {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        loop {
            let Some(edit) = self.edit.take() else { return Poll::Ready(self.out.pop_front().map(Ok)) };
            match self.body.poll_frame(cx) {
                Poll::Pending => {
                    self.edit = Some(edit);
                    return Poll::Pending;
                }
                Poll::Ready(Some(Ok(Frame::Data(bytes)))) => {
                    if self.held.len() as u64 + bytes.len() as u64 > self.limit {
                        return Poll::Ready(Some(Err(BodyError::TooLarge(self.limit))));
                    }
                    self.held.extend_from_slice(&bytes);
                    self.edit = Some(edit);
                }
                Poll::Ready(Some(Ok(trailers @ Frame::Trailers(_)))) => {
                    self.out.push_back(trailers);
                    self.edit = Some(edit);
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => match edit(self.held.split().freeze()) {
                    Ok(bytes) if bytes.is_empty() => {}
                    Ok(bytes) => self.out.push_front(Frame::Data(bytes)),
                    Err(error) => return Poll::Ready(Some(Err(error))),
                },
            }
        }
    }

    fn remaining(&self) -> Option<u64> {
        None
    }
}

struct Streamed {
    body: Body,
    edit: PieceEdit,
    ended: bool,
    trailers: Option<Frame>,
}

impl BodySource for Streamed {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        loop {
            if self.ended {
                return Poll::Ready(self.trailers.take().map(Ok));
            }
            let piece = match self.body.poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(Some(Ok(Frame::Data(bytes)))) => (self.edit)(Some(bytes)),
                Poll::Ready(Some(Ok(trailers @ Frame::Trailers(_)))) => {
                    self.trailers = Some(trailers);
                    continue;
                }
                Poll::Ready(None) => {
                    self.ended = true;
                    (self.edit)(None)
                }
            };
            match piece {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => return Poll::Ready(Some(Ok(Frame::Data(bytes)))),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }

    fn remaining(&self) -> Option<u64> {
        None
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn collect(body: Body) -> Result<Bytes, BodyError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(body.collect(1 << 20))
    }

    #[test]
    fn a_buffering_edit_sees_all_content_and_refuses_more_than_its_limit() {
        let upper = || -> WholeEdit { Box::new(|bytes| Ok(Bytes::from(bytes.to_ascii_uppercase()))) };
        let body = edited(Body::from(Bytes::from_static(b"abc")), BodyEdit::Buffer { limit: 3, edit: upper() });
        assert_eq!(collect(body), Ok(Bytes::from_static(b"ABC")));
        let body = edited(Body::from(Bytes::from_static(b"abcd")), BodyEdit::Buffer { limit: 3, edit: upper() });
        assert_eq!(collect(body), Err(BodyError::TooLarge(3)));
    }

    #[test]
    fn a_streaming_edit_may_give_a_last_piece() {
        let edit: PieceEdit = Box::new(|piece| Ok(piece.unwrap_or_else(|| Bytes::from_static(b"!"))));
        let body = edited(Body::from(Bytes::from_static(b"abc")), BodyEdit::Stream(edit));
        assert_eq!(collect(body), Ok(Bytes::from_static(b"abc!")));
    }
}
