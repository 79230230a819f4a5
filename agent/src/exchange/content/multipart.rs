//! Bodies of the type `multipart/form-data` (RFC 7578), as texts by name. It knows no requests.

use serde_json::{Map, Value};

use super::MAX_ARGS;
use super::form::add;

/// Reads the parts. The boundary is that of the first line, which is what every sender writes (RFC 2046 section 5.1.1 allows text before it, which
/// no form has). Parts that are files are left out; `None` when it is no multipart body.
pub(super) fn parse(body: &[u8]) -> Option<Value> {
    let boundary = &body[..memchr::memmem::find(body, b"\r\n")?];
    if !boundary.starts_with(b"--") || boundary.len() < 3 {
        return None;
    }
    let separator = [b"\r\n", boundary].concat();
    let finder = memchr::memmem::Finder::new(&separator);
    let mut object = Map::new();
    let mut rest = &body[boundary.len()..];
    for _ in 0..MAX_ARGS {
        if rest.starts_with(b"--") {
            return Some(Value::Object(object));
        }
        let part = rest.strip_prefix(b"\r\n")?;
        let end = finder.find(part)?;
        if let Some((name, text)) = field(&part[..end]) {
            add(&mut object, name, Value::String(text));
        }
        rest = &part[end + separator.len()..];
    }
    None
}

/// Name and text of a part.
fn field(part: &[u8]) -> Option<(String, String)> {
    let end = memchr::memmem::find(part, b"\r\n\r\n")?;
    let (head, text) = (std::str::from_utf8(&part[..end]).ok()?, &part[end + 4..]);
    let disposition = head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("content-disposition").then_some(value)
    })?;
    let parameter = |wanted: &str| {
        disposition.split(';').skip(1).find_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            name.trim().eq_ignore_ascii_case(wanted).then(|| value.trim().trim_matches('"').to_owned())
        })
    };
    if parameter("filename").is_some() {
        return None;
    }
    Some((parameter("name")?, String::from_utf8_lossy(text).into_owned()))
}
