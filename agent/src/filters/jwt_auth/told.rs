//! What the upstream is told of a token that was found good, in fields of the request. It verifies nothing.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use crate::http::{FieldName, Fields};

/// The fields, which nobody else may set.
pub(super) struct Told {
    payload: Option<FieldName>,
    claims: Vec<(FieldName, Box<str>)>,
}

impl Told {
    /// Compiles them: the field of all claims, and those of single ones.
    pub(super) fn new(payload: Option<String>, claims: BTreeMap<String, String>) -> Told {
        let claim = |(name, claim): (String, String)| (FieldName::new(name), claim.into_boxed_str());
        Told { payload: payload.map(FieldName::new), claims: claims.into_iter().map(claim).collect() }
    }

    /// Takes off what clients say in them.
    pub(super) fn forget(&self, fields: &mut Fields) {
        for name in self.payload.iter().chain(self.claims.iter().map(|(name, _)| name)) {
            fields.remove_named(name);
        }
    }

    /// Says what the token says.
    pub(super) fn tell(&self, fields: &mut Fields, token: &str, claims: &Map<String, Value>) {
        if let Some((name, payload)) = self.payload.as_ref().zip(token.split('.').nth(1)) {
            fields.set_named(name, payload);
        }
        for (name, claim) in &self.claims {
            if let Some(text) = found(claims, claim).and_then(text) {
                fields.set_named(name, text);
            }
        }
    }
}

/// A claim by its whole name, or by the names on the way to it.
fn found<'c>(claims: &'c Map<String, Value>, name: &str) -> Option<&'c Value> {
    if let Some(value) = claims.get(name) {
        return Some(value);
    }
    let (first, rest) = name.split_once('.')?;
    found(claims.get(first)?.as_object()?, rest)
}

/// A claim as text; one of several parts is its JSON in base64url. What may not stand in a field says nothing.
fn text(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Null => return None,
        Value::Number(_) | Value::Bool(_) => value.to_string(),
        Value::Array(_) | Value::Object(_) => URL_SAFE_NO_PAD.encode(value.to_string()),
    };
    Some(text).filter(|text| !text.chars().any(char::is_control))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn claims_are_told_and_what_clients_say_of_them_is_not() {
        let headers = BTreeMap::from([("x-who".to_owned(), "sub".to_owned()), ("x-org".to_owned(), "org.id".to_owned())]);
        let told = Told::new(Some("x-payload".to_owned()), headers);
        let mut fields = Fields::new();
        for name in ["x-who", "x-org", "x-payload", "x-other"] {
            fields.append(name, "forged");
        }
        told.forget(&mut fields);
        assert_eq!((fields.len(), fields.get_str("x-other")), (1, Some("forged")));
        let claims = json!({"sub": "ann", "org": {"id": 7}});
        told.tell(&mut fields, "head.body.signature", claims.as_object().unwrap());
        let said = ["x-who", "x-org", "x-payload"].map(|name| fields.get_str(name));
        assert_eq!(said, [Some("ann"), Some("7"), Some("body")]);
        assert_eq!(text(&json!(["a"])).unwrap(), URL_SAFE_NO_PAD.encode("[\"a\"]"));
        assert_eq!((text(&json!("a\nb")), text(&Value::Null)), (None, None));
    }
}
