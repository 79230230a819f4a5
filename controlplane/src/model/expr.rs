//! Checks `vars` expressions (the grammar of lua-resty-expr) without evaluating them: the agent compiles them itself.

use regex::Regex;
use serde_json::Value;

use super::addr::network;

/// Groups within groups.
const DEEPEST: usize = 32;
/// Conditions of one expression.
const MOST_CONDITIONS: usize = 1024;

/// The first fault of an expression: an array of conditions that must all hold. The text names the place, counted from zero.
pub fn check(expression: &Value) -> Result<(), String> {
    let Some(items) = expression.as_array() else {
        return Err(format!("expected an array of conditions, got {expression}"));
    };
    let mut left = MOST_CONDITIONS;
    match items.first() {
        None => Ok(()),
        Some(Value::String(first)) if group_operator(first).is_none() => {
            Err("rule should be wrapped inside brackets, for example [[\"arg_name\", \"==\", \"jack\"]]".to_owned())
        }
        Some(Value::String(_)) => group(items, "", DEEPEST, &mut left),
        Some(_) => members(items, "", DEEPEST, &mut left),
    }
}

/// Whether a text opens a group (case does not matter).
fn group_operator(text: &str) -> Option<&'static str> {
    ["AND", "OR", "!AND", "!OR"].into_iter().find(|op| op.eq_ignore_ascii_case(text))
}

fn members(items: &[Value], path: &str, depth: usize, left: &mut usize) -> Result<(), String> {
    if depth == 0 {
        return Err(format!("{path}: groups nest deeper than {DEEPEST}"));
    }
    for (index, item) in items.iter().enumerate() {
        let path = format!("{path}[{index}]");
        *left = left.checked_sub(1).ok_or_else(|| format!("{path}: more than {MOST_CONDITIONS} conditions"))?;
        let Some(parts) = item.as_array() else {
            return Err(format!("{path}: expected a condition [variable, operator, value], got {item}"));
        };
        match parts.first().and_then(Value::as_str).and_then(group_operator) {
            Some(_) => group(parts, &path, depth - 1, left)?,
            None => condition(parts, &path)?,
        }
    }
    Ok(())
}

/// `["OR", condition, condition, …]`.
fn group(parts: &[Value], path: &str, depth: usize, left: &mut usize) -> Result<(), String> {
    if parts.len() < 3 {
        return Err(format!("{path}: a group needs an operator and at least 2 conditions"));
    }
    members(&parts[1..], path, depth, left)
}

/// `[variable, value]`, `[variable, operator, value]` or `[variable, "!", operator, value]`.
fn condition(parts: &[Value], path: &str) -> Result<(), String> {
    let variable = match parts.first() {
        Some(Value::String(name)) if !name.is_empty() => name,
        _ => return Err(format!("{path}: expected the name of a variable first")),
    };
    let (operator, value) = match parts {
        [_, _] => return Ok(()),
        [_, Value::String(operator), value] => (operator, value),
        [_, Value::String(negation), Value::String(operator), value] if negation == "!" => (operator, value),
        [_, Value::String(first), ..] if parts.len() == 4 => {
            return Err(format!("{path}: expected \"!\" before the operator of {variable}, got \"{first}\""));
        }
        _ => {
            return Err(format!(
                "{path}: expected [variable, operator, value], got {} parts or an operator that is no text",
                parts.len()
            ));
        }
    };
    operand(&operator.to_ascii_lowercase(), value).map_err(|why| format!("{path}: {why}"))
}

fn operand(operator: &str, value: &Value) -> Result<(), String> {
    let simple = |value: &Value| !value.is_array() && !value.is_object();
    match operator {
        "==" | "~=" => Ok(()),
        ">" | ">=" | "<" | "<=" => match value {
            Value::Number(_) => Ok(()),
            Value::String(text) if text.trim().parse::<f64>().is_ok() => Ok(()),
            other => Err(format!("operator {operator} expects a number, got {other}")),
        },
        "~~" | "~*" => match value {
            Value::String(pattern) => regex(pattern),
            other => Err(format!("operator {operator} expects a regular expression, got {other}")),
        },
        "in" => match value.as_array() {
            Some(items) if items.iter().all(simple) => Ok(()),
            _ => Err(format!("operator in expects an array of simple values, got {value}")),
        },
        "has" if simple(value) => Ok(()),
        "has" => Err(format!("operator has expects a simple value, got {value}")),
        "ipmatch" => addresses(value),
        unknown => Err(format!("invalid operator '{unknown}' (expected ==, ~=, >, >=, <, <=, ~~, ~*, in, has or ipmatch)")),
    }
}

