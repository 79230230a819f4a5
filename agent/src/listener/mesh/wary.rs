//! Bytes on their way to an application that has not said what it speaks, from a caller in clear or from a member's tunnel. What is taken for bytes bypasses all
//! that is done to requests, so it must not be HTTP after all: an application that answers in HTTP is found out, and nobody tells it who calls but us.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::detect::PREFACE;
use crate::exchange::Tunnel;
use crate::http::{Greeting, Heard};

/// The way to an application in which nobody looks: a wary one, where it has not said that it speaks no HTTP.
pub(in super::super) fn opaque(far: Box<dyn Tunnel>, doubt: Option<Arc<Heard>>) -> Box<dyn Tunnel> {
    match doubt {
        Some(doubt) => Box::new(Wary::new(far, doubt)),
        None => far,
    }
}

/// The field that tells an application who calls, in lower case; underscores stand for dashes.
const TELLS: &[u8] = b"x-forwarded-client-cert";

/// The way to the application.
struct Wary {
    far: Box<dyn Tunnel>,
    /// Told once the application has answered in HTTP.
    heard: Arc<Heard>,
    /// What the application has said, as long as that may be HTTP; `None` once it has said something else, and may hear everything.
    answered: Option<Vec<u8>>,
    /// How much of [`PREFACE`] all that was sent is; `None` once that was something else.
    begun: Option<usize>,
    /// How much of [`TELLS`] the end of what was sent is.
    matched: usize,
}

impl Wary {
    fn new(far: Box<dyn Tunnel>, heard: Arc<Heard>) -> Wary {
        Wary { far, heard, answered: Some(Vec::new()), begun: Some(0), matched: 0 }
    }

    /// Takes note of what the application says.
    fn hear(&mut self, said: &[u8]) -> io::Result<()> {
        let Some(answered) = &mut self.answered else { return Ok(()) };
        answered.extend_from_slice(&said[..said.len().min(Greeting::LOOK - answered.len())]);
        let greeting = Greeting::of(answered);
        if let Some(version) = greeting.version() {
            self.heard.answers_bytes(version);
            return Err(refused("the application speaks HTTP: its requests are read"));
        }
        if greeting == Greeting::Other {
            self.answered = None;
        }
        Ok(())
    }

    /// Whether what is sent tells the application who calls, or begins what may tell it in a way that cannot be seen here: HTTP/2 compresses its fields.
    fn must_not_pass(&mut self, sent: &[u8]) -> bool {
        self.begins_http2(sent) || self.tells(sent)
    }

    fn begins_http2(&mut self, sent: &[u8]) -> bool {
        let Some(before) = self.begun else { return false };
        let rest = &PREFACE[before..];
        let same = rest.iter().zip(sent).take_while(|(wanted, byte)| wanted == byte).count();
        self.begun = (same == sent.len().min(rest.len())).then_some(before + same);
        same == rest.len()
    }

    /// Whether what is sent would tell the application who calls.
    fn tells(&mut self, sent: &[u8]) -> bool {
        for byte in sent {
            let byte = if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
            // No end of the field's name is a beginning of it, but its first letter.
            self.matched = match TELLS.get(self.matched) {
                Some(wanted) if *wanted == byte => self.matched + 1,
                _ => usize::from(byte == TELLS[0]),
            };
            if self.matched == TELLS.len() {
                return true;
            }
        }
        false
    }
}

fn refused(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

impl AsyncRead for Wary {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.far).poll_read(cx, buf))?;
        let heard = self.hear(&buf.filled()[before..]);
        if heard.is_err() {
            buf.set_filled(before);
        }
        Poll::Ready(heard)
    }
}

