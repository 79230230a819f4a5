//! Paths as they are compared: gateways match requests by it, and what Envoys are told is written by it.

/// Whether a byte stands in a path as it is. RFC 3986 section 3.3 has no place for those that are not; of them it leaves `[`, `]` and the backslash to others:
/// the first two are taken as they come, as browsers do, and what becomes of the last is decided elsewhere.
pub const fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}')
}

/// A text as it stands in a normalised path (RFC 3986 section 6.2.2): what is unreserved is plain, what has no place in a path is percent-encoded, hex digits are
/// large.
pub fn canonical_path(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let decoded = bytes.get(at + 1..at + 3).filter(|_| byte == b'%').and_then(decoded);
        at += if decoded.is_some() { 3 } else { 1 };
        match decoded {
            Some(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => out.push(char::from(byte)),
            None if is_path_byte(byte) => out.push(char::from(byte)),
            decoded => out.push_str(&format!("%{:02X}", decoded.unwrap_or(byte))),
        }
    }
    out
}

/// The byte that two hex digits are.
fn decoded(digits: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
    u8::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::canonical_path;

    #[test]
    fn one_path_is_one_however_it_is_encoded() {
        for (written, canonical) in [
            ("/a%7eb/%41", "/a~b/A"),
            ("/caf\u{e9}", "/caf%C3%A9"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/a b|c", "/a%20b%7Cc"),
            ("/a%7cb/{c}", "/a%7Cb/%7Bc%7D"),
            ("/%2f", "/%2F"),
            ("/100%", "/100%"),
            ("/%+5/%zz", "/%+5/%zz"),
        ] {
            assert_eq!(canonical_path(written), canonical, "{written}");
            assert_eq!(canonical_path(canonical), canonical, "once is enough");
        }
    }
}
