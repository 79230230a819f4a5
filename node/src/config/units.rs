//! Durations and sizes with units, read from text. It does not know where they stand.

use std::time::Duration;

/// Units of a duration in nanoseconds.
const TIMES: [(&str, u64); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

/// Units of a size in bytes: the `i` ones are powers of 1024.
const SIZES: [(&str, u64); 7] =
    [("B", 1), ("KB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// Reads `5s`, `200ms`, `1m30s`, `1.5h`; a bare number is refused (of what?), except `0`.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut nanoseconds: u64 = 0;
    let mut rest = text;
    loop {
        let number = leading_number(rest)?;
        let after = &rest[number.len()..];
        let unit = &after[..after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len())];
        let (_, factor) = TIMES.iter().find(|(name, _)| *name == unit)?;
        nanoseconds = nanoseconds.checked_add(times(number, *factor)?)?;
        rest = &after[unit.len()..];
        if rest.is_empty() {
            return Some(Duration::from_nanos(nanoseconds));
        }
    }
}

/// Reads `64KiB`, `1.5MB`, `512B`; a bare number is bytes.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let number = leading_number(text)?;
    let unit = text[number.len()..].trim_start();
    if unit.is_empty() {
        return number.parse().ok();
    }
    let (_, factor) = SIZES.iter().find(|(name, _)| *name == unit)?;
    times(number, *factor)
}

/// Digits with at most one point between them.
fn leading_number(text: &str) -> Option<&str> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number = &text[..end];
    let parts_fine = number.split('.').all(|part| !part.is_empty());
    (parts_fine && number.split('.').count() <= 2).then_some(number)
}

/// `number * factor`, exact; `None` when it overflows or is no whole number of the smallest unit.
fn times(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let mut total = whole.parse::<u64>().ok()?.checked_mul(factor)?;
    if !fraction.is_empty() {
        let scale = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        let scaled = fraction.parse::<u128>().ok()?.checked_mul(u128::from(factor))?;
        if scaled % scale != 0 {
            return None;
        }
        total = total.checked_add(u64::try_from(scaled / scale).ok()?)?;
    }
    Some(total)
}
