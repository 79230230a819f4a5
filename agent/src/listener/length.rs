//! Lengths as responses state them. It knows no protocol.

use crate::http::{Fields, Name};

/// The length that a response states, when it states one that can be believed.
pub(super) fn stated_length(fields: &Fields) -> Option<u64> {
    let mut all = fields.get_all_known(Name::ContentLength);
    let value = all.next()?;
    let digits = !value.is_empty() && value.len() <= 19 && value.iter().all(u8::is_ascii_digit);
    if !digits || all.next().is_some() {
        return None;
    }
    Some(value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}
