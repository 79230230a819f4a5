//! Finding out what is spoken on a connection by the first bytes, from whichever side they come. No byte is changed, and nobody waits for a fixed time.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Start of an HTTP/2 connection (RFC 9113 section 3.4).
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// First byte of a TLS handshake record.
const HANDSHAKE: u8 = 22;
/// Longest request line that is waited for.
const MAX_LINE: usize = 8 * 1024;
/// Longest method.
const MAX_METHOD: usize = 24;
/// Most bytes that are read for a look.
const ROOM: usize = 4 * 1024;

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoken {
    /// HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// TLS of the application's own.
    Tls,
    /// Anything else, where the client speaks first.
    Other,
    /// Anything else, where the server speaks first.
    ServerFirst,
}

impl Spoken {
    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Spoken::Http1 => "http1",
            Spoken::Http2 => "http2",
            Spoken::Tls => "tls",
            Spoken::Other => "other",
            Spoken::ServerFirst => "server_first",
        }
    }

    /// What a client speaks that has sent this so far; `None` while more must come.
    ///
    /// A request line is read to its end before it is taken for HTTP/1: others begin lines with words too, and bytes of theirs must not be answered with
    /// an error of HTTP.
    pub fn of(input: &[u8]) -> Option<Spoken> {
        match input.first()? {
            &HANDSHAKE => return Some(Spoken::Tls),
            b'P' if input.starts_with(PREFACE) => return Some(Spoken::Http2),
            b'P' if PREFACE.starts_with(input) => return None,
            _ => {}
        }
        let method = input.iter().take_while(|byte| byte.is_ascii_uppercase() || **byte == b'-').count();
        if method == 0 || method > MAX_METHOD {
            return Some(Spoken::Other);
        }
        match input.get(method) {
            None => return None,
            Some(b' ') => {}
            Some(_) => return Some(Spoken::Other),
        }
        let line = &input[..input.len().min(MAX_LINE)];
        match line.iter().position(|byte| !(b' '..=b'~').contains(byte) && *byte != b'\r') {
            Some(end) if line[end] == b'\n' => {
                let line = line[..end].trim_ascii_end();
                let http = line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0");
                Some(if http { Spoken::Http1 } else { Spoken::Other })
            }
            Some(_) => Some(Spoken::Other),
            None => (input.len() >= MAX_LINE).then_some(Spoken::Other),
        }
    }
}

/// Who has spoken first, and what has come so far; to begin with nobody, and what the client has said already.
#[derive(Debug)]
pub struct First {
    /// What is spoken.
    pub spoken: Spoken,
    /// What the client has said, to be put back.
    pub client: BytesMut,
    /// What the server has said, to be put back.
    pub server: BytesMut,
}

impl First {
    /// Nobody has been heard but for this of the client.
    pub fn new(client: BytesMut) -> First {
        First { spoken: Spoken::Other, client, server: BytesMut::new() }
    }
}

