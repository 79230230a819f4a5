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
    /// It has hung up on a request in HTTP/1 without a byte, and answered none since.
    hung_up: AtomicBool,
    /// It did not go on in HTTP/2 when that was tried last.
    not_http2: AtomicBool,
    /// It has answered a request of gRPC.
    grpc: AtomicBool,
}

impl Heard {
    /// It has answered bytes that nobody had looked into, or nobody yet, in this version of HTTP: what comes for it is read from now on.
    pub fn answers_bytes(&self, version: Version) {
        self.speaks(version);
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

    /// It answers requests in this version. Whether that is news.
    pub fn speaks(&self, version: Version) -> bool {
        let number = match version {
            Version::Http2 => 2,
            Version::Http10 | Version::Http11 => 1,
        };
        match version {
            Version::Http2 => clear(&self.not_http2),
            Version::Http10 | Version::Http11 => self.stays(),
        }
        // Mostly it is the same: then nothing is written that other workers read.
        self.version.load(Ordering::Relaxed) != number && self.version.swap(number, Ordering::Relaxed) != number
    }

    /// It has hung up on a request in HTTP/1 without a byte. Whether that makes it doubtful that it speaks HTTP/1: the first time after an answer it does not.
    pub fn hangs_up(&self) -> bool {
        self.hung_up.swap(true, Ordering::Relaxed) || self.version() != Some(Version::Http11)
    }

    /// Whether it has hung up so, and answered nothing since.
    pub fn is_doubtful(&self) -> bool {
        self.hung_up.load(Ordering::Relaxed)
    }

    /// What it was doubted for was nothing.
    pub fn stays(&self) {
        clear(&self.hung_up);
    }

    /// It does not speak HTTP/2, or not any more.
    pub fn lacks_http2(&self) {
        self.not_http2.store(true, Ordering::Relaxed);
        // What another request has found out in the meantime stays.
        let _ = self.version.compare_exchange(2, 0, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// It answers requests of gRPC, which says nothing of others: these may be for another server behind the same port. Whether that is news.
    pub fn answers_grpc(&self) -> bool {
        !self.grpc.load(Ordering::Relaxed) && !self.grpc.swap(true, Ordering::Relaxed)
    }

    /// Whether HTTP/2 was tried there last without success.
    pub fn is_without_http2(&self) -> bool {
        self.not_http2.load(Ordering::Relaxed)
    }
}

/// Takes a mark off that is mostly not there: then nothing is written that other workers read.
fn clear(mark: &AtomicBool) {
    if mark.load(Ordering::Relaxed) {
        mark.store(false, Ordering::Relaxed);
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
        assert!(heard.speaks(Version::Http11) && !heard.speaks(Version::Http11));
        assert!(!heard.is_read(), "requests were answered, and not bytes");
        heard.answers_bytes(Version::Http2);
        assert_eq!((heard.version(), heard.is_read()), (Some(Version::Http2), true));
        assert!(!heard.is_without_http2());
        heard.lacks_http2();
        assert!(heard.version().is_none() && heard.is_without_http2() && heard.is_read());
        assert!(heard.speaks(Version::Http11));
        heard.lacks_http2();
        assert_eq!(heard.version(), Some(Version::Http11), "that was not doubted");
        assert!(heard.speaks(Version::Http2) && !heard.is_without_http2());
        assert!(heard.answers_grpc() && !heard.answers_grpc());
    }

    #[test]
    fn who_hangs_up_once_is_not_doubted_that_has_answered() {
        let heard = Heard::default();
        assert!(heard.hangs_up(), "it has never answered");
        heard.speaks(Version::Http11);
        assert!(!heard.is_doubtful() && !heard.hangs_up() && heard.hangs_up());
        heard.stays();
        assert!(!heard.hangs_up() && heard.is_doubtful());
    }
}
