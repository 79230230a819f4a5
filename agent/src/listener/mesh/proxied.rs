//! Whether the first request of a connection to the proxy asks for a tunnel, and to whom. It knows no services, and answers nothing.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::http::h1::{BodyLength, HeadLimits, RequestParser};
use crate::http::{Method, RequestHead};

/// How a tunnel is asked for.
const ASKED: &[u8] = b"CONNECT ";
/// Most bytes of one read.
const ROOM: usize = 4 * 1024;

/// A CONNECT that has come whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Connect {
    /// Whom it names.
    pub(super) authority: String,
    /// Its length: what follows is for the tunnel.
    pub(super) length: usize,
}

/// Reads until it is known whether `input` begins with a CONNECT. What is anything else, or not well formed, is for the codec to judge, which gets all of it.
pub(super) async fn connect(
    stream: &mut (impl AsyncRead + Unpin),
    input: &mut BytesMut,
    limits: HeadLimits,
) -> io::Result<Option<Connect>> {
    let mut parser = RequestParser::new(HeadLimits { connect: true, ..limits });
    let mut head = RequestHead::default();
    loop {
        input.reserve(ROOM);
        if stream.read_buf(input).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let begun = input.len().min(ASKED.len());
        if input[..begun] != ASKED[..begun] {
            return Ok(None);
        }
        if begun < ASKED.len() {
            continue;
        }
        match parser.advance(input, &mut head) {
            Ok(None) => {}
            Ok(Some(parsed)) if head.method == Method::Connect && parsed.length == BodyLength::Empty => {
                return Ok(Some(Connect { authority: head.authority, length: parsed.consumed }));
            }
            Ok(Some(_)) | Err(_) => return Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use heddle_xds::model::EdgeLimits;
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// What is found in these bytes, which come in pieces of this length, and what was read of them.
    async fn found(bytes: &str, piece: usize) -> (Option<Connect>, BytesMut) {
        let (mut client, mut near) = tokio::io::duplex(piece);
        let (mut input, bytes) = (BytesMut::new(), bytes.to_owned());
        let writing = async move {
            // Who is not listened to any more is cut off.
            let _ = client.write_all(bytes.as_bytes()).await;
        };
        let reading = async {
            let asked = connect(&mut near, &mut input, HeadLimits::edge(&EdgeLimits::default())).await.unwrap();
            drop(near);
            asked
        };
        let ((), asked) = tokio::join!(writing, reading);
        (asked, input)
    }

    #[tokio::test]
    async fn tunnels_are_told_from_requests_however_they_are_cut() {
        let head = "CONNECT api.shop:80 HTTP/1.1\r\nHost: api.shop:80\r\n\r\n";
        for piece in [1, 7, 1000] {
            let (asked, input) = found(&format!("{head}PRI * HTTP/2.0"), piece).await;
            let expected = Connect { authority: "api.shop:80".to_owned(), length: head.len() };
            assert_eq!(asked, Some(expected), "{piece}");
            assert!(input.starts_with(head.as_bytes()));
            for other in [
                "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
                "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                "CONNECTED / HTTP/1.1\r\n\r\n",
                "CONNECT api.shop HTTP/1.1\r\nHost: a\r\n\r\n",
                "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 3\r\n\r\nabc",
            ] {
                let (asked, input) = found(other, piece).await;
                assert_eq!(asked, None, "{other:?}");
                assert!(other.as_bytes().starts_with(&input), "nothing is lost of {other:?}");
            }
        }
    }
}
