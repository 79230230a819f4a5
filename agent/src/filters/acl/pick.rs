//! A path into JSON: the part of JSONPath (RFC 9535) that picks members and elements by name, number or all. It knows not what is picked for.

use serde_json::Value;

/// Most steps; each `[*]` may fan out, and what it is asked of comes from outside.
const MAX_STEPS: usize = 16;

/// A path, parsed once.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pick(Vec<Step>);

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Member(Box<str>),
    Element(usize),
    All,
}

impl Pick {
    /// Reads a path: `groups`, `$.a.b`, `a['b c'][0]`, `orgs[*].id`.
    ///
    /// # Errors
    /// Says where it stops making sense.
    pub(super) fn parse(text: &str) -> Result<Pick, String> {
        let wrong =
            |rest: &str| format!("expected a path such as groups, $.realm_access.roles or orgs[*].id, stopped at \"{rest}\"");
        let mut rest = text.strip_prefix('$').unwrap_or(text);
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let (step, behind) = if let Some(inner) = rest.strip_prefix('[') {
                bracket(inner).ok_or_else(|| wrong(rest))?
            } else {
                let name = if steps.is_empty() && !text.starts_with('$') { Some(rest) } else { rest.strip_prefix('.') };
                member(name.ok_or_else(|| wrong(rest))?).ok_or_else(|| wrong(rest))?
            };
            steps.push(step);
            rest = behind;
        }
        if steps.is_empty() || steps.len() > MAX_STEPS {
            return Err(format!("expected a path of 1 to {MAX_STEPS} steps, got {}", steps.len()));
        }
        Ok(Pick(steps))
    }

    /// Calls `each` with every value that the path leads to until it says true; says whether it did.
    pub(super) fn any(&self, from: &Value, each: &mut dyn FnMut(&Value) -> bool) -> bool {
        follow(&self.0, from, each)
    }
}

fn follow(steps: &[Step], from: &Value, each: &mut dyn FnMut(&Value) -> bool) -> bool {
    let Some((step, rest)) = steps.split_first() else { return each(from) };
    match (step, from) {
        (Step::Member(name), Value::Object(map)) => map.get(&**name).is_some_and(|value| follow(rest, value, each)),
        (Step::Element(place), Value::Array(list)) => list.get(*place).is_some_and(|value| follow(rest, value, each)),
        (Step::All, Value::Array(list)) => list.iter().any(|value| follow(rest, value, each)),
        (Step::All, Value::Object(map)) => map.values().any(|value| follow(rest, value, each)),
        _ => false,
    }
}

/// What stands in brackets, and what comes behind them.
fn bracket(inner: &str) -> Option<(Step, &str)> {
    for quote in ['\'', '"'] {
        if let Some(quoted) = inner.strip_prefix(quote) {
            let (name, rest) = quoted.split_once(quote)?;
            return Some((Step::Member(name.into()), rest.strip_prefix(']')?));
        }
    }
    let (content, rest) = inner.split_once(']')?;
    let step = if content == "*" { Step::All } else { Step::Element(content.parse().ok()?) };
    Some((step, rest))
}

fn member(rest: &str) -> Option<(Step, &str)> {
    let end = rest.find(['.', '[']).unwrap_or(rest.len());
    let (name, behind) = rest.split_at(end);
    match name {
        "" => None,
        "*" => Some((Step::All, behind)),
        name => Some((Step::Member(name.into()), behind)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn all(path: &str, from: &Value) -> Vec<Value> {
        let mut out = Vec::new();
        Pick::parse(path).unwrap().any(from, &mut |value| {
            out.push(value.clone());
            false
        });
        out
    }

    #[test]
    fn paths_lead_to_values() {
        let user = json!({"groups": ["a", "b"], "orgs": [{"id": 1}, {"id": 2}, {}], "a b": {"c.d": 3}});
        assert_eq!(all("groups", &user), [json!(["a", "b"])]);
        assert_eq!(all("$.groups[1]", &user), [json!("b")]);
        assert_eq!(all("orgs[*].id", &user), [json!(1), json!(2)]);
        assert_eq!(all("$['a b'][\"c.d\"]", &user), [json!(3)]);
        assert_eq!(all("$.*[0]", &user), [json!("a"), json!({"id": 1})]);
        for nothing in ["nope", "groups.a", "groups[7]", "$.orgs.id"] {
            assert!(all(nothing, &user).is_empty(), "{nothing}");
        }
        assert!(Pick::parse("orgs[*].id").unwrap().any(&user, &mut |value| *value == 2));
    }

    #[test]
    fn what_is_no_path_is_told() {
        for text in ["", "$", "$groups", "a..b", "a[", "a[x]", "a['b]", "a['b'", ".a", "a]b["] {
            assert!(Pick::parse(text).is_err(), "{text}");
        }
        assert!(Pick::parse(&"a.".repeat(20)).is_err() && Pick::parse(&["a"; 17].join(".")).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_fall(text in "[$.\\[\\]*'\"a0 ]{0,30}") {
            if let Ok(pick) = Pick::parse(&text) {
                pick.any(&json!({"a": [[0, {"a": 1}]]}), &mut |_| false);
            }
        }
    }
}
