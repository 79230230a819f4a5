//! What a plain YAML scalar means: the core schema of YAML 1.2.2 section 10.3.2. It does not know where the scalar stands.

use serde_json::Number;

use super::tree::Data;

/// The value of an untagged plain scalar. `None` for what JSON cannot say (`.inf`, `.nan`, numbers beyond a double).
pub(super) fn resolve(text: &str) -> Option<Data> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Some(Data::Null),
        "true" | "True" | "TRUE" => return Some(Data::Bool(true)),
        "false" | "False" | "FALSE" => return Some(Data::Bool(false)),
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return Some(Data::String(text.to_owned()));
    }
    match integer(text) {
        Some(number) => Some(Data::Number(number)),
        None if is_infinite_or_nan(text) => None,
        None if is_float(text) => Number::from_f64(text.parse().ok()?).map(Data::Number),
        None => Some(Data::String(text.to_owned())),
    }
}

/// Decimal, `0o17`, `0x1F`. Integers beyond 64 bits are read as floats.
fn integer(text: &str) -> Option<Number> {
    if let Some(octal) = text.strip_prefix("0o") {
        return plain_digits(octal).then(|| u64::from_str_radix(octal, 8).ok())?.map(Number::from);
    }
    if let Some(hex) = text.strip_prefix("0x") {
        return plain_digits(hex).then(|| u64::from_str_radix(hex, 16).ok())?.map(Number::from);
    }
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    match text.parse::<u64>() {
        Ok(number) => Some(Number::from(number)),
        Err(_) => text.parse::<i64>().ok().map(Number::from),
    }
}

fn plain_digits(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn is_infinite_or_nan(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN")
}

/// `[-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`
fn is_float(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mantissa_fine = digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty());
    mantissa_fine && exponent.is_none_or(|exponent| !exponent.is_empty() && digits(exponent))
}
