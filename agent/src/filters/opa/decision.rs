//! Decisions as a policy writes them: read strictly, because what is not understood must not open anything. It knows no requests.

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::http::Fields;

/// What a policy has decided.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) allow: bool,
    pub(super) status: u16,
    pub(super) reason: Bytes,
    /// Whether `reason` is JSON rather than text.
    pub(super) is_json: bool,
    pub(super) headers: Vec<(String, String)>,
}

/// Reads a decision out of the answer of the data API.
///
/// # Errors
/// What is missing.
pub(super) fn read(body: &[u8]) -> Result<Decision, &'static str> {
    let document: Value = serde_json::from_slice(body).map_err(|_| "the answer is not JSON")?;
    let result = document.get("result").ok_or("the answer holds no result: the policy is not defined")?;
    let result = result.as_object().ok_or("the result is no object: the policy must name a package, not a rule")?;
    let status = result.get("status_code").and_then(Value::as_u64).and_then(|status| u16::try_from(status).ok());
    let (reason, is_json) = match result.get("reason") {
        None | Some(Value::Null) => (Bytes::new(), false),
        Some(Value::String(text)) => (Bytes::from(text.clone()), false),
        Some(other) => (Bytes::from(other.to_string()), true),
    };
    Ok(Decision {
        // A value that is nearly true is no consent.
        allow: result.get("allow") == Some(&Value::Bool(true)),
        status: status.filter(|status| (200..600).contains(status)).unwrap_or(403),
        reason,
        is_json,
        headers: result.get("headers").and_then(Value::as_object).map(headers).unwrap_or_default(),
    })
}

fn headers(map: &Map<String, Value>) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (name, value) in map {
        match value {
            Value::Array(values) => all.extend(values.iter().filter_map(text).map(|value| (name.clone(), value))),
            one => all.extend(text(one).map(|value| (name.clone(), value))),
        }
    }
    all
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(bit) => Some(bit.to_string()),
        _ => None,
    }
}

impl Decision {
    /// Sets its headers in the answer to the client.
    pub(super) fn set_headers(&self, fields: &mut Fields) {
        for (name, value) in &self.headers {
            fields.append(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn only_true_allows() {
        for allow in [json!(false), json!("true"), json!(1), json!({}), Value::Null] {
            assert!(!read(json!({"result": {"allow": allow}}).to_string().as_bytes()).unwrap().allow);
        }
        assert!(!read(br#"{"result": {}}"#).unwrap().allow);
        assert!(read(br#"{"result": {"allow": true}}"#).unwrap().allow);
    }

    #[test]
    fn a_refusal_has_status_reason_and_headers() {
        let read = |result: Value| read(json!({ "result": result }).to_string().as_bytes()).unwrap();
        let full =
            read(json!({"allow": false, "status_code": 302, "reason": "why", "headers": {"a": "1", "b": [2, true], "c": {}}}));
        assert_eq!((full.status, &full.reason[..], full.is_json), (302, &b"why"[..], false));
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(full.headers, [pair("a", "1"), pair("b", "2"), pair("b", "true")]);
        let object = read(json!({"reason": {"code": 5}, "status_code": 99, "headers": []}));
        assert_eq!((object.status, &object.reason[..], object.is_json), (403, &br#"{"code":5}"#[..], true));
        assert!(object.headers.is_empty());
    }

    #[test]
    fn what_is_no_decision_is_said() {
        for (body, why) in [("x", "not JSON"), ("{}", "not defined"), ("[]", "not defined"), (r#"{"result": true}"#, "package")] {
            assert!(read(body.as_bytes()).unwrap_err().contains(why), "{body}");
        }
    }

    proptest! {
        #[test]
        fn nothing_strange_allows(body in ".{0,80}") {
            prop_assert!(read(body.as_bytes()).map_or(true, |decision| !decision.allow || body.contains("true")));
        }
    }
}
