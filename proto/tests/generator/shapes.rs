//! The shapes of Envoy's messages as the text of a Rust module.

use std::collections::BTreeMap;
use std::fmt::Write;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};

/// Packages whose messages are described.
const PACKAGES: [&str; 4] = ["envoy.", "google.protobuf", "xds.", "udpa."];

/// The text of the module.
pub(super) fn generate(descriptors: &FileDescriptorSet) -> String {
    let mut messages = BTreeMap::new();
    for file in &descriptors.file {
        if PACKAGES.iter().any(|package| file.package().starts_with(package)) {
            file.message_type.iter().for_each(|message| collect(file.package(), message, &mut messages));
        }
    }
    let maps: Vec<String> = messages
        .iter()
        .filter(|(_, message)| message.options.as_ref().is_some_and(|o| o.map_entry()))
        .map(|(name, _)| name.clone())
        .collect();
    let mut text = String::from(
        "//! The shapes of Envoy's messages, generated from `proto/`; it knows nothing else of Heddle.\n\nuse crate::shape::{Field, FieldKind, Shape};\n\n\
        /// Every message, by the length of its name, and then by the name.\npub static SHAPES: &[Shape] = &[\n",
    );
    let mut sorted: Vec<_> = messages.iter().collect();
    sorted.sort_by_key(|(name, _)| (name.len(), *name));
    for (name, message) in sorted {
        _ = writeln!(text, "    Shape {{ name: {name:?}, fields: &[");
        for field in &message.field {
            let repeated = field.label() == Label::Repeated;
            let kind = kind(field, &maps);
            _ = writeln!(
                text,
                "        Field {{ number: {}, name: {:?}, kind: FieldKind::{kind}, repeated: {repeated} }},",
                field.number(),
                field.name()
            );
        }
        text.push_str("    ] },\n");
    }
    text.push_str("];\n");
    text
}

fn collect<'d>(package: &str, message: &'d DescriptorProto, into: &mut BTreeMap<String, &'d DescriptorProto>) {
    let name = format!("{package}.{}", message.name());
    message.nested_type.iter().for_each(|nested| collect(&name, nested, into));
    into.insert(name, message);
}

fn kind(field: &FieldDescriptorProto, maps: &[String]) -> String {
    let named = field.type_name().trim_start_matches('.');
    match field.r#type() {
        Type::Bool => "Bool".to_owned(),
        Type::Uint32 | Type::Uint64 => "Unsigned".to_owned(),
        Type::Int32 | Type::Int64 | Type::Enum => "Signed".to_owned(),
        Type::Sint32 | Type::Sint64 => "ZigZag".to_owned(),
        Type::Fixed32 | Type::Fixed64 => "Fixed".to_owned(),
        Type::Sfixed32 | Type::Sfixed64 => "SignedFixed".to_owned(),
        Type::Float | Type::Double => "Float".to_owned(),
        Type::String => "Text".to_owned(),
        Type::Bytes => "Bytes".to_owned(),
        Type::Message | Type::Group if maps.iter().any(|map| map == named) => format!("Map({named:?})"),
        Type::Message | Type::Group => format!("Message({named:?})"),
    }
}
