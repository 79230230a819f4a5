//! From bytes to JSON: as lenient as the parsers that Admin API clients were written against, and bounded.

use std::borrow::Cow;

use serde_json::Value;

/// Reads JSON. Raw control characters inside strings are accepted; of equal names the last wins; nesting is bounded (128).
pub(in super::super) fn json(bytes: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(&escape_controls(bytes)).map_err(|error| error.to_string())
}

/// Reads YAML, with bounds against documents that unfold.
pub(in super::super) fn yaml(bytes: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    serde_saphyr::from_str(text).map_err(|error| error.to_string())
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
        assert!(json(b"{\n\x01\"a\":1}").is_err());
        assert!(json("[".repeat(200).as_bytes()).is_err());
        assert!(json(b"").is_err());
    }

    #[test]
    fn yaml_is_read_as_json_values() {
        assert_eq!(yaml(b"routes:\n  - id: 1\n    uri: /a\n").unwrap(), json!({"routes": [{"id": 1, "uri": "/a"}]}));
        assert!(yaml(b"a: [").is_err());
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
