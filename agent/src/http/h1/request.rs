//! Request heads (RFC 9112 sections 2 and 3), read as their bytes come. It knows no sockets and no time.

use super::facts::Facts;
use super::lines::{CRLF, Cursor, check_field, split_field};
use super::target::take_target;
use super::{BodyLength, Fault, HeadLimits, is_authority};
use crate::http::chars::{find, is_token, is_token_byte};
use crate::http::{Method, Name, RequestHead, Version};

/// Longest method that is taken.
const MAX_METHOD: usize = 32;
/// Blank lines before a request line that are forgiven (RFC 9112 section 2.2).
const MAX_BLANK_LINES: u8 = 2;

/// Reads one request head; make a new one for each.
#[derive(Debug)]
pub struct RequestParser {
    limits: HeadLimits,
    cursor: Cursor,
    blanks: u8,
    has_line: bool,
    has_host: bool,
    fields: usize,
    expects: bool,
    facts: Facts,
}

/// A head that is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParsedRequest {
    /// Bytes of the head.
    pub consumed: usize,
    /// What follows.
    pub length: BodyLength,
    /// Whether the connection may serve another request.
    pub persists: bool,
    /// Whether the client waits for `100 Continue`.
    pub expects_continue: bool,
    /// Whether the client asks for another protocol.
    pub upgrades: bool,
}

impl RequestParser {
    /// A parser for one head.
    pub fn new(limits: HeadLimits) -> RequestParser {
        RequestParser {
            limits,
            cursor: Cursor::default(),
            blanks: 0,
            has_line: false,
            has_host: false,
            fields: 0,
            expects: false,
            facts: Facts::default(),
        }
    }

    /// Reads on. `input` starts with the first byte of the head and holds all that has come; `head` is empty at the first call and the same at
    /// each. `None` while the head is not complete.
    pub fn advance(&mut self, input: &[u8], head: &mut RequestHead) -> Result<Option<ParsedRequest>, Fault> {
        loop {
            let Some(line) = self.cursor.line(input)? else {
                return self.check_unfinished(input).map(|()| None);
            };
            if self.cursor.at > self.limits.max_bytes {
                return Err(self.too_large());
            }
            if !self.has_line {
                self.take_first(&line[..line.len() - CRLF], head)?;
            } else if line.len() == CRLF {
                return self.complete(head).map(Some);
            } else {
                self.take_field(line, head)?;
            }
        }
    }

    fn too_large(&self) -> Fault {
        if self.has_line { Fault::TooLarge } else { Fault::TargetTooLong }
    }

    /// A peer that speaks something else, or too much, is refused before its line ends.
    fn check_unfinished(&self, input: &[u8]) -> Result<(), Fault> {
        let unfinished = self.cursor.unfinished(input);
        if !self.has_line {
            match input.get(self.cursor.at) {
                Some(&byte) if byte != b'\r' && !is_token_byte(byte) => return Err(Fault::Malformed("not an HTTP request")),
                Some(_) if unfinished > self.limits.max_target + MAX_METHOD + 16 => return Err(Fault::TargetTooLong),
                _ => {}
            }
        } else if unfinished > self.limits.max_field + 1 {
            return Err(Fault::TooLarge);
        }
        if input.len() >= self.limits.max_bytes { Err(self.too_large()) } else { Ok(()) }
    }

    fn take_first(&mut self, line: &[u8], head: &mut RequestHead) -> Result<(), Fault> {
        if line.is_empty() {
            self.blanks += 1;
            return if self.blanks > MAX_BLANK_LINES { Err(Fault::Malformed("blank lines before the request")) } else { Ok(()) };
        }
        self.has_line = true;
        let split = |text: &'_ [u8]| find(b' ', text).ok_or(Fault::Malformed("request line"));
        let (method, rest) = line.split_at(split(line)?);
        let (target, version) = rest[1..].split_at(split(&rest[1..])?);
        let version = &version[1..];
        head.version = parse_version(version)?;
        head.method = match Method::known(method) {
            Some(method) => method,
            None => other_method(method)?,
        };
        if target.len() > self.limits.max_target {
            return Err(Fault::TargetTooLong);
        }
        take_target(target, self.limits.connect, head)
    }

    fn take_field(&mut self, line: &[u8], head: &mut RequestHead) -> Result<(), Fault> {
        check_field(self.fields, line.len(), &self.limits)?;
        self.fields += 1;
        let line = split_field(line)?;
        match line.id {
            Name::Other => {}
            Name::Host => return self.take_host(line.value, head),
            Name::Expect if line.value.eq_ignore_ascii_case(b"100-continue") => self.expects = true,
            Name::Expect => return Err(Fault::Expectation),
            id => self.facts.note(id, line.value)?,
        }
        head.fields.push_line(&line);
        Ok(())
    }

    fn take_host(&mut self, value: &[u8], head: &mut RequestHead) -> Result<(), Fault> {
        if self.has_host {
            return Err(Fault::Malformed("two Host fields"));
        }
        self.has_host = true;
        if !is_authority(value) {
            return Err(Fault::Malformed("Host"));
        }
        if head.method == Method::Connect {
            // The target says where to, and not all clients repeat its port here.
            return Ok(());
        }
        if !head.authority.is_empty() {
            let same = head.authority.as_bytes().eq_ignore_ascii_case(value);
            return if same { Ok(()) } else { Err(Fault::Malformed("Host differs from the request target")) };
        }
        // An authority is ASCII, as just checked, so this cannot fail.
        head.authority.push_str(std::str::from_utf8(value).map_err(|_| Fault::Malformed("Host"))?);
        head.authority.make_ascii_lowercase();
        Ok(())
    }

    fn complete(&self, head: &RequestHead) -> Result<ParsedRequest, Fault> {
        if !self.has_host && head.version == Version::Http11 {
            return Err(Fault::Malformed("no Host"));
        }
        self.facts.check_version(head.version)?;
        let length = match self.facts.content_length {
            _ if self.facts.chunked => BodyLength::Chunked,
            None | Some(0) => BodyLength::Empty,
            Some(bytes) => BodyLength::Known(bytes),
        };
        let connects = head.method == Method::Connect;
        if connects && length != BodyLength::Empty {
            return Err(Fault::Malformed("CONNECT with content"));
        }
        Ok(ParsedRequest {
            consumed: self.cursor.at,
            length,
            persists: self.facts.persists(head.version),
            expects_continue: self.expects && head.version == Version::Http11,
            upgrades: connects || self.facts.upgrades(head.version),
        })
    }
}

fn other_method(token: &[u8]) -> Result<Method, Fault> {
    if Method::is_miscased(token) {
        return Err(Fault::Malformed("a method in small letters"));
    }
    // A token is ASCII.
    match std::str::from_utf8(token) {
        Ok(text) if is_token(token) && token.len() <= MAX_METHOD => Ok(Method::from_token(text)),
        _ => Err(Fault::Malformed("method")),
    }
}

fn parse_version(text: &[u8]) -> Result<Version, Fault> {
    match text {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            Err(Fault::Version)
        }
        _ => Err(Fault::Malformed("protocol version")),
    }
}