impl AsyncWrite for Wary {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.answered.is_none() {
            return Pin::new(&mut self.far).poll_write(cx, buf);
        }
        let before = (self.begun, self.matched);
        if self.must_not_pass(buf) {
            return Poll::Ready(Err(refused(
                "bytes say who calls, and nobody knows yet whether the application would believe it",
            )));
        }
        let after = (self.begun, self.matched);
        (self.begun, self.matched) = before;
        let written = ready!(Pin::new(&mut self.far).poll_write(cx, buf))?;
        if written == buf.len() {
            (self.begun, self.matched) = after;
        } else {
            // What was not taken comes again.
            self.must_not_pass(&buf[..written]);
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.far).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.far).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn wary() -> (Wary, tokio::io::DuplexStream, Arc<Heard>) {
        let (near, far) = tokio::io::duplex(1 << 16);
        let flag = Arc::<Heard>::default();
        (Wary::new(Box::new(near), flag.clone()), far, flag)
    }

    #[tokio::test]
    async fn an_application_that_answers_in_http_is_found_out_before_its_answer_arrives() {
        let (mut way, mut application, flag) = wary();
        way.write_all(b"get / HTTP/1.1\r\n\r\n").await.unwrap();
        application.write_all(b"HT").await.unwrap();
        let mut got = [0; 64];
        assert_eq!(way.read(&mut got).await.unwrap(), 2);
        assert!(!flag.is_read());
        application.write_all(b"TP/1.1 200 OK\r\n").await.unwrap();
        assert_eq!(way.read(&mut got).await.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert!(flag.is_read());
    }

    #[tokio::test]
    async fn an_application_that_answers_otherwise_hears_everything() {
        let (mut way, mut application, flag) = wary();
        application.write_all(b"HTTQ").await.unwrap();
        let mut got = [0; 64];
        assert_eq!(way.read(&mut got).await.unwrap(), 4);
        way.write_all(b"X-Forwarded-Client-Cert: is only a text here").await.unwrap();
        application.write_all(b"HTTP/ is too").await.unwrap();
        assert_eq!(way.read(&mut got).await.unwrap(), 12);
        assert!(!flag.is_read());
    }

    #[tokio::test]
    async fn an_application_that_begins_http2_is_found_out() {
        let (mut way, mut application, flag) = wary();
        application.write_all(b"\0\0\x06\x04").await.unwrap();
        let mut got = [0; 64];
        assert_eq!(way.read(&mut got).await.unwrap(), 4);
        application.write_all(b"\0\0\0\0\0\0\x03\0\0\0\x80").await.unwrap();
        assert_eq!(way.read(&mut got).await.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert!(flag.is_read());
    }

    proptest! {
        #[test]
        fn nobody_begins_http2_to_an_application_that_has_not_spoken(cut in 1usize..30, more in proptest::collection::vec(any::<u8>(), 0..9)) {
            let (mut way, _application, flag) = wary();
            let all = [&PREFACE[..], &more].concat();
            let found = all.chunks(cut).position(|piece| way.must_not_pass(piece));
            prop_assert_eq!(found, Some((PREFACE.len() - 1) / cut), "before the last of it has gone");
            prop_assert!(!flag.is_read(), "what a caller says proves nothing of the application");
            let (mut way, _application, _) = wary();
            let other = [&b"x"[..], &PREFACE[..]].concat();
            prop_assert!(!other.chunks(cut).any(|piece| way.must_not_pass(piece)));
        }

        #[test]
        fn the_field_is_found_however_it_is_spelled_and_cut(
            upper in proptest::collection::vec(any::<bool>(), TELLS.len()), lines in any::<bool>(), before in "[ -~]{0,30}", cut in 1usize..9
        ) {
            let spelled: String = TELLS.iter().zip(upper).map(|(byte, upper)| match byte {
                b'-' if lines => '_',
                byte if upper => byte.to_ascii_uppercase() as char,
                byte => *byte as char,
            }).collect();
            let (mut way, _application, _) = wary();
            let text = format!("{before}{spelled}: By=evil");
            let found = text.as_bytes().chunks(cut).any(|piece| way.tells(piece));
            prop_assert!(found, "{text}");
            let (mut way, _application, _) = wary();
            let cut_off = format!("{before}{}", &spelled[1..]);
            let is_whole = before.to_ascii_lowercase().ends_with('x');
            prop_assert_eq!(way.tells(cut_off.as_bytes()), is_whole);
        }
    }
}
