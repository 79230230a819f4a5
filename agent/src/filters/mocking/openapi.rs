//! An OpenAPI 3 document as a list of operations with prepared answers. It knows no requests but their method and path.

use bytes::Bytes;
use serde_json::Value;

use super::example::{example, resolved};
use super::xml;
use crate::http::{Fields, chars};

/// Most operations of a document.
const MAX_OPERATIONS: usize = 2000;
/// Most bytes of all prepared answers together.
const MAX_ANSWERS: usize = 16 * 1024 * 1024;

const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

/// A compiled document.
#[derive(Debug)]
pub(super) struct Document {
    operations: Vec<Operation>,
    /// Paths of its servers, the empty one among them.
    bases: Vec<String>,
}

#[derive(Debug)]
struct Operation {
    method: String,
    path: Vec<Segment>,
    answer: Prepared,
}

#[derive(Debug, PartialEq, Eq)]
enum Segment {
    /// As it is.
    Text(String),
    /// Parameters with text around them: something that is not empty between both.
    Parameter(String, String),
}

/// What an operation answers.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    pub status: u16,
    pub fields: Fields,
    pub body: Bytes,
}

/// What was found for a request.
pub(super) enum Found<'a> {
    /// The operation.
    Answer(&'a Prepared),
    /// Only the path, with the methods that it has.
    OtherMethods(String),
    /// Nothing.
    Nothing,
}

impl Document {
    /// Reads a document; of an operation's responses that of status `wanted` is taken, else the first success, else what there is.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub(super) fn read(root: &Value, wanted: Option<u16>) -> Result<Document, String> {
        if !root.get("openapi").and_then(Value::as_str).is_some_and(|version| version.starts_with("3.")) {
            return Err("expected an OpenAPI document of version 3".to_owned());
        }
        let paths = root.get("paths").and_then(Value::as_object).ok_or("the OpenAPI document has no paths")?;
        let (mut operations, mut size) = (Vec::new(), 0);
        for (path, item) in paths {
            let item = resolved(item, root);
            for method in METHODS {
                let Some(operation) = item.get(method) else { continue };
                let answer = prepared(operation, root, wanted);
                size += answer.body.len();
                operations.push(Operation { method: method.to_ascii_uppercase(), path: segments(path), answer });
                if operations.len() > MAX_OPERATIONS || size > MAX_ANSWERS {
                    return Err(format!(
                        "the OpenAPI document has more than {MAX_OPERATIONS} operations or {MAX_ANSWERS} bytes of answers"
                    ));
                }
            }
        }
        if operations.is_empty() {
            return Err("the OpenAPI document has no operation".to_owned());
        }
        // Paths without parameters go before those with some.
        operations.sort_by_key(|operation| operation.path.iter().filter(|part| matches!(part, Segment::Parameter(..))).count());
        Ok(Document { operations, bases: bases(root) })
    }

    /// The answer to a request.
    pub(super) fn find(&self, method: &str, path: &str) -> Found<'_> {
        let asked = |base: &String| path.strip_prefix(base.as_str()).filter(|rest| rest.starts_with('/'));
        let mut methods: Vec<&str> = Vec::new();
        for rest in self.bases.iter().filter_map(asked) {
            let here = || self.operations.iter().filter(|operation| matches(&operation.path, rest));
            let found = here().find(|operation| operation.method == method);
            let found = found.or_else(|| here().find(|operation| method == "HEAD" && operation.method == "GET"));
            if let Some(operation) = found {
                return Found::Answer(&operation.answer);
            }
            methods.extend(here().map(|operation| operation.method.as_str()));
        }
        if methods.is_empty() { Found::Nothing } else { Found::OtherMethods(methods.join(", ")) }
    }
}

/// The paths of the servers, longest first; the empty one is always there.
fn bases(root: &Value) -> Vec<String> {
    let urls = root.get("servers").and_then(Value::as_array).into_iter().flatten();
    let path = |server: &Value| {
        let url = server.get("url")?.as_str()?;
        let path = match url.split_once("://") {
            Some((_, rest)) => &rest[rest.find('/')?..],
            None => url,
        };
        let path = path.trim_end_matches('/');
        (path.starts_with('/') && !path.contains('{')).then(|| path.to_owned())
    };
    let mut bases: Vec<String> = urls.filter_map(path).collect();
    bases.push(String::new());
    bases.sort_by_key(|base| std::cmp::Reverse(base.len()));
    bases.dedup();
    bases
}

