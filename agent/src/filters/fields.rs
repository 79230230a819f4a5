//! Header edits that users write (`add`, `set`, `remove`, or a plain map), compiled once. It knows no phase and no plugin.

use serde_json::{Map, Value};

use super::check::Faults;
use crate::exchange::{Exchange, Template};
use crate::http::chars::{any_word, has_control};
use crate::http::{FieldName, Fields, Name};

/// Bytes of a value that is put together, so that a usual one grows nothing.
const USUAL_VALUE: usize = 64;

/// Compiled header edits, applied in the order add, set, remove.
#[derive(Debug, Default)]
pub(crate) struct HeaderEdits {
    add: Vec<Part>,
    set: Vec<Part>,
    remove: Vec<FieldName>,
}

/// Fields that are added or set together.
#[derive(Debug)]
enum Part {
    /// Neighbours that are always the same, laid out once.
    Fixed(Fields),
    /// One that is made for each request.
    Made(FieldName, Template),
    /// `Host`, which stands beside the fields of a request.
    Host(FieldValue),
}

/// The value of a field: fixed, or made for each request.
#[derive(Debug)]
pub(crate) enum FieldValue {
    /// Always the same.
    Fixed(Box<str>),
    /// With variables.
    Template(Template),
}

impl FieldValue {
    /// Compiles a value.
    pub(crate) fn new(source: &str) -> FieldValue {
        let template = Template::new(source);
        match template.literal() {
            Some(text) => FieldValue::Fixed(text.into()),
            None => FieldValue::Template(template),
        }
    }

    /// The value for this request. What may not stand in a field (control characters) is left out.
    pub(crate) fn get(&self, x: &Exchange, captures: &[&str]) -> String {
        match self {
            FieldValue::Fixed(text) => text.to_string(),
            FieldValue::Template(template) => rendered(template, x, captures),
        }
    }
}

/// What a template gives for this request, without what may not stand in a field.
fn rendered(template: &Template, x: &Exchange, captures: &[&str]) -> String {
    let mut text = String::with_capacity(USUAL_VALUE);
    template.render_with(x, captures, &mut text);
    let blank = [' ', '\t'];
    if any_word(text.as_bytes(), has_control) {
        text.retain(|c| !c.is_ascii_control());
    }
    if text.starts_with(blank) || text.ends_with(blank) { text.trim_matches(blank).to_owned() } else { text }
}

/// Hands over what a template gives for this request. The address of the client, which is what is asked for most, is text already.
fn with_rendered<R>(template: &Template, x: &mut Exchange, captures: &[&str], take: impl FnOnce(&mut Fields, &[u8]) -> R) -> R {
    let connection = template.variable().filter(|variable| variable.is_client_address()).map(|_| x.connection.clone());
    match connection.filter(|connection| connection.peer == x.remote) {
        Some(connection) => take(&mut x.request.fields, connection.peer_text.ip()),
        None => {
            let value = rendered(template, x, captures);
            take(&mut x.request.fields, value.as_bytes())
        }
    }
}

impl HeaderEdits {
    /// Compiles `headers` of a plugin: an object with `add`, `set` and `remove`, or a plain map, which sets. Faults are put under `path`.
    pub(crate) fn compile(source: &Map<String, Value>, path: &str, faults: &mut Faults) -> HeaderEdits {
        let mut edits = HeaderEdits::default();
        let is_edit = |(key, value): (&String, &Value)| ["add", "set", "remove"].contains(&key.as_str()) && !is_text(value);
        if source.iter().any(is_edit) {
            for (key, value) in source {
                let path = format!("{path}.{key}");
                match (key.as_str(), value) {
                    ("add", Value::Object(map)) => edits.add = laid_out(pairs(map, &path, faults), append),
                    ("add", Value::Array(lines)) => edits.add = laid_out(parse_lines(lines, &path, faults), append),
                    ("set", Value::Object(map)) => edits.set = laid_out(pairs(map, &path, faults), set),
                    ("remove", Value::Array(names)) => edits.remove = parse_names(names, &path, faults),
                    ("add" | "set", _) => faults.add(path, "wrong type: expected object"),
                    ("remove", _) => faults.add(path, "wrong type: expected array"),
                    _ => faults.add(path, "expected add, set or remove"),
                }
            }
        } else {
            edits.set = laid_out(pairs(source, path, faults), set);
        }
        edits
    }

    /// Edits the fields of the request, one after the other. `Host` stands beside the fields, so its new value is returned.
    pub(crate) fn apply_to_request(&self, x: &mut Exchange, captures: &[&str]) -> Option<String> {
        let mut host = None;
        for part in &self.add {
            match part {
                Part::Fixed(lines) => x.request.fields.append_all(lines),
                Part::Made(name, template) => {
                    with_rendered(template, x, captures, |fields, value| fields.append_named(name, value))
                }
                Part::Host(value) => {
                    let value = value.get(x, captures);
                    x.request.fields.append_known(Name::Host, value);
                }
            }
        }
        for part in &self.set {
            match part {
                Part::Fixed(lines) => x.request.fields.set_all(lines),
                Part::Made(name, template) => with_rendered(template, x, captures, |fields, value| fields.set_named(name, value)),
                Part::Host(value) => host = Some(value.get(x, captures)),
            }
        }
        for name in &self.remove {
            x.request.fields.remove_named(name);
        }
        host
    }

