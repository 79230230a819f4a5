//! A value as XML, for mocked answers that are XML. It knows no schemas.

use quick_xml::escape::escape;
use serde_json::Value;

/// The document of a value: `<data>` with an element for each member; lists repeat their element.
pub(super) fn document(value: &Value) -> String {
    let mut out = String::new();
    element("data", value, &mut out);
    out
}

fn element(name: &str, value: &Value, out: &mut String) {
    if let Value::Array(items) = value {
        return items.iter().for_each(|item| element(name, item, out));
    }
    let name = tag(name);
    out.push_str(&format!("<{name}>"));
    match value {
        Value::Object(members) => members.iter().for_each(|(name, value)| element(name, value, out)),
        Value::String(text) => out.push_str(&escape(text.as_str())),
        Value::Null => {}
        other => out.push_str(&other.to_string()),
    }
    out.push_str(&format!("</{name}>"));
}

/// The name with `_` for what may not stand in one.
fn tag(name: &str) -> String {
    let sound: String = name.chars().map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect();
    if sound.starts_with(|c: char| c.is_alphabetic() || c == '_') { sound } else { format!("_{sound}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn members_become_elements() {
        let value = json!({"1": true, "a b": "<x>", "list": [1, {"n": null}]});
        assert_eq!(document(&value), "<data><_1>true</_1><a_b>&lt;x&gt;</a_b><list>1</list><list><n></n></list></data>");
    }
}