fn addresses(value: &Value) -> Result<(), String> {
    let one = |value: &Value| match value {
        Value::String(text) => network(text).map(drop),
        other => Err(format!("operator ipmatch expects addresses or networks, got {other}")),
    };
    match value {
        Value::Array(items) => items.iter().try_for_each(one),
        other => one(other),
    }
}

/// Whether the data plane's linear-time engine takes a pattern.
pub(super) fn regex(pattern: &str) -> Result<(), String> {
    Regex::new(pattern).map(drop).map_err(|error| {
        let reason = error.to_string();
        let last = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
        format!("regular expression \"{pattern}\" is refused: {last}")
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn the_grammar_is_accepted() {
        for good in [
            json!([]),
            json!([["arg_name", "==", "json"]]),
            json!([["arg_name", "json"]]),
            json!([["arg_age", ">", 18], ["arg_age", "!", "<=", "99"]]),
            json!([["http_x", "==", null]]),
            json!(["OR", ["a", "==", 1], ["b", "~~", "^x"]]),
            json!([["AND", ["a", "IN", ["x", 1]], ["!or", ["b", "has", 1], ["c", "~*", "y"]]]]),
            json!([["remote_addr", "ipmatch", "10.0.0.0/8"], ["remote_addr", "!", "ipmatch", ["::1", "1.2.3.4"]]]),
        ] {
            assert_eq!(check(&good), Ok(()), "{good}");
        }
    }

    #[test]
    fn faults_name_the_place() {
        for (bad, part) in [
            (json!(["a", "==", 1]), "rule should be wrapped inside brackets"),
            (json!({"a": 1}), "expected an array"),
            (json!([["a", "=>", 1]]), "[0]: invalid operator '=>'"),
            (json!([["a", "==", 1], ["b", "~~", "("]]), "[1]: regular expression"),
            (json!([["b", "~~", "(?=x)"]]), "look-around"),
            (json!([["OR", ["a", "==", 1]]]), "[0]: a group needs"),
            (json!([["a", "in", "x"]]), "operator in expects an array"),
            (json!([["a", "ipmatch", "10.0.0.300"]]), "invalid ip address: 10.0.0.300"),
            (json!([["a", "<", "x"]]), "expects a number"),
            (json!([["a", "not", "==", 1]]), "expected \"!\""),
            (json!([[]]), "name of a variable"),
            (json!([["a"]]), "expected [variable, operator, value]"),
            (json!(["x"]), "wrapped inside brackets"),
        ] {
            let error = check(&bad).unwrap_err();
            assert!(error.contains(part), "{bad}: {error}");
        }
    }

    #[test]
    fn depth_and_count_are_bounded() {
        let mut deep = json!([["a", "==", 1], ["b", "==", 2]]);
        for _ in 0..40 {
            deep = json!([["OR", deep[0].clone(), deep[1].clone()], ["b", "==", 2]]);
        }
        assert!(check(&deep).unwrap_err().contains("nest deeper"));
        let wide = Value::Array(vec![json!(["a", "==", 1]); 1025]);
        assert!(check(&wide).unwrap_err().contains("more than 1024"));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            prop::sample::select(vec!["AND", "!OR", "!", "==", "in", "~~", "ipmatch", "arg_a", "", "("]).prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 64, 5, |inner| prop::collection::vec(inner, 0..5).prop_map(Value::Array))
    }

    proptest! {
        #[test]
        fn any_value_gets_an_answer_and_wrapping_keeps_it(value in any_json()) {
            let alone = check(&value);
            if value.as_array().is_some_and(|a| a.len() > 1 && a[0].is_array()) {
                let mut grouped = vec![json!("AND")];
                grouped.extend(value.as_array().unwrap().iter().cloned());
                prop_assert_eq!(alone.is_ok(), check(&Value::Array(grouped)).is_ok());
            }
        }
    }
}
