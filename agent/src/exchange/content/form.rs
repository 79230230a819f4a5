//! Bodies of the type `application/x-www-form-urlencoded` (URL standard, section 5.1). It knows no requests.

use serde_json::{Map, Value};

use super::MAX_ARGS;

/// Reads a form: texts by name, an array of them for a name that comes more than once, `true` for one without `=`.
///
/// # Errors
/// There are too many of them.
pub fn form(body: &[u8]) -> Result<Value, String> {
    let mut object = Map::new();
    for (count, pair) in body.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).enumerate() {
        if count >= MAX_ARGS {
            return Err(format!("the form has more than {MAX_ARGS} arguments"));
        }
        let (name, value) = match pair.iter().position(|byte| *byte == b'=') {
            Some(at) => (&pair[..at], Value::String(decoded(&pair[at + 1..]))),
            None => (pair, Value::Bool(true)),
        };
        add(&mut object, decoded(name), value);
    }
    Ok(Value::Object(object))
}

/// Adds a value; more than one of a name become an array.
pub(super) fn add(object: &mut Map<String, Value>, name: String, value: Value) {
    match object.get_mut(&name) {
        None => _ = object.insert(name, value),
        Some(Value::Array(values)) => values.push(value),
        Some(first) => *first = Value::Array(vec![first.take(), value]),
    }
}

/// Text without its percent encoding, where `+` is a blank; what is not UTF-8 is replaced.
pub fn decoded(text: &[u8]) -> String {
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    percent_encoding::percent_decode(&spaced).decode_utf8_lossy().into_owned()
}
