//! Goes through all that a resource may say, by the schema: each field of each message that the decoder looks into is set by itself, and what becomes of it is written
//! down. It knows no field by its name.

use std::collections::{BTreeMap, BTreeSet};

use heddle_proto::envoy::shapes::SHAPES;
use heddle_proto::shape::{Field, FieldKind, find};
use heddle_xds::dialect::envoy::decode::{DecodeFault, Piece, decode};
use heddle_xds::dialect::envoy::kind::EnvoyKind;
use serde_json::{Value, json};

use super::specimens;

/// What nobody can know.
const NOBODY: &str = "type.googleapis.com/nobody.knows.It";
/// A field that no schema has.
const UNKNOWN: &str = "#9999";
/// The name of an entry of a map.
const ENTRY: &str = "p";

/// What becomes of the fields of a message in one place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    /// They change what is done.
    pub done: BTreeSet<String>,
    /// They are taken, and change nothing.
    pub idle: BTreeSet<String>,
}

/// What was found out.
pub struct Walk {
    /// By the name of the message, and the field in which it stands.
    pub found: BTreeMap<String, BTreeMap<String, Entry>>,
    /// What must not be, by message, place and field: forgotten where another form of the message has the field taken there.
    pub wrong: BTreeMap<[String; 3], String>,
    /// How many fields are refused by their names.
    pub refused: usize,
    seen: BTreeSet<Vec<String>>,
    /// Words that the decoder knows, whatever the schema has.
    words: BTreeSet<String>,
    asked: BTreeSet<String>,
}

/// Where a message stands.
#[derive(Clone)]
struct Spot {
    kind: EnvoyKind,
    doc: Value,
    /// A JSON pointer.
    at: String,
    message: &'static str,
    /// The fields that lead there, each with its message.
    trail: Vec<String>,
}

/// What became of one field.
#[derive(Default)]
struct Fate {
    taken: bool,
    changes: bool,
    refusals: Vec<DecodeFault>,
    /// Resources in which it is taken.
    docs: Vec<Value>,
}

impl Spot {
    fn here<'v>(&self, doc: &'v mut Value) -> &'v mut serde_json::Map<String, Value> {
        doc.pointer_mut(&self.at).and_then(Value::as_object_mut).unwrap_or_else(|| panic!("{} is no message", self.at))
    }

    fn with(&self, name: &str, value: Value) -> Value {
        let mut doc = self.doc.clone();
        self.here(&mut doc).insert(name.to_owned(), value);
        doc
    }

    fn names(&self) -> Vec<String> {
        let there = self.doc.pointer(&self.at).and_then(Value::as_object);
        there.into_iter().flatten().map(|(name, _)| name.clone()).collect()
    }

    fn place(&self) -> String {
        format!("{} ({})", self.message, self.trail.last().map_or("resource", String::as_str))
    }
}

impl Walk {
    /// Goes through every kind of resource; `words` are names that the decoder knows.
    pub fn new(words: BTreeSet<String>) -> Walk {
        let mut walk = Walk {
            found: BTreeMap::new(),
            wrong: BTreeMap::new(),
            refused: 0,
            seen: BTreeSet::new(),
            words,
            asked: BTreeSet::new(),
        };
        for kind in EnvoyKind::ALL {
            for doc in specimens::of(kind.message()) {
                if decode(kind, &doc).is_ok() {
                    walk.visit(&Spot { kind, doc, at: String::new(), message: kind.message(), trail: Vec::new() });
                }
            }
        }
        let (found, wrong) = (&walk.found, &mut walk.wrong);
        wrong.retain(|[message, context, field], _| {
            let entry = found.get(message).and_then(|contexts| contexts.get(context));
            !entry.is_some_and(|entry| entry.done.contains(field) || entry.idle.contains(field))
        });
        walk
    }

