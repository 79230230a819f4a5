//! From bytes to JSON: as lenient as the parsers that Admin API clients were written against, and bounded.

use std::borrow::Cow;

use heddle_node::config::{Document, Expansion, Format};
use serde_json::Value;

/// Integers up to this are exact as floating-point numbers.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Reads JSON. Whole numbers are integers however they are written (`1.0`). Raw control characters inside strings are accepted; of equal names the last wins; nesting is bounded (128).
pub(in super::super) fn json(bytes: &[u8]) -> Result<Value, String> {
    let mut value = serde_json::from_slice(&escape_controls(bytes)).map_err(|error| error.to_string())?;
    whole_numbers(&mut value);
    Ok(value)
}

/// Reads YAML, with bounds against documents that unfold.
pub(in super::super) fn yaml(bytes: &[u8]) -> Result<Value, String> {
    let document = Document::parse("body", bytes, Format::Yaml, Expansion::Off).map_err(|mistakes| mistakes.to_string())?;
    Ok(document.to_json())
}

/// `1.0` and `1` are the same number, as they are to Lua.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(map) => map.values_mut().for_each(whole_numbers),
        Value::Number(number) if number.is_f64() => {
            if let Some(whole) = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() <= EXACT) {
                *value = Value::from(whole as i64);
            }
        }
        _ => {}
    }
}

/// Writes raw control characters inside strings as escapes. Borrows when there are none.
fn escape_controls(bytes: &[u8]) -> Cow<'_, [u8]> {
    let mut out: Option<Vec<u8>> = None;
    let (mut in_string, mut escaped) = (false, false);
    for (index, byte) in bytes.iter().copied().enumerate() {
        if in_string && byte < 0x20 {
            let out = out.get_or_insert_with(|| bytes[..index].to_vec());
            // An escaped raw control keeps its backslash apart, so that it stays a fault.
            out.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
        } else if let Some(out) = &mut out {
            out.push(byte);
        }
        match (in_string, escaped, byte) {
            (true, true, _) => escaped = false,
            (true, false, b'\\') => escaped = true,
            (_, false, b'"') => in_string = !in_string,
            _ => {}
        }
    }
    out.map_or(Cow::Borrowed(bytes), Cow::Owned)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn raw_control_characters_and_equal_names_are_accepted() {
        assert_eq!(json(b"{\"a\":\"x\ny\tz\\n\", \"b\": \"\\\"\n\"}\n").unwrap(), json!({"a": "x\ny\tz\n", "b": "\"\n"}));
        assert_eq!(json(b"{\"a\":1,\"a\":2}").unwrap(), json!({"a": 2}));
        assert_eq!(json(b"[1.0, -2.5, 1e3, 1e300]").unwrap(), json!([1, -2.5, 1000, 1e300]));
        assert!(json(b"{\n\x01\"a\":1}").is_err());
        assert!(json("[".repeat(200).as_bytes()).is_err());
        assert!(json(b"").is_err());
    }

    #[test]
    fn yaml_is_read_as_json_values() {
        assert_eq!(yaml(b"routes:\n  - id: 1\n    uri: /a\n").unwrap(), json!({"routes": [{"id": 1, "uri": "/a"}]}));
        assert!(yaml(b"a: [").is_err());
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..9 {
            let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
        }
        assert!(yaml(bomb.as_bytes()).is_err(), "a document that unfolds to a billion texts");
    }

    proptest! {
        #[test]
        fn strict_json_reads_the_same(text in "[ -~é\\n\\t]{0,40}") {
            let strict = Value::from(text.clone()).to_string();
            prop_assert_eq!(json(strict.as_bytes()).unwrap(), Value::from(text.clone()));
            let raw = format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
            prop_assert_eq!(json(raw.as_bytes()).unwrap(), Value::from(text));
        }

        #[test]
        fn any_bytes_get_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = json(&bytes);
            let _ = yaml(&bytes);
        }
    }
}
