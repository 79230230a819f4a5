//! Arguments of request bodies: forms and JSON, by a dotted name. It knows no fields and no requests.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use serde_json::Value;

/// The argument of this name (`a.b.0` goes into objects and arrays of JSON), as text; `None` when there is none or it is no plain value.
pub(super) fn find(content_type: &str, body: &[u8], name: &str) -> Option<String> {
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return form(std::str::from_utf8(body).ok()?, name);
    }
    let json = kind.to_ascii_lowercase();
    if json == "application/json" || json.ends_with("+json") {
        return plain(name.split('.').try_fold(&serde_json::from_slice::<Value>(body).ok()?, step)?);
    }
    None
}

fn form(text: &str, name: &str) -> Option<String> {
    text.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(key) == name).then(|| decoded(value).into_owned())
    })
}

/// `+` is a blank in a form.
fn decoded(text: &str) -> Cow<'_, str> {
    let text = if text.contains('+') { Cow::Owned(text.replace('+', " ")) } else { Cow::Borrowed(text) };
    match percent_decode_str(&text).decode_utf8_lossy() {
        Cow::Owned(decoded) => Cow::Owned(decoded),
        Cow::Borrowed(_) => text,
    }
}

fn step<'a>(value: &'a Value, part: &str) -> Option<&'a Value> {
    match value {
        Value::Object(map) => map.get(part),
        Value::Array(items) => items.get(part.parse::<usize>().ok()?),
        _ => None,
    }
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(bit) => Some(bit.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";

    #[test]
    fn forms_and_json_are_looked_into() {
        let body = b"a=1&b%20c=x+y%21&d";
        let form = |name| find(FORM, body, name);
        assert_eq!(
            (form("a"), form("b c"), form("d"), form("e")),
            (Some("1".into()), Some("x y!".into()), Some("".into()), None)
        );
        let body = br#"{"a": {"b": [{"c": 7}, true]}, "t": "x", "n": null}"#;
        let json = |name| find("application/vnd.x+json", body, name);
        assert_eq!((json("a.b.0.c"), json("a.b.1"), json("t")), (Some("7".into()), Some("true".into()), Some("x".into())));
        for none in ["a", "n", "a.b.9", "a.b.x", "t.u", ""] {
            assert_eq!(json(none), None, "{none}");
        }
        assert_eq!(find("text/plain", b"a=1", "a"), None);
        assert_eq!(find("application/json", b"{", "a"), None);
    }

    proptest! {
        #[test]
        fn no_body_is_too_strange(body in ".{0,60}", name in "[a-z0-9.]{0,8}", json in any::<bool>()) {
            let kind = if json { "application/json" } else { FORM };
            let found = find(kind, body.as_bytes(), &name);
            prop_assert!(found.is_none_or(|value| value.len() <= body.len() * 3));
        }
    }
}
