//! From the bytes of a message to the tree that its JSON would be, by the schema of the protos; what the schema does not have is kept as unknown. It knows no field.

use heddle_proto::shape::{Field, FieldKind, Shape, find};
use prost::bytes::Buf;
use prost::encoding::{WireType, decode_key, decode_varint};
use serde_json::{Map, Value};

use super::read::{Fault, Read, TYPE, UNKNOWN, from_bytes};

/// How deep messages may be nested.
const MAX_DEPTH: usize = 48;
/// Values of one resource; bounds the memory that a small resource can be blown up to.
const MAX_VALUES: usize = 1_000_000;
const GOOGLE: &str = "google.protobuf.";

/// The tree of a message of this type.
///
/// # Errors
/// The bytes are no such message, or too large; the type is not one of the schema.
pub fn tree(type_name: &str, bytes: &[u8]) -> Read<Value> {
    let shape = find(type_name).ok_or_else(|| Fault::new(TYPE, format!("{type_name:.200} is not supported")))?;
    Decoder { values: 0 }.message(shape, bytes, 0)
}

/// The tree of a message without one of its lists of messages, and the elements of that list as they lie in the bytes: the tree of a long list would be many times
/// as large as its bytes, and all of it would be there at once.
///
/// # Errors
/// As [`tree`].
pub fn tree_without<'b>(type_name: &str, list: &str, bytes: &'b [u8]) -> Read<(Value, Vec<&'b [u8]>)> {
    let field = find(type_name).and_then(|shape| shape.fields.iter().find(|field| field.name == list && field.repeated));
    let (mut others, mut elements) = (Vec::new(), Vec::new());
    let mut rest = bytes;
    while !rest.is_empty() {
        let before = rest;
        match next(&mut rest)? {
            (number, Raw::Bytes(element)) if field.is_some_and(|field| field.number == number) => elements.push(element),
            _ => others.extend_from_slice(&before[..before.len() - rest.len()]),
        }
    }
    Ok((tree(type_name, &others)?, elements))
}

/// What a field of text says, in bytes of which more need not be readable than what is before it.
pub fn text_in(type_name: &str, field: &str, bytes: &[u8]) -> Option<String> {
    let number = find(type_name)?.fields.iter().find(|known| known.name == field)?.number;
    let (mut rest, mut found) = (bytes, None);
    while !rest.is_empty() {
        match next(&mut rest) {
            Ok((at, Raw::Bytes(text))) if at == number => found = std::str::from_utf8(text).ok().map(str::to_owned),
            Ok(_) => {}
            Err(_) => break,
        }
    }
    found
}

struct Decoder {
    values: usize,
}

fn broken(what: &str) -> Fault {
    Fault::new("", format!("is not a valid protobuf message: {what}"))
}

/// One field as it lies in the bytes.
enum Raw<'b> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'b [u8]),
}

/// The next field.
fn next<'b>(rest: &mut &'b [u8]) -> Read<(u32, Raw<'b>)> {
    let (number, wire) = decode_key(rest).map_err(|_| broken("bad key"))?;
    let raw = match wire {
        WireType::Varint => Raw::Varint(decode_varint(rest).map_err(|_| broken("bad number"))?),
        WireType::SixtyFourBit if rest.len() >= 8 => Raw::Fixed64(rest.get_u64_le()),
        WireType::ThirtyTwoBit if rest.len() >= 4 => Raw::Fixed32(rest.get_u32_le()),
        WireType::LengthDelimited => {
            let length = decode_varint(rest).map_err(|_| broken("bad length"))?;
            let length =
                usize::try_from(length).ok().filter(|length| *length <= rest.len()).ok_or_else(|| broken("cut short"))?;
            let (inner, after) = rest.split_at(length);
            *rest = after;
            Raw::Bytes(inner)
        }
        _ => return Err(broken("cut short or a group")),
    };
    Ok((number, raw))
}

