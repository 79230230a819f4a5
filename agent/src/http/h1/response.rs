//! Response heads (RFC 9112 sections 4 and 6.3), read as their bytes come. It trusts a server no more than a client.

use super::facts::Facts;
use super::lines::{CRLF, Cursor, check_field, split_field};
use super::{BodyLength, Fault, HeadLimits};
use crate::http::chars::is_value;
use crate::http::{Name, ResponseHead, Version};

/// What of the request decides how its response is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestKind {
    /// HEAD: no body ever.
    Head,
    /// Every other method that is proxied.
    Other,
}

/// Reads one response head; make a new one for each, interim responses too.
#[derive(Debug)]
pub struct ResponseParser {
    limits: HeadLimits,
    kind: RequestKind,
    cursor: Cursor,
    version: Option<Version>,
    fields: usize,
    facts: Facts,
}

/// A head that is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParsedResponse {
    /// Bytes of the head.
    pub consumed: usize,
    /// Version of the message.
    pub version: Version,
    /// What follows. An interim (1xx) response has no body and another head follows, but for 101.
    pub length: BodyLength,
    /// Whether the connection may carry another request once the body has ended.
    pub persists: bool,
    /// Seconds for which the server keeps the connection at rest, where it says so.
    pub keeps: Option<u32>,
    /// Whether a 101 really names a protocol.
    pub upgrades: bool,
}

impl ResponseParser {
    /// A parser for one head.
    pub fn new(limits: HeadLimits, kind: RequestKind) -> ResponseParser {
        ResponseParser { limits, kind, cursor: Cursor::default(), version: None, fields: 0, facts: Facts::default() }
    }

    /// Reads on. `input` starts with the first byte of the head and holds all that has come; `head` is empty at the first call and the same at
    /// each. `None` while the head is not complete.
    pub fn advance(&mut self, input: &[u8], head: &mut ResponseHead) -> Result<Option<ParsedResponse>, Fault> {
        loop {
            let Some(line) = self.cursor.line(input)? else {
                let long = self.cursor.unfinished(input) > self.limits.max_field + 1;
                return if long || input.len() >= self.limits.max_bytes { Err(Fault::TooLarge) } else { Ok(None) };
            };
            if self.cursor.at > self.limits.max_bytes {
                return Err(Fault::TooLarge);
            }
            let Some(version) = self.version else {
                self.version = Some(take_status(&line[..line.len() - CRLF], head)?);
                continue;
            };
            if line.len() == CRLF {
                return self.complete(version, head.status).map(Some);
            }
            check_field(self.fields, line.len(), &self.limits)?;
            self.fields += 1;
            let line = split_field(line)?;
            if line.id != Name::Other {
                self.facts.note(line.id, line.value)?;
            }
            head.fields.push_line(&line);
        }
    }

    fn complete(&self, version: Version, status: u16) -> Result<ParsedResponse, Fault> {
        self.facts.check_version(version)?;
        let bodiless = status < 200 || status == 204 || status == 304 || self.kind == RequestKind::Head;
        if status < 200 && (self.facts.chunked || self.facts.content_length.is_some_and(|bytes| bytes > 0)) {
            return Err(Fault::Malformed("interim response with a length"));
        }
        let length = match self.facts.content_length {
            _ if bodiless => BodyLength::Empty,
            _ if self.facts.chunked => BodyLength::Chunked,
            Some(0) => BodyLength::Empty,
            Some(bytes) => BodyLength::Known(bytes),
            None => BodyLength::UntilClose,
        };
        // A 204 that announces content may send it all the same; what comes behind it cannot be trusted.
        let lying = status == 204 && (self.facts.chunked || self.facts.content_length.is_some_and(|bytes| bytes > 0));
        Ok(ParsedResponse {
            consumed: self.cursor.at,
            version,
            length,
            persists: self.facts.persists(version) && length != BodyLength::UntilClose && !lying,
            keeps: self.facts.keeps,
            upgrades: status == 101 && self.facts.upgrades(version),
        })
    }
}

fn take_status(line: &[u8], head: &mut ResponseHead) -> Result<Version, Fault> {
    const FAULT: Fault = Fault::Malformed("status line");
    let (version, rest) = match line {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1', b' ', rest @ ..] => (Version::Http11, rest),
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0', b' ', rest @ ..] => (Version::Http10, rest),
        [b'H', b'T', b'T', b'P', b'/', ..] => return Err(Fault::Version),
        _ => return Err(FAULT),
    };
    // The blank behind the status is demanded by the grammar, but many servers without a phrase leave it out.
    let (digits, phrase) = match rest {
        [a, b, c] => ([*a, *b, *c], &[][..]),
        [a, b, c, b' ', phrase @ ..] => ([*a, *b, *c], phrase),
        _ => return Err(FAULT),
    };
    if !digits.iter().all(u8::is_ascii_digit) || !is_value(phrase) {
        return Err(FAULT);
    }
    head.status = digits.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    if (100..600).contains(&head.status) { Ok(version) } else { Err(FAULT) }
}
