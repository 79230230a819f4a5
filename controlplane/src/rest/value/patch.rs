//! PATCH: merging into a whole resource, and replacing one attribute of it.

use serde_json::{Map, Value};

/// Merges `change` into `target`: objects recursively, `null` deletes, everything else replaces.
pub(in super::super) fn merge(target: &mut Value, change: &Value) {
    let (Value::Object(target), Value::Object(change)) = (&mut *target, change) else {
        *target = change.clone();
        return;
    };
    for (name, value) in change {
        match value {
            Value::Null => {
                target.shift_remove(name);
            }
            Value::Object(_) => merge(target.entry(name).or_insert_with(|| Value::Object(Map::new())), value),
            _ => {
                target.insert(name.clone(), value.clone());
            }
        }
    }
}

/// Replaces the attribute at `path`, making the objects on the way; `null` deletes it.
pub(in super::super) fn replace(target: &mut Value, path: &[String], value: Value) -> Result<(), String> {
    let Some((last, way)) = path.split_last() else { return Err("invalid sub-path: /".to_owned()) };
    let refused = || format!("invalid sub-path: /{}", path.join("/"));
    let mut here = target;
    for step in way {
        let Value::Object(map) = here else { return Err(refused()) };
        here = map.entry(step).or_insert_with(|| Value::Object(Map::new()));
    }
    let Value::Object(map) = here else { return Err(refused()) };
    match value {
        Value::Null => drop(map.shift_remove(last)),
        value => drop(map.insert(last.clone(), value)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use serde_json::json;

    #[test]
    fn merging_is_recursive_and_null_deletes() {
        let mut value = json!({"a": {"b": 1, "c": 2}, "d": [1, 2], "e": 5});
        merge(&mut value, &json!({"a": {"b": null, "x": {"y": null, "z": 1}}, "d": [3], "e": {"f": 1}}));
        assert_eq!(value, json!({"a": {"c": 2, "x": {"z": 1}}, "d": [3], "e": {"f": 1}}));
    }

    #[test]
    fn an_attribute_is_replaced_on_its_path() {
        let path = |text: &str| text.split('/').map(str::to_owned).collect::<Vec<_>>();
        let mut value = json!({"upstream": {"nodes": {"a:80": 1}}, "uri": "/a"});
        replace(&mut value, &path("upstream/nodes"), json!({"b:80": 2})).unwrap();
        replace(&mut value, &path("labels/env"), json!("x")).unwrap();
        assert_eq!(value, json!({"upstream": {"nodes": {"b:80": 2}}, "uri": "/a", "labels": {"env": "x"}}));
        replace(&mut value, &path("labels/env"), Value::Null).unwrap();
        assert_eq!(value["labels"], json!({}));
        assert_eq!(replace(&mut value, &path("uri/x"), json!(1)), Err("invalid sub-path: /uri/x".to_owned()));
        assert!(replace(&mut value, &[], json!(1)).is_err());
    }
}