impl Decoder {
    fn message(&mut self, shape: &Shape, bytes: &[u8], depth: usize) -> Read<Value> {
        self.values += 1;
        if depth > MAX_DEPTH || self.values > MAX_VALUES {
            return Err(Fault::new("", "is nested too deeply or has too many values"));
        }
        if let Some(known) = shape.name.strip_prefix(GOOGLE)
            && let Some(value) = self.well_known(known, bytes, depth)?
        {
            return Ok(value);
        }
        let mut map = Map::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let (number, raw) = next(&mut rest)?;
            self.values += 1;
            match shape.fields.iter().find(|field| field.number == number) {
                Some(field) => self.field(field, raw, &mut map, depth).map_err(|fault| fault.inside(field.name))?,
                None => drop(map.insert(format!("{UNKNOWN}{number}"), Value::Bool(true))),
            }
        }
        Ok(Value::Object(map))
    }

    fn field(&mut self, field: &Field, raw: Raw<'_>, map: &mut Map<String, Value>, depth: usize) -> Read<()> {
        if let FieldKind::Map(entry) = field.kind {
            let Raw::Bytes(bytes) = raw else { return Err(broken("a map entry is no message")) };
            let shape = find(entry).ok_or_else(|| broken("a map without a schema"))?;
            let (key, value) = self.entry(shape, bytes, depth)?;
            let slot = map.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(inner) = slot {
                inner.insert(key, value);
            }
            return Ok(());
        }
        if !field.repeated {
            let value = self.value(field.kind, raw, depth)?;
            // The last one counts, as the encoding wants it for all but messages in parts, which no encoder sends.
            if map.insert(field.name.to_owned(), value).is_some() && matches!(field.kind, FieldKind::Message(_)) {
                return Err(broken("a message that is there twice"));
            }
            return Ok(());
        }
        let Value::Array(items) = map.entry(field.name).or_insert_with(|| Value::Array(Vec::new())) else { return Ok(()) };
        match (raw, field.kind) {
            (Raw::Bytes(packed), kind) if !matches!(kind, FieldKind::Text | FieldKind::Bytes | FieldKind::Message(_)) => {
                let mut rest = packed;
                while !rest.is_empty() {
                    self.values += 1;
                    let raw = unpack(kind, &mut rest)?;
                    items.push(self.value(kind, raw, depth)?);
                }
            }
            (raw, kind) => items.push(self.value(kind, raw, depth)?),
        }
        Ok(())
    }

    fn entry(&mut self, shape: &Shape, bytes: &[u8], depth: usize) -> Read<(String, Value)> {
        let mut entry = match self.message(shape, bytes, depth + 1)? {
            Value::Object(entry) => entry,
            _ => return Err(broken("a map entry is no message")),
        };
        let key = match entry.remove("key") {
            None => String::new(),
            Some(Value::String(key)) => key,
            Some(other) => other.to_string(),
        };
        Ok((key, entry.remove("value").unwrap_or_else(|| Value::String(String::new()))))
    }

    fn value(&mut self, kind: FieldKind, raw: Raw<'_>, depth: usize) -> Read<Value> {
        Ok(match (kind, raw) {
            (FieldKind::Bool, Raw::Varint(number)) => Value::Bool(number != 0),
            (FieldKind::Unsigned, Raw::Varint(number)) => number.into(),
            (FieldKind::Signed, Raw::Varint(number)) => number.cast_signed().into(),
            (FieldKind::ZigZag, Raw::Varint(number)) => ((number >> 1).cast_signed() ^ -((number & 1).cast_signed())).into(),
            (FieldKind::Fixed, Raw::Fixed64(number)) => number.into(),
            (FieldKind::Fixed, Raw::Fixed32(number)) => number.into(),
            (FieldKind::SignedFixed, Raw::Fixed64(number)) => number.cast_signed().into(),
            (FieldKind::SignedFixed, Raw::Fixed32(number)) => number.cast_signed().into(),
            (FieldKind::Float, Raw::Fixed64(number)) => f64::from_bits(number).into(),
            (FieldKind::Float, Raw::Fixed32(number)) => f64::from(f32::from_bits(number)).into(),
            (FieldKind::Text, Raw::Bytes(bytes)) => {
                Value::String(String::from_utf8(bytes.to_vec()).map_err(|_| broken("a text that is not UTF-8"))?)
            }
            (FieldKind::Bytes, Raw::Bytes(bytes)) => from_bytes(bytes),
            (FieldKind::Message(name), Raw::Bytes(bytes)) => {
                let shape = find(name).ok_or_else(|| Fault::new("", format!("{name} is not supported")))?;
                self.message(shape, bytes, depth + 1)?
            }
            _ => return Err(broken("a field of another type")),
        })
    }

    /// The types that the mapping writes in a way of their own; `None` for those that it does not.
    fn well_known(&mut self, name: &str, bytes: &[u8], depth: usize) -> Read<Option<Value>> {
        let fields = || -> Read<Vec<(u32, Raw<'_>)>> {
            let (mut rest, mut fields) = (bytes, Vec::new());
            while !rest.is_empty() {
                fields.push(next(&mut rest)?);
            }
            Ok(fields)
        };
        let wrapped = |kind: FieldKind, default: Value| -> Read<Value> {
            match fields()?.pop() {
                None => Ok(default),
                Some((_, raw)) => Decoder { values: 0 }.value(kind, raw, depth),
            }
        };
        Ok(Some(match name {
            "BoolValue" => wrapped(FieldKind::Bool, Value::Bool(false))?,
            "UInt32Value" | "UInt64Value" => wrapped(FieldKind::Unsigned, 0.into())?,
            "Int32Value" | "Int64Value" => wrapped(FieldKind::Signed, 0.into())?,
            "DoubleValue" | "FloatValue" => wrapped(FieldKind::Float, 0.into())?,
            "StringValue" => wrapped(FieldKind::Text, "".into())?,
            "BytesValue" => wrapped(FieldKind::Bytes, "".into())?,
            "Duration" => time(fields()?),
            "Any" => self.any(&fields()?, depth)?,
            "Struct" => {
                let mut map = Map::new();
                for (_, raw) in fields()? {
                    let Raw::Bytes(bytes) = raw else { return Err(broken("a struct")) };
                    let shape = find("google.protobuf.Struct.FieldsEntry").ok_or_else(|| broken("no schema"))?;
                    let (key, value) = self.entry(shape, bytes, depth)?;
                    map.insert(key, value);
                }
                Value::Object(map)
            }
            "ListValue" => {
                let mut items = Vec::new();
                for (_, raw) in fields()? {
                    items.push(self.value(FieldKind::Message("google.protobuf.Value"), raw, depth)?);
                }
                Value::Array(items)
            }
            "Value" => match fields()?.pop() {
                Some((2, raw)) => self.value(FieldKind::Float, raw, depth)?,
                Some((3, raw)) => self.value(FieldKind::Text, raw, depth)?,
                Some((4, raw)) => self.value(FieldKind::Bool, raw, depth)?,
                Some((5, raw)) => self.value(FieldKind::Message("google.protobuf.Struct"), raw, depth)?,
                Some((6, raw)) => self.value(FieldKind::Message("google.protobuf.ListValue"), raw, depth)?,
                _ => Value::Null,
            },
            _ => return Ok(None),
        }))
    }

    /// A message of any type: with its fields when the type is known, else with its bytes.
    fn any(&mut self, fields: &[(u32, Raw<'_>)], depth: usize) -> Read<Value> {
        let (mut url, mut body): (&[u8], &[u8]) = (b"", b"");
        for (number, raw) in fields {
            match (number, raw) {
                (1, Raw::Bytes(bytes)) => url = bytes,
                (2, Raw::Bytes(bytes)) => body = bytes,
                _ => {}
            }
        }
        let url = std::str::from_utf8(url).map_err(|_| broken("a type that is not UTF-8"))?;
        let name = url.rsplit('/').next().unwrap_or(url);
        let mut map = match find(name).map(|shape| self.message(shape, body, depth + 1)).transpose()? {
            Some(Value::Object(map)) => map,
            Some(value) => Map::from_iter([("value".to_owned(), value)]),
            None => Map::from_iter([("value".to_owned(), from_bytes(body))]),
        };
        map.insert(TYPE.to_owned(), url.into());
        Ok(Value::Object(map))
    }
}

/// A time as the mapping writes it.
fn time(fields: Vec<(u32, Raw<'_>)>) -> Value {
    let (mut seconds, mut nanos) = (0, 0);
    for (number, raw) in fields {
        match (number, raw) {
            (1, Raw::Varint(value)) => seconds = value.cast_signed(),
            (2, Raw::Varint(value)) => nanos = value.cast_signed(),
            _ => {}
        }
    }
    // A negative time, or one of too many parts of a second, is refused by whoever reads it.
    let sign = if seconds < 0 || nanos < 0 { "-" } else { "" };
    Value::String(format!("{sign}{}.{:09}s", seconds.unsigned_abs(), nanos.unsigned_abs()))
}

/// One of the numbers that lie in a row.
fn unpack<'b>(kind: FieldKind, rest: &mut &'b [u8]) -> Read<Raw<'b>> {
    match kind {
        FieldKind::Fixed | FieldKind::SignedFixed | FieldKind::Float => Err(broken("packed numbers of fixed size")),
        _ => decode_varint(rest).map(Raw::Varint).map_err(|_| broken("bad number")),
    }
}
