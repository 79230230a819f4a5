//! From a body to the value that a template sees. It knows no phases.

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use super::config::Format;
use super::{multipart, xml};

/// Most arguments of a form or a query.
const MAX_ARGS: usize = 1000;

/// What a template sees.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Input {
    /// By what the names of a template are looked up.
    pub root: Value,
    /// The body as it came, `_body`.
    pub body: String,
    /// Parts of a form, `_multipart`.
    pub parts: Value,
}

/// The format that a media type stands for.
pub(super) fn format_of(content_type: &str) -> Option<Format> {
    let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match media.as_str() {
        "application/x-www-form-urlencoded" => Some(Format::Encoded),
        "multipart/form-data" | "multipart/mixed" | "multipart/related" => Some(Format::Multipart),
        json if json.ends_with("/json") || json.ends_with("+json") => Some(Format::Json),
        xml if xml.ends_with("/xml") || xml.ends_with("+xml") => Some(Format::Xml),
        _ => None,
    }
}

/// Reads a body.
///
/// # Errors
/// Says what is wrong with it.
pub(super) fn decode(format: Format, body: &[u8], content_type: &str, query: Option<&str>) -> Result<Input, String> {
    let body = match format {
        Format::Args | Format::Plain => String::from_utf8_lossy(body).into_owned(),
        _ => std::str::from_utf8(body).map_err(|_| "the body is not UTF-8")?.to_owned(),
    };
    let (mut root, mut parts) = (Value::Null, Value::Null);
    match format {
        Format::Json => root = serde_json::from_str(&body).map_err(|error| format!("bad JSON: {error}"))?,
        Format::Xml => root = xml::read(&body)?,
        Format::Encoded => root = arguments(&body)?,
        Format::Args => root = arguments(query.unwrap_or_default())?,
        Format::Plain => {}
        Format::Multipart => {
            let found = multipart::read(&body, content_type)?;
            root = found.iter().map(|(name, part)| (name.clone(), part["value"].clone())).collect();
            parts = Value::Object(found);
        }
    }
    Ok(Input { root, body, parts })
}

/// Arguments by name: one that comes several times is a list, one without a value is `true`.
fn arguments(text: &str) -> Result<Value, String> {
    let decoded = |text: &str| {
        let spaced = text.replace('+', " ");
        percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
    };
    let mut all: Map<String, Value> = Map::new();
    for (index, pair) in text.split('&').filter(|pair| !pair.is_empty()).enumerate() {
        if index >= MAX_ARGS {
            return Err(format!("there are more than {MAX_ARGS} arguments"));
        }
        let (name, value) = match pair.split_once('=') {
            Some((name, value)) => (decoded(name), Value::from(decoded(value))),
            None => (decoded(pair), Value::Bool(true)),
        };
        match all.get_mut(&name) {
            None => _ = all.insert(name, value),
            Some(Value::Array(list)) => list.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }
    Ok(Value::Object(all))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn every_format_has_its_form() {
        let root = |format, body: &str| decode(format, body.as_bytes(), "", Some("q=1")).map(|input| input.root);
        assert_eq!(root(Format::Json, "{\"a\": [1]}").unwrap(), json!({"a": [1]}));
        assert_eq!(root(Format::Xml, "<a>b</a>").unwrap(), json!({"a": "b"}));
        assert_eq!(
            root(Format::Encoded, "a=b+c&d=%C3%A9&&e&a=2&a=3").unwrap(),
            json!({"a": ["b c", "2", "3"], "d": "é", "e": true})
        );
        assert_eq!(root(Format::Args, "x=y").unwrap(), json!({"q": "1"}));
        assert_eq!(decode(Format::Plain, b"\xffx", "", None).unwrap().body, "\u{fffd}x");
        for format in [Format::Json, Format::Xml, Format::Multipart] {
            assert!(root(format, "{").is_err(), "{format:?}");
        }
        assert!(decode(Format::Json, b"\"\xff\"", "", None).is_err());
        assert!(root(Format::Encoded, &"a&".repeat(MAX_ARGS + 1)).is_err());
    }

    #[test]
    fn media_types_stand_for_formats() {
        for (media, format) in [
            ("application/json; charset=utf-8", Some(Format::Json)),
            ("application/problem+json", Some(Format::Json)),
            ("text/xml", Some(Format::Xml)),
            ("application/soap+xml;x", Some(Format::Xml)),
            ("Application/X-WWW-Form-Urlencoded", Some(Format::Encoded)),
            ("multipart/form-data; boundary=x", Some(Format::Multipart)),
            ("text/plain", None),
            ("", None),
        ] {
            assert_eq!(format_of(media), format, "{media}");
        }
    }
}