/// Waits for the first byte of either side. Dropped before it is ready it has lost nothing: what has come is in `found`. A side that ends its direction, or fails, has nothing to say, which
/// is for the tunnel between them to find out.
pub async fn first(near: &mut (impl AsyncRead + Unpin), far: &mut (impl AsyncRead + Unpin), found: &mut First) {
    poll_fn(|cx| {
        loop {
            if let Some(spoken) = Spoken::of(&found.client) {
                found.spoken = spoken;
                return Poll::Ready(());
            }
            found.client.reserve(ROOM);
            // These futures keep no state of their own, so that dropping them when pending loses nothing.
            match Future::poll(pin!(near.read_buf(&mut found.client)), cx) {
                Poll::Ready(Ok(read)) if read > 0 => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        found.server.reserve(ROOM);
        if Future::poll(pin!(Pin::new(&mut *far).read_buf(&mut found.server)), cx).is_ready() {
            found.spoken = Spoken::ServerFirst;
            return Poll::Ready(());
        }
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[test]
    fn clients_are_known_by_what_they_say_first() {
        for (bytes, spoken) in [
            (&b"GET / HTTP/1.1\r\n"[..], Some(Spoken::Http1)),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some(Spoken::Http2)),
            (b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", Some(Spoken::Other)),
            (b"PROPFIND /x HTTP/1.0\n", Some(Spoken::Http1)),
            (b"M-SEARCH * HTTP/1.1\r\n", Some(Spoken::Http1)),
            (b"\x16\x03\x01", Some(Spoken::Tls)),
            (b"GET key\r\n", Some(Spoken::Other)),
            (b"EHLO example.com\r\n", Some(Spoken::Other)),
            (b"*1\r\n$4\r\nPING\r\n", Some(Spoken::Other)),
            (b"get key", Some(Spoken::Other)),
            (b"PING\r\n", Some(Spoken::Other)),
            (b"SSH-2.0-OpenSSH", Some(Spoken::Other)),
            (b"GET \x00", Some(Spoken::Other)),
            (b"", None),
            (b"P", None),
            (b"PRI * HT", None),
            (b"GET", None),
            (b"GET /a", None),
            (b"GET / HTTP/1.1\r", None),
        ] {
            assert_eq!(Spoken::of(bytes), spoken, "{:?}", String::from_utf8_lossy(bytes));
        }
        let long = [b"GET /".to_vec(), vec![b'a'; MAX_LINE]].concat();
        assert_eq!(Spoken::of(&long), Some(Spoken::Other));
    }

    const TEXTS: [&str; 5] = [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n....",
        "GET key\r\nHTTP/1.1\r\n",
        "POST ",
        "\x16\x03",
    ];

    fn beginnings() -> impl Strategy<Value = Vec<u8>> {
        let text = proptest::sample::select(&TEXTS[..]).prop_map(|text| text.as_bytes().to_vec());
        prop_oneof![
            text,
            "[A-Z]{0,30} [ -~]{0,60}\r?\n.*".prop_map(String::into_bytes),
            proptest::collection::vec(any::<u8>(), 0..80)
        ]
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_the_bytes_are_cut(bytes in beginnings()) {
            let mut said = None;
            for end in 0..=bytes.len() {
                let now = Spoken::of(&bytes[..end]);
                prop_assert!(said.is_none() || now == said, "{said:?} became {now:?} at {end}");
                said = now;
            }
        }

        #[test]
        fn whoever_speaks_first_decides_and_every_byte_is_kept(bytes in beginnings(), cuts in proptest::collection::vec(1usize..20, 0..8)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let (mut client, mut near) = tokio::io::duplex(1 << 16);
                let (mut far, _server) = tokio::io::duplex(64);
                let sent = bytes.clone();
                let writing = async move {
                    let mut rest = &sent[..];
                    for cut in cuts {
                        let (now, later) = rest.split_at(cut.min(rest.len()));
                        client.write_all(now).await.unwrap();
                        tokio::task::yield_now().await;
                        rest = later;
                    }
                    client.write_all(rest).await.unwrap();
                };
                let looking = async {
                    let mut found = First::new(BytesMut::new());
                    first(&mut near, &mut far, &mut found).await;
                    let mut all = found.client.to_vec();
                    near.read_to_end(&mut all).await.unwrap();
                    (found.spoken, all)
                };
                let ((), (spoken, all)) = tokio::join!(writing, looking);
                assert_eq!(all, bytes);
                assert_eq!(spoken, Spoken::of(&bytes).unwrap_or(Spoken::Other));
            });
        }
    }

    #[tokio::test]
    async fn a_server_that_greets_is_not_kept_waiting() {
        let (_client, mut near) = tokio::io::duplex(64);
        let (mut far, mut server) = tokio::io::duplex(64);
        server.write_all(b"220 ready\r\n").await.unwrap();
        let mut found = First::new(BytesMut::new());
        first(&mut near, &mut far, &mut found).await;
        assert_eq!((found.spoken, &found.server[..], found.client.len()), (Spoken::ServerFirst, &b"220 ready\r\n"[..], 0));
    }
}