    fn visit(&mut self, spot: &Spot) {
        let base = match decode(spot.kind, &spot.doc) {
            Ok(base) => base,
            Err(fault) => panic!("{}: {fault:?}", spot.place()),
        };
        let shape = find(spot.message).unwrap_or_else(|| panic!("no shape of {}", spot.message));
        let context = spot.trail.last().cloned().unwrap_or_default();
        for field in shape.fields {
            let fate = self.try_field(spot, field, &base);
            let inner = self.look_inside(spot, field, &fate);
            let entry = self.found.entry(spot.message.to_owned()).or_default().entry(context.clone()).or_default();
            if fate.changes || inner {
                entry.idle.remove(field.name);
                entry.done.insert(field.name.to_owned());
            } else if fate.taken && !entry.done.contains(field.name) {
                entry.idle.insert(field.name.to_owned());
            } else if !fate.taken {
                self.refused += 1;
                self.judge_refusal(spot, field, &fate);
            }
        }
        self.found.entry(spot.message.to_owned()).or_default().entry(context).or_default();
        self.beyond_the_schema(spot, shape.fields);
    }

    /// What is read although the schema does not have it.
    fn beyond_the_schema(&mut self, spot: &Spot, fields: &[Field]) {
        if !self.asked.insert(spot.message.to_owned()) {
            return;
        }
        let known: BTreeSet<&str> = fields.iter().map(|field| field.name).collect();
        let words: Vec<String> = self.words.iter().filter(|word| !known.contains(word.as_str())).cloned().collect();
        if decode(spot.kind, &spot.with(UNKNOWN, json!(true))).is_ok() {
            return;
        }
        let context = spot.trail.last().cloned().unwrap_or_default();
        for word in words {
            if decode(spot.kind, &spot.with(&word, json!(true))).is_ok() {
                let entries = self.found.entry(spot.message.to_owned()).or_default();
                entries.entry(context.clone()).or_default().idle.insert(word);
            }
        }
    }

    fn try_field(&self, spot: &Spot, field: &Field, base: &Piece) -> Fate {
        let mut fate = Fate::default();
        let names = spot.names();
        if names.iter().any(|name| name == field.name) {
            fate.taken = true;
            let mut without = spot.doc.clone();
            spot.here(&mut without).remove(field.name);
            fate.changes = decode(spot.kind, &without).map_or(true, |piece| piece != *base);
            fate.docs.push(spot.doc.clone());
        }
        for value in samples(field) {
            let doc = spot.with(field.name, value);
            match decode(spot.kind, &doc) {
                // To say no is to say nothing of what is refused otherwise.
                Ok(piece) if says_no(&doc, spot, field) && piece == *base => {}
                Ok(piece) => {
                    fate.taken = true;
                    fate.changes |= piece != *base;
                    fate.docs.push(doc);
                }
                Err(fault) => {
                    // It may exclude another one.
                    let instead = names.iter().filter(|name| *name != field.name && *name != "@type").find_map(|name| {
                        let mut doc = doc.clone();
                        spot.here(&mut doc).remove(name);
                        decode(spot.kind, &doc).is_ok().then_some(doc)
                    });
                    fate.taken |= instead.is_some();
                    fate.changes |= instead.is_some();
                    fate.docs.extend(instead);
                    fate.refusals.push(fault);
                }
            }
        }
        fate
    }

    /// A refusal must name the field, and must not come from a message that says too little.
    fn judge_refusal(&mut self, spot: &Spot, field: &Field, fate: &Fate) {
        let named = |fault: &&DecodeFault| format!("{} {}", fault.field, fault.reason).contains(field.name);
        let Some(fault) = fate.refusals.iter().find(named).or(fate.refusals.first()) else { return };
        let place = format!("{}/{}", spot.at, field.name);
        let told = format!("/{}", fault.field.replace(['[', '.'], "/").replace(']', ""));
        let inside = told.strip_prefix(&place).is_some_and(|rest| !matches!(rest, "" | "/0"));
        let asks = ["is missing", "expected exactly one", "must not be empty"].iter().any(|ask| fault.reason.starts_with(ask));
        if !named(&fault) {
            self.blame(spot, field.name, format!("is refused without its name: {fault:?}"));
        } else if is_message(field) && (inside || asks) {
            self.blame(spot, field.name, format!("is looked into, and no specimen of it is right: {fault:?}"));
        }
    }

