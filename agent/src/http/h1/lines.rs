//! Lines of a head and of a trailer section: found once, split strictly. It knows no meaning of a field.

use memchr::memchr;

use super::{Fault, HeadLimits};
use crate::http::chars::{find, is_token, is_value, trim};
use crate::http::fields::Line;
use crate::http::{Fields, Name};

/// How far a growing buffer has been read, so that bytes are looked at once however small the pieces are in which they come.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cursor {
    /// Start of the line that is not complete yet.
    pub(super) at: usize,
    searched: usize,
}

impl Cursor {
    /// The next complete line with its CRLF.
    pub(super) fn line<'a>(&mut self, input: &'a [u8]) -> Result<Option<&'a [u8]>, Fault> {
        let Some(found) = memchr(b'\n', &input[self.searched..]) else {
            self.searched = input.len();
            return Ok(None);
        };
        let end = self.searched + found;
        let line = &input[self.at..=end];
        self.at = end + 1;
        self.searched = end + 1;
        match line {
            [.., b'\r', b'\n'] => Ok(Some(line)),
            _ => Err(Fault::Malformed("line feed without carriage return")),
        }
    }

    /// Bytes of the line that is not complete yet.
    pub(super) fn unfinished(&self, input: &[u8]) -> usize {
        input.len() - self.at
    }
}

/// Length of a line's end.
pub(super) const CRLF: usize = 2;

/// Finds and checks the parts of a field line, given with its CRLF.
pub(super) fn split_field(line: &[u8]) -> Result<Line<'_>, Fault> {
    let text = &line[..line.len() - CRLF];
    let Some(colon) = find(b':', text) else { return Err(Fault::Malformed(why_no_name(text))) };
    let name = &text[..colon];
    let id = Name::find(name);
    // A known name is a token.
    if id == Name::Other && !is_token(name) {
        return Err(Fault::Malformed(why_no_name(text)));
    }
    let after = &text[colon + 1..];
    let value = trim(after);
    if !is_value(value) {
        return Err(Fault::Malformed("control byte in a field value"));
    }
    let plain = (after.first() == Some(&b' ') && after.len() == value.len() + 1).then_some(line);
    Ok(Line { id, underscored: id == Name::Other && name.contains(&b'_'), name, value, plain })
}

fn why_no_name(text: &[u8]) -> &'static str {
    match text.first() {
        Some(b' ' | b'\t') => "folded field",
        None | Some(b':') => "empty field name",
        _ => "bad byte in a field name",
    }
}

/// Whether one more field of this size, its CRLF among it, is allowed.
pub(super) fn check_field(fields: usize, line: usize, limits: &HeadLimits) -> Result<(), Fault> {
    if line > CRLF + limits.max_field || fields >= limits.max_fields { Err(Fault::TooLarge) } else { Ok(()) }
}

/// Whether a field may stand in trailers: none that frames, routes, authenticates or steers the request (RFC 9110 section 6.5.1).
pub fn is_trailer_allowed(id: Name, name: &[u8]) -> bool {
    use Name as N;
    if name.contains(&b'_') {
        // Many applications read both alike.
        let dashed: Vec<u8> = name.iter().map(|byte| if *byte == b'_' { b'-' } else { *byte }).collect();
        return is_trailer_allowed(N::find(&dashed), &dashed);
    }
    let forbidden = id.is_hop_by_hop()
        || matches!(
            id,
            N::Host
                | N::ContentLength
                | N::ContentType
                | N::ContentEncoding
                | N::Expect
                | N::Trailer
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

/// Takes a trailer line in, given with its CRLF. Framing fields are refused, others that may not stand there are dropped.
pub(super) fn take_trailer(line: &[u8], seen: usize, limits: &HeadLimits, fields: &mut Fields) -> Result<(), Fault> {
    check_field(seen, line.len(), limits)?;
    let line = split_field(line)?;
    if matches!(line.id, Name::Host | Name::ContentLength | Name::TransferEncoding) {
        return Err(Fault::Malformed("framing field in trailers"));
    }
    if is_trailer_allowed(line.id, line.name) {
        fields.push_line(&line);
    }
    Ok(())
}