fn segments(path: &str) -> Vec<Segment> {
    let segment = |text: &str| match (text.find('{'), text.rfind('}')) {
        (Some(open), Some(close)) if open < close => Segment::Parameter(text[..open].to_owned(), text[close + 1..].to_owned()),
        _ => Segment::Text(text.to_owned()),
    };
    path.split('/').skip(1).map(segment).collect()
}

fn matches(path: &[Segment], asked: &str) -> bool {
    let mut parts = asked.split('/').skip(1);
    let fits = |segment: &Segment, part: &str| match segment {
        Segment::Text(text) => text == part,
        Segment::Parameter(before, after) => part
            .strip_prefix(before.as_str())
            .and_then(|rest| rest.strip_suffix(after.as_str()))
            .is_some_and(|rest| !rest.is_empty()),
    };
    path.iter().all(|segment| parts.next().is_some_and(|part| fits(segment, part))) && parts.next().is_none()
}

/// The answer of an operation.
fn prepared(operation: &Value, root: &Value, wanted: Option<u16>) -> Prepared {
    let responses = operation.get("responses").and_then(Value::as_object);
    let named = |name: &str| responses.and_then(|all| all.get(name));
    let success = || {
        let codes = responses.into_iter().flatten().filter(|(code, _)| code.starts_with('2'));
        codes.min_by_key(|(code, _)| code.parse::<u16>().unwrap_or(u16::MAX))
    };
    let by_status = wanted.and_then(|status| Some((status, named(&status.to_string())?)));
    let status_of = |code: &str| code.parse().ok().filter(|status| (200..600).contains(status));
    let chosen = by_status
        .or_else(|| success().map(|(code, response)| (status_of(code).unwrap_or(200), response)))
        .or_else(|| Some((wanted.unwrap_or(200), named("default")?)))
        .or_else(|| responses?.iter().next().map(|(code, response)| (status_of(code).unwrap_or(200), response)));
    let Some((status, response)) = chosen else {
        return Prepared { status: wanted.unwrap_or(200), fields: Fields::new(), body: Bytes::new() };
    };
    let response = resolved(response, root);
    let mut fields = Fields::new();
    let content = response.get("content").and_then(Value::as_object);
    let media = content.and_then(|all| all.iter().find(|(media, _)| media.contains("json")).or_else(|| all.iter().next()));
    let body = match media {
        Some((media, content)) => {
            if chars::is_value(media.as_bytes()) {
                fields.append("Content-Type", media);
            }
            body(media, content, root)
        }
        None => Bytes::new(),
    };
    for (name, header) in response.get("headers").and_then(Value::as_object).into_iter().flatten() {
        let value = match sample(resolved(header, root), root) {
            Value::String(text) => text,
            other => other.to_string(),
        };
        if chars::is_token(name.as_bytes()) && chars::is_value(value.as_bytes()) && !name.eq_ignore_ascii_case("content-type") {
            fields.append(name, value);
        }
    }
    Prepared { status, fields: fields.laid_out(), body }
}

/// `example`, the first of `examples`, or what the schema gives.
fn sample(content: &Value, root: &Value) -> Value {
    let named = content.get("examples").and_then(Value::as_object).and_then(|all| all.values().next());
    let first = named.and_then(|example| resolved(example, root).get("value"));
    match content.get("example").or(first) {
        Some(example) => example.clone(),
        None => content.get("schema").map(|schema| example(schema, root)).unwrap_or_default(),
    }
}

fn body(media: &str, content: &Value, root: &Value) -> Bytes {
    let sample = sample(content, root);
    Bytes::from(match sample {
        Value::String(text) if !media.contains("json") => text,
        sample if media.contains("xml") => xml::document(&sample),
        sample => sample.to_string(),
    })
}