    fn blame(&mut self, spot: &Spot, field: &str, what: String) {
        let place = [spot.message.to_owned(), spot.trail.last().cloned().unwrap_or_default(), field.to_owned()];
        self.wrong.insert(place, what);
    }

    /// Goes through the messages in a field; whether something in them changes what is done.
    fn look_inside(&mut self, spot: &Spot, field: &Field, fate: &Fate) -> bool {
        let (name, any) = match field.kind {
            FieldKind::Message("google.protobuf.Any") => (None, true),
            FieldKind::Message(name) if !name.starts_with("google.") => (Some(name), false),
            FieldKind::Map(entry) => match value_of(entry) {
                Some("google.protobuf.Any") => (None, true),
                Some(name) if !name.starts_with("google.") => (Some(name), false),
                _ => return false,
            },
            _ => return false,
        };
        let mut trail = spot.trail.clone();
        trail.push(format!("{}.{}", display(spot.message), field.name));
        let mut changes = false;
        for doc in &fate.docs {
            let Some(at) = inner_place(doc, &format!("{}/{}", spot.at, field.name), field) else { continue };
            let inner = Spot { kind: spot.kind, doc: doc.clone(), at, message: name.unwrap_or_default(), trail: trail.clone() };
            if any {
                changes |= self.any_inside(&inner);
            } else if decode(spot.kind, &inner.with(UNKNOWN, json!(true))).is_err() {
                self.descend(&inner);
                let entry = self.found.get(inner.message).and_then(|contexts| contexts.get(trail.last()?));
                changes |= entry.is_some_and(|entry| !entry.done.is_empty());
            }
        }
        changes
    }

    /// Visits each place once, for each form that a message may have there.
    fn descend(&mut self, spot: &Spot) {
        let near = &spot.trail[spot.trail.len().saturating_sub(2)..];
        let form = spot.doc.pointer(&spot.at).map(|value| outline(value, 2)).unwrap_or_default();
        let mut key = near.to_vec();
        key.push(format!("{} {form}", spot.message));
        key.push(outline(&spot.doc, 1));
        if self.seen.insert(key) {
            self.visit(spot);
        }
    }

    /// Tries every message that there is as a message of any type; whether one of them is known.
    fn any_inside(&mut self, spot: &Spot) -> bool {
        let near = &spot.trail[spot.trail.len().saturating_sub(2)..];
        let mut key = near.to_vec();
        key.push("any".to_owned());
        let put = |value: Value| {
            let mut doc = spot.doc.clone();
            if let Some(there) = doc.pointer_mut(&spot.at) {
                *there = value;
            }
            doc
        };
        if decode(spot.kind, &put(json!({"@type": NOBODY}))).is_ok() {
            return false;
        }
        if !self.seen.insert(key) {
            return true;
        }
        for shape in SHAPES.iter().filter(|shape| shape.name.starts_with("envoy.")) {
            for form in specimens::of(shape.name) {
                let mut form = form;
                form["@type"] = json!(format!("type.googleapis.com/{}", shape.name));
                let doc = put(form);
                match decode(spot.kind, &doc) {
                    Ok(_) => self.descend(&Spot { doc, message: shape.name, ..spot.clone() }),
                    Err(fault) if fault.field.ends_with("@type") => {}
                    Err(fault) => self.unfit(spot, shape.name, &put, fault),
                }
            }
        }
        true
    }

    /// A message of a known type in a form that is not right here: one of its forms must be.
    fn unfit(&mut self, spot: &Spot, name: &str, put: &dyn Fn(Value) -> Value, fault: DecodeFault) {
        let right = specimens::of(name).into_iter().any(|mut form| {
            form["@type"] = json!(format!("type.googleapis.com/{name}"));
            decode(spot.kind, &put(form)).is_ok()
        });
        if !right {
            self.blame(spot, name, format!("no specimen of it is right: {fault:?}"));
        }
    }
}

