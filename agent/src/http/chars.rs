//! Which bytes may stand where (RFC 9110 section 5.6, RFC 9112 section 3): tables, and eight bytes at a time where that is possible.

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

/// Whether `text` is a token, not empty.
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&byte| is_token_byte(byte))
}

/// Whether this byte may stand in a token.
pub(in crate::http) fn is_token_byte(byte: u8) -> bool {
    CLASS[byte as usize] & TOKEN != 0
}

/// Whether `text` may be a field value: no control bytes but tab. Bytes above 127 are opaque and pass (RFC 9110 section 5.5).
pub fn is_value(text: &[u8]) -> bool {
    !any_word(text, has_control) || text.iter().all(|&byte| byte == b'\t' || (byte >= 0x20 && byte != 0x7f))
}

const ONES: u64 = 0x0101_0101_0101_0101;
/// The highest bit of each of eight bytes.
pub(crate) const HIGHS: u64 = 0x8080_8080_8080_8080;

/// Whether one of eight bytes is below 0x20 or 0x7f.
pub(crate) fn has_control(word: u64) -> bool {
    let low = word.wrapping_sub(ONES * 0x20) & !word;
    (low & HIGHS) != 0 || has_byte(word, 0x7f)
}

/// Whether one of eight bytes is `byte`.
pub(crate) fn has_byte(word: u64, byte: u8) -> bool {
    zeros(word ^ (ONES * u64::from(byte))) != 0
}

/// The highest bit of each byte that is zero, up to the first one; bits behind it mean nothing.
fn zeros(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & HIGHS
}

/// Whether `test` holds for some eight bytes of `text`. Bytes may be looked at twice; what is shorter is filled up with bytes of its own.
#[inline]
pub(crate) fn any_word(text: &[u8], test: impl Fn(u64) -> bool) -> bool {
    match text.last_chunk::<8>() {
        None => !text.is_empty() && test(short(text)),
        Some(last) => {
            text.as_chunks::<8>().0.iter().any(|word| test(u64::from_le_bytes(*word))) || test(u64::from_le_bytes(*last))
        }
    }
}

/// Up to eight bytes, not none, in one word, in which each of them stands at least once; where they stand depends on their number alone.
#[inline]
pub(in crate::http) fn short(text: &[u8]) -> u64 {
    match (text.first_chunk::<4>(), text.last_chunk::<4>()) {
        (Some(first), Some(last)) => u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << 32,
        _ => {
            let [first, middle, last] = [0, text.len() / 2, text.len() - 1].map(|at| text[at]);
            u64::from_le_bytes([first, middle, last, first, first, first, first, first])
        }
    }
}

/// Whether two texts are the same in any case of ASCII letters.
pub(in crate::http) fn is_same_name(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let (Some(a_end), Some(b_end)) = (a.last_chunk::<8>(), b.last_chunk::<8>()) else {
        return a.is_empty() || same_letters(short(a), short(b));
    };
    let mut words = a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0);
    same_letters(u64::from_le_bytes(*a_end), u64::from_le_bytes(*b_end))
        && words.all(|(a, b)| same_letters(u64::from_le_bytes(*a), u64::from_le_bytes(*b)))
}

/// Whether eight bytes are the same but for the case of letters: bytes may differ in the bit of the case, and only where there is a letter.
fn same_letters(a: u64, b: u64) -> bool {
    let low = (a | (ONES * 0x20)) & !HIGHS;
    // From `a` on the first sum reaches the highest bit, behind `z` the second one does.
    let letters = (low + ONES * (0x80 - 0x61)) & !(low + ONES * (0x80 - 0x7b)) & !a & HIGHS;
    (a ^ b) & !(letters >> 2) == 0
}

/// Where `byte` first stands in a short `text`; for long ones `memchr` is faster.
pub(in crate::http) fn find(byte: u8, text: &[u8]) -> Option<usize> {
    let (words, rest) = text.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let found = zeros(u64::from_le_bytes(*word) ^ (ONES * u64::from(byte)));
        if found != 0 {
            return Some(at * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    rest.iter().position(|&other| other == byte).map(|at| words.len() * 8 + at)
}

/// Whether `text` may be a request target: visible ASCII without `#`.
pub fn is_target(text: &[u8]) -> bool {
    text.iter().all(|&byte| CLASS[byte as usize] & TARGET != 0)
}

/// Whether `text` may be a registered name. Percent escapes and sub-delimiters are refused: no host has them, and others read them differently.
pub(in crate::http) fn is_host_name(text: &[u8]) -> bool {
    text.iter().all(|&byte| CLASS[byte as usize] & HOST != 0)
}

/// `text` without blanks around it.
#[inline]
pub(in crate::http) fn trim(mut text: &[u8]) -> &[u8] {
    if let [b' ', first, .., last] = text
        && *first > b' '
        && *last > b' '
    {
        return &text[1..];
    }
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn names_are_the_same_in_any_case(
            text in proptest::collection::vec(prop_oneof![any::<u8>(), 0x3e..0x80u8], 0..20),
            flips in proptest::collection::vec(prop_oneof![4 => Just(0x20u8), 1 => Just(0u8), 1 => any::<u8>()], 20),
            longer: bool,
        ) {
            let letters: Vec<u8> = text.iter().zip(&flips).map(|(byte, flip)| if byte.is_ascii_alphabetic() { byte ^ (flip & 0x20) } else { *byte }).collect();
            let mut other: Vec<u8> = text.iter().zip(&flips).map(|(byte, flip)| byte ^ flip).collect();
            other.extend(longer.then_some(b'x'));
            prop_assert!(is_same_name(&text, &letters));
            prop_assert_eq!(is_same_name(&text, &other), text.eq_ignore_ascii_case(&other));
        }

        #[test]
        fn words_see_what_bytes_show(text in proptest::collection::vec(prop_oneof![any::<u8>(), 0x1e..0x22u8, 0x7e..0x82u8, Just(b'\t')], 0..40), byte: u8) {
            let control = |byte: &u8| *byte < 0x20 || *byte == 0x7f;
            prop_assert_eq!(any_word(&text, has_control), text.iter().any(control));
            prop_assert_eq!(is_value(&text), !text.iter().any(|byte| control(byte) && *byte != b'\t'));
            prop_assert_eq!(find(byte, &text), text.iter().position(|other| *other == byte));
        }
    }
}
