//! What both protocols ask of a response: which length it has, and whether it has a body at all. It knows no wire.

use crate::http::{Body, Fields, Name, ResponseHead};

/// What a response says of its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// It has none (204).
    None,
    /// The head's own statement stays, since no body follows (HEAD, 304).
    AsStated,
    /// This many bytes.
    Known(u64),
    /// Nobody knows before its end.
    Open,
}

/// The length of a response (RFC 9110 section 8.6).
pub(super) fn response_length(head: &ResponseHead, body: &Body, is_head: bool) -> Length {
    match (head.status, body.remaining()) {
        (204, _) => Length::None,
        (304, _) => Length::AsStated,
        (_, Some(bytes)) if is_head && bytes > 0 => Length::Known(bytes),
        _ if is_head => Length::AsStated,
        (_, Some(bytes)) => Length::Known(bytes),
        _ => stated_length(&head.fields).map_or(Length::Open, Length::Known),
    }
}

/// Whether a response has no body.
pub(super) fn is_bodiless(head: &ResponseHead, is_head: bool) -> bool {
    is_head || matches!(head.status, 204 | 304)
}

/// The length that a response states, when it states one that can be believed.
fn stated_length(fields: &Fields) -> Option<u64> {
    let mut all = fields.get_all_known(Name::ContentLength);
    let length = parse_length(all.next()?)?;
    all.next().is_none().then_some(length)
}

/// Digits only.
pub(super) fn parse_length(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.len() <= 19 && value.iter().all(u8::is_ascii_digit);
    digits.then(|| value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}