/// Which fields a message has, and those of the first messages in it.
fn outline(value: &Value, depth: usize) -> String {
    match value {
        Value::Object(fields) if depth > 0 => {
            fields.iter().map(|(name, value)| format!("{name} {}", outline(value, depth - 1))).collect::<Vec<_>>().join(" ")
        }
        Value::Array(items) => items.first().map(|item| outline(item, depth)).unwrap_or_default(),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    }
}

fn says_no(doc: &Value, spot: &Spot, field: &Field) -> bool {
    doc.pointer(&format!("{}/{}", spot.at, field.name)) == Some(&Value::Bool(false))
}

fn is_message(field: &Field) -> bool {
    matches!(field.kind, FieldKind::Message(name) if !name.starts_with("google."))
}

fn value_of(entry: &str) -> Option<&'static str> {
    match find(entry)?.fields.iter().find(|field| field.name == "value")?.kind {
        FieldKind::Message(name) => Some(name),
        _ => None,
    }
}

/// Where the first message of a field stands.
fn inner_place(doc: &Value, at: &str, field: &Field) -> Option<String> {
    let there = doc.pointer(at)?;
    let inner = match (there, field.kind) {
        (Value::Array(_), _) => format!("{at}/0"),
        (Value::Object(entries), FieldKind::Map(_)) => format!("{at}/{}", entries.keys().next()?),
        _ => at.to_owned(),
    };
    doc.pointer(&inner)?.is_object().then_some(inner)
}

/// The name of a message as the pages have it.
pub fn display(message: &str) -> String {
    let short = |name: &str| name.rsplit_once(".v3.").map_or(name, |(_, name)| name).to_owned();
    let own = short(message);
    let twice = SHAPES.iter().filter(|shape| short(shape.name) == own).count() > 1;
    if twice { message.trim_start_matches("envoy.").to_owned() } else { own }
}

/// Values of a field that say something.
fn samples(field: &Field) -> Vec<Value> {
    let numbers = || [1, 2, 3, 4, 5, 6, 7, 16, 40, 100, 404, 503, 2_000, 4_294_967_295_u64].map(|number| json!(number)).to_vec();
    let flags = || vec![json!(true), json!(false)];
    let texts = [
        "x-a",
        "/x",
        "a.example",
        "7",
        "10.0.0.1",
        "websocket",
        "5xx",
        "*.b.example",
        "tls",
        "raw_buffer",
        "Bearer ",
        "p",
        "HTTP/1.1",
    ];
    let unknown = || json!({"@type": NOBODY});
    let one: Vec<Value> = match field.kind {
        FieldKind::Bool => flags(),
        FieldKind::Float => vec![json!(40.0)],
        FieldKind::Text => texts.map(|text| json!(text)).to_vec(),
        FieldKind::Bytes => vec![json!("eyJrZXlzIjogW119")],
        FieldKind::Map(entry) => {
            let values = match value_of(entry) {
                Some("google.protobuf.Any") => {
                    vec![unknown(), specimens::any("extensions.filters.http.fault.v3.HTTPFault", json!({})), options()]
                }
                Some(name) if !name.starts_with("google.") => specimens::of(name),
                Some(_) => vec![json!({"a": "b"})],
                None => vec![json!("b")],
            };
            return values.into_iter().flat_map(|value| [ENTRY, "envoy.lb"].map(|entry| json!({entry: value}))).collect();
        }
        FieldKind::Message(name) => match name.strip_prefix("google.protobuf.") {
            Some("BoolValue") => flags(),
            Some("UInt32Value" | "UInt64Value" | "DoubleValue") => numbers(),
            Some("Duration") => vec![json!("7s")],
            Some("Any") => vec![unknown(), specimens::any("extensions.filters.http.router.v3.Router", json!({}))],
            Some("Struct") => vec![json!({"a": "b"})],
            Some(_) => vec![json!({})],
            None => specimens::of(name),
        },
        _ => numbers(),
    };
    if field.repeated { one.into_iter().map(|value| json!([value])).collect() } else { one }
}

fn options() -> Value {
    let kind = "extensions.upstreams.http.v3.HttpProtocolOptions";
    specimens::any(kind, specimens::of(&format!("envoy.{kind}")).swap_remove(0))
}
