//! Which bytes may stand where (RFC 9110 section 5.6, RFC 9112 section 3), as tables.

const TOKEN: u8 = 1;
const TARGET: u8 = 2;
const HOST: u8 = 4;

static CLASS: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let c = byte as u8;
        if c.is_ascii_alphanumeric() {
            table[byte] = TOKEN | TARGET | HOST;
        } else if c.is_ascii_graphic() && c != b'#' {
            table[byte] = TARGET;
        }
        byte += 1;
    }
    let token = b"!#$%&'*+-.^_`|~";
    let mut at = 0;
    while at < token.len() {
        table[token[at] as usize] |= TOKEN;
        at += 1;
    }
    let host = b"-._~";
    let mut at = 0;
    while at < host.len() {
        table[host[at] as usize] |= HOST;
        at += 1;
    }
    table
}

/// Length of the longest token at the start.
pub(super) fn token_len(text: &[u8]) -> usize {
    text.iter().position(|&byte| CLASS[byte as usize] & TOKEN == 0).unwrap_or(text.len())
}

/// Whether `text` is a token, not empty.
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && token_len(text) == text.len()
}

/// Whether this byte may stand in a token.
pub(super) fn is_token_byte(byte: u8) -> bool {
    CLASS[byte as usize] & TOKEN != 0
}

/// Whether `text` may be a field value: no control bytes but tab. Bytes above 127 are opaque and pass (RFC 9110 section 5.5).
pub fn is_value(text: &[u8]) -> bool {
    // Without a branch per byte, so that it is compiled to vector instructions.
    !text.iter().fold(false, |bad, &byte| bad | ((byte < 0x20) & (byte != b'\t')) | (byte == 0x7f))
}

/// Whether `text` may be a request target: visible ASCII without `#`.
pub(super) fn is_target(text: &[u8]) -> bool {
    text.iter().all(|&byte| CLASS[byte as usize] & TARGET != 0)
}

/// Whether `text` may be a registered name. Percent escapes and sub-delimiters are refused: no host has them, and others read them differently.
pub(super) fn is_host_name(text: &[u8]) -> bool {
    text.iter().all(|&byte| CLASS[byte as usize] & HOST != 0)
}

/// `text` without blanks around it.
pub(super) fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}
