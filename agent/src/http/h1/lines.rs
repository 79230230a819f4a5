//! Lines of a head and of a trailer section: found once, split strictly. It knows no meaning of a field.

use memchr::memchr;

use super::chars::{is_value, token_len, trim};
use super::{Fault, HeadLimits};
use crate::http::{Fields, Name};

/// How far a growing buffer has been read, so that bytes are looked at once however small the pieces are in which they come.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cursor {
    /// Start of the line that is not complete yet.
    pub(super) at: usize,
    searched: usize,
}

impl Cursor {
    /// The next complete line without its CRLF.
    pub(super) fn line<'a>(&mut self, input: &'a [u8]) -> Result<Option<&'a [u8]>, Fault> {
        let Some(found) = memchr(b'\n', &input[self.searched..]) else {
            self.searched = input.len();
            return Ok(None);
        };
        let end = self.searched + found;
        let line = &input[self.at..end];
        self.at = end + 1;
        self.searched = end + 1;
        match line {
            [line @ .., b'\r'] => Ok(Some(line)),
            _ => Err(Fault::Malformed("line feed without carriage return")),
        }
    }

    /// Bytes of the line that is not complete yet.
    pub(super) fn unfinished(&self, input: &[u8]) -> usize {
        input.len() - self.at
    }
}

/// Name, known name and value of a field line.
pub(super) fn split_field(line: &[u8]) -> Result<(Name, &[u8], &[u8]), Fault> {
    let colon = token_len(line);
    if colon == 0 {
        return Err(match line.first() {
            Some(b' ' | b'\t') => Fault::Malformed("folded field"),
            _ => Fault::Malformed("empty field name"),
        });
    }
    if line.get(colon) != Some(&b':') {
        return Err(Fault::Malformed("bad byte in a field name"));
    }
    let value = trim(&line[colon + 1..]);
    if !is_value(value) {
        return Err(Fault::Malformed("control byte in a field value"));
    }
    let name = &line[..colon];
    Ok((Name::find(name), name, value))
}

/// Whether one more field of this size is allowed.
pub(super) fn check_field(fields: usize, line: usize, limits: &HeadLimits) -> Result<(), Fault> {
    if line > limits.max_field || fields >= limits.max_fields { Err(Fault::TooLarge) } else { Ok(()) }
}

/// Whether a field may stand in trailers: none that frames, routes, authenticates or steers the request (RFC 9110 section 6.5.1).
pub fn is_trailer_allowed(id: Name, name: &[u8]) -> bool {
    use Name as N;
    let forbidden = id.is_hop_by_hop()
        || matches!(
            id,
            N::Host
                | N::ContentLength
                | N::ContentType
                | N::ContentEncoding
                | N::Expect
                | N::Cookie
                | N::Authorization
                | N::Location
                | N::Origin
        )
        || matches!(
            id,
            N::XForwardedFor
                | N::XForwardedProto
                | N::XForwardedHost
                | N::XForwardedPort
                | N::XRealIp
                | N::XForwardedClientCert
                | N::Forwarded
                | N::Via
        )
        || ["content-range", "range", "set-cookie", "max-forwards", "cache-control", "age", "vary"]
            .iter()
            .any(|other| name.eq_ignore_ascii_case(other.as_bytes()));
    !forbidden
}

/// Takes a trailer line in. Framing fields are refused, others that may not stand there are dropped.
pub(super) fn take_trailer(line: &[u8], seen: usize, limits: &HeadLimits, fields: &mut Fields) -> Result<(), Fault> {
    check_field(seen, line.len(), limits)?;
    let (id, name, value) = split_field(line)?;
    if matches!(id, Name::Host | Name::ContentLength | Name::TransferEncoding) {
        return Err(Fault::Malformed("framing field in trailers"));
    }
    if is_trailer_allowed(id, name) {
        fields.push(id, name, value);
    }
    Ok(())
}
