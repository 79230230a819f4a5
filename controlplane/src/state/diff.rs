//! What would change: the present configuration beside a proposed one, field by field. A function of its arguments.

use serde_json::Value;

use super::State;
use crate::model::Key;

/// Fields that are listed for one resource at most; a resource that differs in more is as good as new.
const MAX_FIELDS: usize = 1_000;

/// How a resource would change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It does not exist yet.
    Created,
    /// It would be different.
    Changed,
    /// It would be gone.
    Removed,
    /// It is that already.
    Unchanged,
}

/// One field that would be different.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldChange {
    /// Where, as a JSON pointer (RFC 6901); empty for the whole.
    pub pointer: String,
    /// What is there, `None` when nothing is.
    pub before: Option<Value>,
    /// What would be there, `None` when nothing would.
    pub after: Option<Value>,
}

/// One resource beside its proposal.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Which.
    pub key: Key,
    /// How it would change.
    pub change: Change,
    /// Where, for [`Change::Changed`].
    pub fields: Vec<FieldChange>,
}

/// Compares `proposed` (a value, or `None` for a removal) with what is believed. What the keeper fills in (`id`,
/// `create_time`, `update_time`) counts for nothing at the top of a resource.
pub fn diff(state: &State, proposed: &[(Key, Option<Value>)]) -> Vec<Difference> {
    let compare = |(key, after): &(Key, Option<Value>)| {
        let mut fields = Vec::new();
        let change = match (state.get(key), after) {
            (None, None) => Change::Unchanged,
            (None, Some(_)) => Change::Created,
            (Some(_), None) => Change::Removed,
            (Some(before), Some(after)) if super::plan::same(&before.value, after) => Change::Unchanged,
            (Some(before), Some(after)) => {
                walk(&mut String::new(), &before.value, after, true, &mut fields);
                Change::Changed
            }
        };
        Difference { key: key.clone(), change, fields }
    };
    proposed.iter().map(compare).collect()
}

fn walk(at: &mut String, before: &Value, after: &Value, top: bool, fields: &mut Vec<FieldChange>) {
    if fields.len() >= MAX_FIELDS || before == after {
        return;
    }
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            let names = old.keys().chain(new.keys().filter(|name| !old.contains_key(*name)));
            for name in names.filter(|name| !(top && super::plan::STAMPS.contains(&name.as_str()))) {
                let token = name.replace('~', "~0").replace('/', "~1");
                step(at, &token, old.get(name), new.get(name), fields);
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            for index in 0..old.len().max(new.len()) {
                step(at, &index.to_string(), old.get(index), new.get(index), fields);
            }
        }
        _ => note(at, Some(before), Some(after), fields),
    }
}

fn step(at: &mut String, token: &str, before: Option<&Value>, after: Option<&Value>, fields: &mut Vec<FieldChange>) {
    let len = at.len();
    at.push('/');
    at.push_str(token);
    match (before, after) {
        (Some(before), Some(after)) => walk(at, before, after, false, fields),
        (before, after) => note(at, before, after, fields),
    }
    at.truncate(len);
}

fn note(at: &str, before: Option<&Value>, after: Option<&Value>, fields: &mut Vec<FieldChange>) {
    if fields.len() < MAX_FIELDS {
        fields.push(FieldChange { pointer: at.to_owned(), before: before.cloned(), after: after.cloned() });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::sync::Arc;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::model::ResourceKind;
    use crate::state::Stored;

    fn state(values: &[(&str, Value)]) -> State {
        let mut state = State::default();
        for (id, value) in values {
            let stored = Stored { value: value.clone(), created: 1, modified: 1, expires_at_ms: None };
            state.set(&Key::new(ResourceKind::Route, *id), Some(Arc::new(stored)));
        }
        state
    }

    #[test]
    fn every_resource_is_created_changed_removed_or_unchanged() {
        let state = state(&[
            ("same", json!({"uri": "/", "id": "same", "create_time": 1, "update_time": 2})),
            ("other", json!({"uri": "/a", "plugins": {"a/b": {"x": [1, 2]}}, "create_time": 1})),
            ("gone", json!({})),
        ]);
        let key = |id: &str| Key::new(ResourceKind::Route, id);
        let proposed = [
            (key("same"), Some(json!({"uri": "/"}))),
            (key("other"), Some(json!({"uri": "/b", "plugins": {"a/b": {"x": [1, 3, 4]}}, "desc": "d"}))),
            (key("gone"), None),
            (key("new"), Some(json!({"uri": "/new"}))),
            (key("never"), None),
        ];
        let found = diff(&state, &proposed);
        let changes: Vec<Change> = found.iter().map(|it| it.change).collect();
        assert_eq!(changes, [Change::Unchanged, Change::Changed, Change::Removed, Change::Created, Change::Unchanged]);
        let fields: Vec<(&str, Option<Value>, Option<Value>)> =
            found[1].fields.iter().map(|it| (it.pointer.as_str(), it.before.clone(), it.after.clone())).collect();
        assert_eq!(
            fields,
            [
                ("/uri", Some(json!("/a")), Some(json!("/b"))),
                ("/plugins/a~1b/x/1", Some(json!(2)), Some(json!(3))),
                ("/plugins/a~1b/x/2", None, Some(json!(4))),
                ("/desc", None, Some(json!("d"))),
            ]
        );
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), (0u8..4).prop_map(Value::from)];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-c/~]", inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// Each pointer leads to what the difference says, on both sides.
        #[test]
        fn pointers_lead_where_they_say(before in value(), after in value()) {
                        let (present, proposal) = (json!({ "v": before }), json!({ "v": after }));
            let state = state(&[("r", present.clone())]);
            let found = &diff(&state, &[(Key::new(ResourceKind::Route, "r"), Some(proposal.clone()))])[0];
            prop_assert_eq!(found.change == Change::Unchanged, before == after);
            prop_assert_eq!(found.fields.is_empty(), before == after);
            for field in &found.fields {
                prop_assert_eq!(present.pointer(&field.pointer), field.before.as_ref());
                prop_assert_eq!(proposal.pointer(&field.pointer), field.after.as_ref());
                prop_assert!(field.before != field.after);
            }
        }
    }
}
