//! What an application that has not said what it speaks has been heard to speak: HTTP, and which version of it, or something else. It knows no sockets.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use super::Version;

/// What a server begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Greeting {
    /// An answer of HTTP/1.
    Http1,
    /// The settings with which HTTP/2 begins.
    Http2,
    /// More must come.
    Perhaps,
    /// Nothing of HTTP.
    Other,
}

impl Greeting {
    /// Bytes that are enough for a judgement.
    pub const LOOK: usize = 9;

    /// What a server begins with that has said this so far.
    pub fn of(said: &[u8]) -> Greeting {
        let said = &said[..said.len().min(Greeting::LOOK)];
        let is_http1 = said.iter().zip(b"HTTP/").all(|(byte, wanted)| byte == wanted);
        // The header of a frame of settings on no stream: three octets of length, type, flags, stream (RFC 9113 sections 4.1 and 6.5).
        let is_settings = said.iter().enumerate().all(|(at, byte)| match at {
            1 | 2 => true,
            3 => *byte == 4,
            _ => *byte == 0,
        });
        let is_divisible = said.get(1..3).is_none_or(|length| u16::from_be_bytes([length[0], length[1]]).is_multiple_of(6));
        match (is_http1, is_settings && is_divisible) {
            (true, _) if said.len() >= 5 => Greeting::Http1,
            (_, true) if said.len() == Greeting::LOOK => Greeting::Http2,
            (false, false) => Greeting::Other,
            _ => Greeting::Perhaps,
        }
    }

    /// The version of HTTP that it is a beginning of.
    pub fn version(self) -> Option<Version> {
        match self {
            Greeting::Http1 => Some(Version::Http11),
            Greeting::Http2 => Some(Version::Http2),
            Greeting::Perhaps | Greeting::Other => None,
        }
    }
}

/// What has been heard at one port of an application. All workers share it.
#[derive(Debug, Default)]
pub struct Heard {
    /// It has answered bytes in HTTP that nobody had looked into.
    answers_bytes: AtomicBool,
    /// 0 while nobody knows, else 1 or 2.
    version: AtomicU8,
}

impl Heard {
    /// It has answered bytes that nobody had looked into, or nobody yet, in this version of HTTP: what comes for it is read from now on.
    pub fn answers_bytes(&self, version: Version) {
        self.speaks(Some(version));
        self.answers_bytes.store(true, Ordering::Relaxed);
    }

    /// Whether what comes for it is to be read, since it answers in HTTP.
    pub fn is_read(&self) -> bool {
        self.answers_bytes.load(Ordering::Relaxed)
    }

    /// The version of HTTP in which it has answered last.
    pub fn version(&self) -> Option<Version> {
        match self.version.load(Ordering::Relaxed) {
            0 => None,
            2 => Some(Version::Http2),
            _ => Some(Version::Http11),
        }
    }

    /// It answers requests in this version; `None` is that nobody knows any more. Whether that is news.
    pub fn speaks(&self, version: Option<Version>) -> bool {
        let number = match version {
            None => 0,
            Some(Version::Http2) => 2,
            Some(Version::Http10 | Version::Http11) => 1,
        };
        // Mostly it is the same: then nothing is written that other workers read.
        self.version.load(Ordering::Relaxed) != number && self.version.swap(number, Ordering::Relaxed) != number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_known_by_what_they_greet_with() {
        for (bytes, greeting) in [
            (&b"HTTP/1.1 400 Bad Request\r\n"[..], Greeting::Http1),
            (b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x80", Greeting::Http2),
            (b"\0\0\0\x04\0\0\0\0\0", Greeting::Http2),
            (b"", Greeting::Perhaps),
            (b"HTTP", Greeting::Perhaps),
            (b"\0\0\x12\x04\0\0", Greeting::Perhaps),
            (b"\0\0\x11\x04\0\0\0\0\0", Greeting::Other),
            (b"\0\0\x12\x04\x01\0\0\0\0", Greeting::Other),
            (b"HTTQ", Greeting::Other),
            (b"220 ready\r\n", Greeting::Other),
            (b"J\0\0\0\x0a8.0.36\0", Greeting::Other),
        ] {
            assert_eq!(Greeting::of(bytes), greeting, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn what_was_heard_is_news_once_and_can_be_forgotten() {
        let heard = Heard::default();
        assert_eq!((heard.version(), heard.is_read()), (None, false));
        assert!(heard.speaks(Some(Version::Http11)) && !heard.speaks(Some(Version::Http11)));
        assert!(!heard.is_read(), "requests were answered, and not bytes");
        heard.answers_bytes(Version::Http2);
        assert_eq!((heard.version(), heard.is_read()), (Some(Version::Http2), true));
        assert!(heard.speaks(None) && heard.version().is_none() && heard.is_read());
    }
}
