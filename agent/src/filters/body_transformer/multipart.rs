//! Forms of parts (RFC 7578), read whole. It knows no templates.

use serde_json::{Map, Value, json};

/// Most parts of a form.
const MAX_PARTS: usize = 1000;
/// Longest boundary (RFC 2046 section 5.1.1).
const MAX_BOUNDARY: usize = 70;

/// The parts by name, each with its `value` and its `headers`.
///
/// # Errors
/// Says what is wrong with the form.
pub(super) fn read(body: &str, content_type: &str) -> Result<Map<String, Value>, String> {
    let boundary = parameter(content_type, "boundary").filter(|text| !text.is_empty() && text.len() <= MAX_BOUNDARY);
    let boundary = boundary.ok_or("the Content-Type of the form names no boundary")?;
    let delimiter = format!("\r\n--{boundary}");
    let first = format!("--{boundary}");
    let start = match body.strip_prefix(&first) {
        Some(rest) => rest,
        None => body.split_once(&delimiter).ok_or("the form has no part")?.1,
    };
    let mut parts = Map::new();
    let mut rest = start;
    for _ in 0..MAX_PARTS {
        if rest.starts_with("--") {
            return Ok(parts);
        }
        let content =
            rest.trim_start_matches([' ', '\t']).strip_prefix("\r\n").ok_or("the form is malformed behind a boundary")?;
        let (part, next) = content.split_once(&delimiter).ok_or("the form has no end")?;
        add(part, &mut parts);
        rest = next;
    }
    Err(format!("the form has more than {MAX_PARTS} parts"))
}

fn add(part: &str, parts: &mut Map<String, Value>) {
    let (head, value) = match part.strip_prefix("\r\n") {
        Some(value) => ("", value),
        None => part.split_once("\r\n\r\n").unwrap_or((part, "")),
    };
    let lines = head.split("\r\n").filter_map(|line| line.split_once(':'));
    let headers: Map<String, Value> =
        lines.map(|(name, value)| (name.trim().to_ascii_lowercase(), Value::from(value.trim()))).collect();
    let name = headers.get("content-disposition").and_then(Value::as_str).and_then(|value| parameter(value, "name"));
    if let Some(name) = name {
        parts.insert(name, json!({"value": value, "headers": headers}));
    }
}

/// A parameter of a field value, quoted or not.
fn parameter(value: &str, wanted: &str) -> Option<String> {
    let mut rest = value.split_once(';')?.1;
    loop {
        let (name, after) = rest.split_once('=')?;
        let (text, next) = match after.strip_prefix('"') {
            Some(quoted) => unquoted(quoted)?,
            None => {
                let end = after.find(';').unwrap_or(after.len());
                (after[..end].trim().to_owned(), &after[end..])
            }
        };
        if name.trim_matches([' ', '\t', ';']).eq_ignore_ascii_case(wanted) {
            return Some(text);
        }
        rest = next.trim_start_matches([' ', '\t', ';']);
    }
}

/// The text up to the closing quote, and what follows it.
fn unquoted(quoted: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut escaped = false;
    for (at, character) in quoted.char_indices() {
        match character {
            _ if escaped => {
                text.push(character);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return Some((text, &quoted[at + 1..])),
            _ => text.push(character),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const FORM: &str = "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\none\r\n--b\r\nContent-Disposition: form-data; \
        filename=\"x;y.txt\"; name=\"f \\\"2\"\r\nContent-Type: text/plain\r\n\r\nline 1\r\nline 2\r\n--b--\r\n";

    #[test]
    fn parts_are_found_by_their_names() {
        let parts = read(FORM, "multipart/form-data; charset=x; boundary=\"b\"").unwrap();
        assert_eq!((parts["a"]["value"].as_str(), parts["f \"2"]["value"].as_str()), (Some("one"), Some("line 1\r\nline 2")));
        assert_eq!(parts["f \"2"]["headers"]["content-type"], "text/plain");
        assert!(read("--b--", "a/b; boundary=b").unwrap().is_empty());
    }

    #[test]
    fn malformed_forms_are_refused() {
        for (body, content_type) in
            [(FORM, "multipart/form-data"), ("", "a/b; boundary=b"), ("--b\r\nx", "a/b;boundary=b"), ("--bx", "a/b;boundary=b")]
        {
            assert!(read(body, content_type).is_err(), "{body}");
        }
        let many = format!("{}--b--", "--b\r\n\r\n\r\n".repeat(MAX_PARTS + 1));
        assert!(read(&many, "a/b;boundary=b").unwrap_err().contains("more than"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(body in "(--b|\r\n|[a:;=\"\\\\-]){0,40}", content_type in "[a;= \"\\\\boundry]{0,30}") {
            let _ = read(&body, "a/b; boundary=b");
            let _ = read(&body, &content_type);
        }
    }
}
