//! Normalisation of request paths, so that what is matched is what is forwarded. It knows no routes.

#[cfg(test)]
mod tests;

use heddle_xds::model::{PathPolicy, is_path_byte};

use super::Reason;

/// Normalises a path once, by RFC 3986 section 6.2.2 and what attackers taught us:
///
/// - `%XX` of unreserved characters is decoded, all others get upper-case digits; a broken one is refused, so are encoded and plain control bytes;
/// - `%2F` and `%5C` are refused or kept, as the policy says; a plain backslash is refused;
/// - `.` and `..` segments are removed, climbing above the root is refused;
/// - `//` becomes `/` where the policy says so;
/// - `;` and what follows is kept, but a dot segment with parameters (`..;x`) is refused, because servers disagree about it;
/// - what has no place in a path is percent-encoded: bytes beyond ASCII, `"`, `<`, `>`, `^`, a backtick, `{`, `|`, `}`.
///
/// `None` means that the path is normal already. The result is normal: normalising it again changes nothing.
///
/// # Errors
/// `Reason::BadPath` when the path cannot be normalised safely.
pub fn normalise(raw: &str, policy: &PathPolicy) -> Result<Option<String>, Reason> {
    if raw == "*" {
        return Ok(None);
    }
    if !raw.starts_with('/') {
        return Err(Reason::BadPath);
    }
    if is_normal(raw.as_bytes(), policy) {
        return Ok(None);
    }
    let mut out = Builder { out: String::with_capacity(raw.len()), segment: 0, merge: policy.merge_slashes };
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'/' => out.slash()?,
            b'%' => out.encoded(decode(bytes.next(), bytes.next())?, policy)?,
            0..=0x20 | 0x7f | b'\\' | b'#' | b'?' => return Err(Reason::BadPath),
            byte if is_path_byte(byte) => out.out.push(char::from(byte)),
            byte => out.percent(byte),
        }
    }
    out.finish_segment()?;
    Ok(Some(out.out))
}

/// One look at each byte: nothing encoded, nothing forbidden, no empty and no dot segment.
fn is_normal(path: &[u8], policy: &PathPolicy) -> bool {
    let mut before = 0;
    for &byte in path {
        match byte {
            byte if !IS_NORMAL[usize::from(byte)] => return false,
            b'.' if before == b'/' => return false,
            b'/' if before == b'/' && policy.merge_slashes => return false,
            _ => before = byte,
        }
    }
    true
}

/// The bytes that are normal wherever they stand, and `/` and `.`, of which it depends on what stands before.
const IS_NORMAL: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = is_path_byte(byte as u8) && !matches!(byte as u8, b'%' | b'\\' | b'#' | b'?');
        byte += 1;
    }
    table
};

fn decode(high: Option<u8>, low: Option<u8>) -> Result<u8, Reason> {
    let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16)).ok_or(Reason::BadPath);
    // Two hexadecimal digits fit a byte.
    Ok((digit(high)? * 16 + digit(low)?) as u8)
}

struct Builder {
    out: String,
    /// Where the segment under way starts in `out`.
    segment: usize,
    merge: bool,
}

impl Builder {
    fn encoded(&mut self, byte: u8, policy: &PathPolicy) -> Result<(), Reason> {
        match byte {
            0..0x20 | 0x7f => return Err(Reason::BadPath),
            b'/' | b'\\' if policy.reject_encoded_slashes => return Err(Reason::BadPath),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => self.out.push(char::from(byte)),
            _ => self.percent(byte),
        }
        Ok(())
    }

    fn percent(&mut self, byte: u8) {
        const HEX: &[u8; 16] = b"0123456789ABCDEF";
        self.out.push('%');
        self.out.push(char::from(HEX[usize::from(byte >> 4)]));
        self.out.push(char::from(HEX[usize::from(byte & 15)]));
    }

    fn slash(&mut self) -> Result<(), Reason> {
        let removed = self.finish_segment()?;
        let empty = self.out.len() == self.segment;
        if self.out.is_empty() || !(removed || empty && self.merge) {
            self.out.push('/');
            self.segment = self.out.len();
        }
        Ok(())
    }

    /// Removes the segment under way when it is a dot segment (RFC 3986 section 5.2.4), and says so.
    fn finish_segment(&mut self) -> Result<bool, Reason> {
        let segment = &self.out[self.segment..];
        match segment {
            "." => {}
            ".." => {
                // `out` starts with `/`; the segment before ends with one too.
                let parent = self.out[..self.segment - 1].rfind('/').ok_or(Reason::BadPath)?;
                self.segment = parent + 1;
            }
            _ if has_dotted_parameters(segment) => return Err(Reason::BadPath),
            _ => return Ok(false),
        }
        self.out.truncate(self.segment);
        Ok(true)
    }
}

/// `.;x`, `..;x` and the same with an encoded semicolon.
fn has_dotted_parameters(segment: &str) -> bool {
    let rest = segment.strip_prefix("..").or_else(|| segment.strip_prefix('.'));
    rest.is_some_and(|rest| rest.starts_with(';') || rest.starts_with("%3B"))
}