    /// Edits the fields of a response.
    pub(crate) fn apply_to_response(&self, x: &Exchange, fields: &mut Fields) {
        for part in &self.add {
            match part {
                Part::Fixed(lines) => fields.append_all(lines),
                Part::Made(name, template) => fields.append_named(name, rendered(template, x, &[])),
                Part::Host(value) => fields.append_known(Name::Host, value.get(x, &[])),
            }
        }
        for part in &self.set {
            match part {
                Part::Fixed(lines) => fields.set_all(lines),
                Part::Made(name, template) => fields.set_named(name, rendered(template, x, &[])),
                Part::Host(value) => fields.set_known(Name::Host, value.get(x, &[])),
            }
        }
        for name in &self.remove {
            fields.remove_named(name);
        }
    }
}

static ACCEPT_ENCODING: FieldName = FieldName::of("Accept-Encoding");

/// What the client has said that it takes, once the upstream is asked for something else.
struct ClientAccepts(Vec<u8>);

/// Asks the upstream for a body that is not compressed, so that it can be read. What the client takes is kept for those who compress the response.
pub(crate) fn ask_for_plain(x: &mut Exchange) {
    let lines: Vec<&[u8]> = x.request.fields.get_all_named(&ACCEPT_ENCODING).collect();
    if lines.is_empty() {
        return;
    }
    let kept = ClientAccepts(lines.join(&b", "[..]));
    x.request.fields.remove_named(&ACCEPT_ENCODING);
    x.put("Accept-Encoding", kept);
}

/// Shows what the client has said in `Accept-Encoding`, line by line.
pub(crate) fn each_accepted(x: &Exchange, mut show: impl FnMut(&[u8])) {
    match x.slot::<ClientAccepts>("Accept-Encoding") {
        Some(kept) => show(&kept.0),
        None => x.request.fields.get_all_named(&ACCEPT_ENCODING).for_each(show),
    }
}

const VARY: FieldName = FieldName::of("Vary");

/// Adds the name of a request field to `Vary` unless it is there (RFC 9110 section 12.5.5).
pub(crate) fn vary_by(fields: &mut Fields, request_field: &str) {
    let member = |value: &[u8]| {
        value.split(|byte| *byte == b',').any(|name| {
            let name = name.trim_ascii();
            name == b"*" || name.eq_ignore_ascii_case(request_field.as_bytes())
        })
    };
    let present = fields.get_all_named(&VARY).any(member);
    if !present {
        fields.append_named(&VARY, request_field);
    }
}

fn append(fields: &mut Fields, name: &FieldName, value: &str) {
    fields.append_named(name, value);
}

fn set(fields: &mut Fields, name: &FieldName, value: &str) {
    fields.set_named(name, value);
}

/// Puts what is fixed into lists that are copied as a whole; `put` is how one field comes to those before it.
fn laid_out(pairs: Vec<(FieldName, FieldValue)>, put: fn(&mut Fields, &FieldName, &str)) -> Vec<Part> {
    let mut parts = Vec::new();
    for (name, value) in pairs {
        match (name.id(), value) {
            (Name::Host, value) => parts.push(Part::Host(value)),
            (_, FieldValue::Template(template)) => parts.push(Part::Made(name, template)),
            (_, FieldValue::Fixed(text)) => match parts.last_mut() {
                Some(Part::Fixed(fields)) => put(fields, &name, &text),
                _ => {
                    let mut fields = Fields::new();
                    put(&mut fields, &name, &text);
                    parts.push(Part::Fixed(fields));
                }
            },
        }
    }
    for part in &mut parts {
        if let Part::Fixed(fields) = part {
            *fields = fields.laid_out();
        }
    }
    parts
}

/// Whether the text may be the name of a field (RFC 9110 section 5.1).
pub(crate) fn is_name(text: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.len() <= 256 && text.bytes().all(token)
}

fn is_text(value: &Value) -> bool {
    value.is_string() || value.is_number()
}

fn pairs(map: &Map<String, Value>, path: &str, faults: &mut Faults) -> Vec<(FieldName, FieldValue)> {
    let mut pairs = Vec::with_capacity(map.len());
    for (name, value) in map {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => {
                faults.add(format!("{path}.{name}"), "wrong type: expected string or number");
                continue;
            }
        };
        pairs.extend(pair(name, &text, &format!("{path}.{name}"), faults));
    }
    pairs
}

fn pair(name: &str, value: &str, path: &str, faults: &mut Faults) -> Option<(FieldName, FieldValue)> {
    if !is_name(name) {
        faults.add(path, format!("expected the name of a header field, got \"{name}\""));
        return None;
    }
    if value.chars().any(|c| c.is_ascii_control() && c != '\t') {
        faults.add(path, "expected a value without control characters");
        return None;
    }
    Some((FieldName::new(name.to_owned()), FieldValue::new(value.trim())))
}

/// `"Name: value"` lines, as `response-rewrite` writes what is added.
fn parse_lines(lines: &[Value], path: &str, faults: &mut Faults) -> Vec<(FieldName, FieldValue)> {
    let mut pairs = Vec::with_capacity(lines.len());
    for (index, line) in lines.iter().enumerate() {
        let path = format!("{path}[{index}]");
        match line.as_str().and_then(|line| line.split_once(':')) {
            Some((name, value)) => pairs.extend(pair(name.trim(), value, &path, faults)),
            None => faults.add(path, "expected \"Name: value\""),
        }
    }
    pairs
}

fn parse_names(names: &[Value], path: &str, faults: &mut Faults) -> Vec<FieldName> {
    let mut list = Vec::with_capacity(names.len());
    for (index, name) in names.iter().enumerate() {
        match name.as_str().filter(|name| is_name(name)) {
            Some(name) => list.push(FieldName::new(name.to_owned())),
            None => faults.add(format!("{path}[{index}]"), "expected the name of a header field"),
        }
    }
    list
}
