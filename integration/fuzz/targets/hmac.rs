//! What `hmac-auth` signs: two requests have the same text only when all that is signed of them is the same. Input: method, target and value of two
//! requests, a line each, and the signature.
#![no_main]

use heddle_agent::bench::canonical::{parse, signed_text};
use libfuzzer_sys::fuzz_target;

#[path = "common.rs"]
mod common;

/// Methods are tokens, and targets have no blanks.
fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b':' | b'"'))
}

fuzz_target!(|data: &[u8]| {
    let Some(([method, target, value, other_method, other_target, other_value], text)) = common::lines(data) else { return };
    let Ok(signature) = parse(text) else { return };
    assert!(!signature.key_id.is_empty() && !signature.signature.is_empty() && signature.headers.len() <= 64);
    if ![method, target, other_method, other_target].into_iter().all(is_word) {
        return;
    }
    // A field whose name begins with `n` is there in neither request, one that begins with `o` in the second alone.
    let lookup = |name: &str, value: &str, second: bool| match name.as_bytes().first() {
        Some(b'n') => None,
        Some(b'o') if !second => None,
        _ => Some(value.to_owned()),
    };
    let one = signed_text(&signature, method, target, |name| lookup(name, value, false));
    let two = signed_text(&signature, other_method, other_target, |name| lookup(name, other_value, true));
    let signed = |name: &str| signature.headers.contains(&name);
    let target_differs = signed("@request-target") && (method, target) != (other_method, other_target);
    let mut fields = signature.headers.iter().filter(|name| **name != "@request-target");
    let field_differs = fields.any(|name| lookup(name, value, false) != lookup(name, other_value, true));
    assert_eq!(one != two, target_differs || field_differs, "{text}");
});
