//! Signed tokens: made, and verified without telling by the time it takes how much of one was right. They know no requests.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// Longest token that is looked at; ours have about 200 bytes.
const LONGEST: usize = 1024;

/// What a token says, in the words of APISIX.
#[derive(Debug, Serialize, Deserialize)]
struct Content {
    random: String,
    /// Unix seconds at which it was made.
    expires: u64,
    /// HMAC-SHA256 over both, hexadecimal.
    sign: String,
}

/// A key for tokens.
pub(super) fn key(secret: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes())
}

/// A token made at `now`, in Unix seconds, with random bits that nobody can guess.
pub(super) fn make(key: &hmac::Key, random: u128, now: u64) -> String {
    let random = format!("{random:032x}");
    let sign = hex(hmac::sign(key, signed(&random, now).as_bytes()).as_ref());
    STANDARD.encode(format!("{{\"random\":\"{random}\",\"expires\":{now},\"sign\":\"{sign}\"}}"))
}

/// Whether the token is ours and not older than `lifetime` seconds; 0 is for ever.
pub(super) fn is_good(key: &hmac::Key, token: &[u8], lifetime: u64, now: u64) -> bool {
    let read = |token: &[u8]| {
        let json = STANDARD.decode(token).ok()?;
        let content: Content = serde_json::from_slice(&json).ok()?;
        let sign = unhex(&content.sign)?;
        Some((content, sign))
    };
    let Some((content, sign)) = (token.len() <= LONGEST).then(|| read(token)).flatten() else { return false };
    let authentic = hmac::verify(key, signed(&content.random, content.expires).as_bytes(), &sign).is_ok();
    authentic && (lifetime == 0 || now.saturating_sub(content.expires) <= lifetime)
}

fn signed(random: &str, made: u64) -> String {
    format!("{{expires:{made},random:{random}}}")
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = text.as_bytes().chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_token_is_good_for_its_time_and_key() {
        let (mine, other) = (key("mine"), key("other"));
        let token = make(&mine, 7, 1_000);
        let good = |key, lifetime, now| is_good(key, token.as_bytes(), lifetime, now);
        assert!(good(&mine, 60, 1_000) && good(&mine, 60, 1_060) && !good(&mine, 60, 1_061));
        assert!(good(&mine, 0, u64::MAX), "0 is for ever");
        assert!(!good(&other, 60, 1_000));
        let json: serde_json::Value = serde_json::from_slice(&STANDARD.decode(&token).unwrap()).unwrap();
        assert_eq!((json["expires"].as_u64(), json["random"].as_str().unwrap().len()), (Some(1_000), 32));
    }

    proptest! {
        #[test]
        fn a_changed_token_is_not_good(random: u128, at in 0usize.., bit in 0u8..8) {
            let key = key("k");
            let token = make(&key, random, 5);
            prop_assert!(is_good(&key, token.as_bytes(), 10, 5));
            let mut json = STANDARD.decode(&token).unwrap();
            let at = at % json.len();
            json[at] ^= 1 << bit;
            let changed = STANDARD.encode(&json);
            // A letter of the signature in the other case is the same number.
            if !json.eq_ignore_ascii_case(&STANDARD.decode(&token).unwrap()) {
                prop_assert!(!is_good(&key, changed.as_bytes(), 10, 5));
            }
        }

        #[test]
        fn nothing_is_too_odd_to_be_looked_at(bytes: Vec<u8>, json: String) {
            prop_assert!(!is_good(&key("k"), &bytes, 0, 0));
            prop_assert!(!is_good(&key("k"), STANDARD.encode(json).as_bytes(), 0, 0));
        }
    }
}
