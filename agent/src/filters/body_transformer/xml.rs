//! XML as a value: elements by name, bounded in depth and number; no entities but the predefined ones, no document types. It knows no templates.

use quick_xml::Reader;
use quick_xml::escape::{resolve_xml_entity, unescape};
use quick_xml::events::{BytesStart, Event};
use serde_json::{Map, Value};

/// Deepest nesting of elements.
const MAX_DEPTH: usize = 64;
/// Most elements and attributes of a document.
const MAX_NODES: usize = 100_000;
/// Most attributes of an element: each is compared with those before it, since none may come twice.
const MAX_ATTRIBUTES: usize = 256;

/// An element under way.
#[derive(Default)]
struct Element {
    name: String,
    attributes: Map<String, Value>,
    children: Vec<(String, Value)>,
    texts: Vec<String>,
}

/// Reads a document: an element without attributes and children is its text, another an object of its children by name (without prefixes), with
/// `_attr` for the attributes and `"1"` for its text. Elements of the same name become a list.
///
/// # Errors
/// Says what is wrong with it.
pub(super) fn read(text: &str) -> Result<Value, String> {
    let mut reader = Reader::from_str(text);
    let mut stack = vec![Element::default()];
    let mut nodes = 0;
    loop {
        let at = reader.buffer_position();
        let event = reader.read_event().map_err(|error| format!("bad XML at byte {at}: {error}"))?;
        match event {
            Event::Start(start) => {
                let element = begin(&start, &mut nodes)?;
                if stack.len() > MAX_DEPTH {
                    return Err(format!("the XML is nested deeper than {MAX_DEPTH} elements"));
                }
                stack.push(element);
            }
            Event::Empty(start) => {
                let element = begin(&start, &mut nodes)?;
                close(element, &mut stack);
            }
            Event::End(_) => {
                let element = stack.pop().unwrap_or_default();
                close(element, &mut stack);
            }
            Event::Text(piece) => add_text(&mut stack, &piece.xml10_content()),
            Event::CData(piece) => add_text(&mut stack, &piece.xml10_content()),
            Event::GeneralRef(entity) => {
                let name = entity.xml10_content();
                let character = entity.resolve_char_ref().map_err(|error| format!("bad XML at byte {at}: {error}"))?;
                match (character, resolve_xml_entity(&name)) {
                    (Some(character), _) => add_text(&mut stack, character.encode_utf8(&mut [0; 4])),
                    (None, Some(text)) => add_text(&mut stack, text),
                    (None, None) => {
                        return Err(format!("the XML names the entity &{name};, and only the predefined ones are known"));
                    }
                }
            }
            Event::DocType(_) => return Err("the XML has a document type, which is refused".to_owned()),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
            Event::Eof => break,
        }
    }
    match (stack.pop(), stack.is_empty()) {
        (Some(root), true) if !root.children.is_empty() => Ok(value(root)),
        (_, true) => Err("the XML holds no element".to_owned()),
        _ => Err("the XML ends within an element".to_owned()),
    }
}

fn begin(start: &BytesStart<'_>, nodes: &mut usize) -> Result<Element, String> {
    let mut element = Element { name: start.local_name().as_ref().to_owned(), ..Element::default() };
    *nodes += 1;
    for (before, attribute) in start.attributes().enumerate() {
        let attribute = attribute.map_err(|error| format!("bad XML: {error}"))?;
        if before >= MAX_ATTRIBUTES {
            return Err(format!("an element of the XML has more than {MAX_ATTRIBUTES} attributes"));
        }
        let text = unescape(&attribute.value).map_err(|error| format!("bad XML: {error}"))?;
        element.attributes.insert(attribute.key.local_name().as_ref().to_owned(), Value::from(text.into_owned()));
        *nodes += 1;
    }
    if *nodes > MAX_NODES { Err(format!("the XML has more than {MAX_NODES} elements and attributes")) } else { Ok(element) }
}

/// Text pieces with nothing but text between them are one.
fn add_text(stack: &mut [Element], text: &str) {
    let Some(element) = stack.last_mut() else { return };
    match element.texts.last_mut() {
        Some(last) => last.push_str(text),
        None => element.texts.push(text.to_owned()),
    }
}

fn close(mut element: Element, stack: &mut [Element]) {
    let name = std::mem::take(&mut element.name);
    if let Some(parent) = stack.last_mut() {
        parent.children.push((name, value(element)));
    }
}

fn value(element: Element) -> Value {
    let text: String = element.texts.concat();
    let text = text.trim();
    if element.children.is_empty() && element.attributes.is_empty() {
        return Value::from(text);
    }
    let mut lists: Map<String, Value> = Map::new();
    for (name, child) in element.children {
        match lists.get_mut(&name) {
            None => _ = lists.insert(name, child),
            // No element is a list by itself, so this is one of several of the name.
            Some(Value::Array(list)) => list.push(child),
            Some(first) => *first = Value::Array(vec![first.take(), child]),
        }
    }
    if !element.attributes.is_empty() {
        lists.insert("_attr".to_owned(), Value::Object(element.attributes));
    }
    if !text.is_empty() {
        lists.insert("1".to_owned(), Value::from(text));
    }
    Value::Object(lists)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn elements_become_what_lua_made_of_them() {
        let text = "<?xml version=\"1.0\"?><!-- c --><s:Envelope xmlns:s=\"u\"><s:Body a=\"1 &lt; 2\"> x &amp; &#65;<![CDATA[<y>]]></s:Body>\
            <item>1</item><item>2</item><item/><deep><a> b </a></deep></s:Envelope>";
        let expected = json!({"Envelope": {"_attr": {"s": "u"}, "Body": {"_attr": {"a": "1 < 2"}, "1": "x & A<y>"},
            "item": ["1", "2", ""], "deep": {"a": "b"}}});
        assert_eq!(read(text).unwrap(), expected);
    }

    #[test]
    fn what_could_explode_is_refused() {
        let bomb = "<!DOCTYPE a [<!ENTITY b \"bbb\">]><a>&b;</a>";
        assert!(read(bomb).unwrap_err().contains("document type"));
        assert!(read("<a>&b;</a>").unwrap_err().contains("&b;"));
        assert!(read("<a b=\"&c;\"/>").is_err());
        assert!(read(&"<a>".repeat(100)).unwrap_err().contains("deeper"));
        assert!(read(&format!("<a>{}</a>", "<b/>".repeat(MAX_NODES + 1))).unwrap_err().contains("more than"));
    }

    /// The time for each of these once went with the square of its length.
    #[test]
    fn what_is_long_takes_no_longer_than_its_length() {
        let attributes: String = (0..90_000).map(|n| format!(" a{n}=\"\"")).collect();
        assert!(read(&format!("<a{attributes}/>")).unwrap_err().contains("attributes"));
        let prefixed: String = (0..90_000).map(|n| format!(" p{n}:a=\"\"")).collect();
        assert!(read(&format!("<a{prefixed}/>")).unwrap_err().contains("attributes"));
        let names: String = (0..33_000).map(|n| format!("<e{n}/>")).collect();
        let value = read(&format!("<a>{names}{names}{names}</a>")).unwrap();
        assert_eq!(value["a"]["e32999"], json!(["", "", ""]));
    }

    #[test]
    fn what_is_no_document_is_refused() {
        for text in ["", "text", "<a>", "<a></b>", "</a>", "<a b>", "<a><b></a>"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[<>/a-c&;=\" !?\\[\\]#x1-]{0,60}") {
            let _ = read(&text);
        }
    }
}
