//! Upstreams that plugins carry in their configurations, by id or written in place: where they stand. Nothing else of plugins is known here.

use serde_json::{Map, Value};

/// Fields that lead to the objects which may name an upstream in `upstream_id` or hold one in `upstream`; lists on the way are gone through. `None` for
/// a plugin that carries none.
pub fn carrying(plugin: &str) -> Option<&'static [&'static str]> {
    match plugin {
        "ext-authz" | "failover" | "proxy-mirror" => Some(&[]),
        "traffic-split" => Some(&["rules", "weighted_upstreams"]),
        _ => None,
    }
}

/// Those objects in the configuration of a plugin, with their paths in it (`rules[0].weighted_upstreams[2]`, empty for the whole).
pub fn carriers<'a>(plugin: &str, config: &'a Value) -> Vec<(String, &'a Map<String, Value>)> {
    let mut found = Vec::new();
    if let Some(fields) = carrying(plugin) {
        gather(config, fields, String::new(), &mut found);
    }
    found
}

fn gather<'a>(value: &'a Value, fields: &[&str], path: String, found: &mut Vec<(String, &'a Map<String, Value>)>) {
    match (value, fields) {
        (Value::Array(items), _) => {
            items.iter().enumerate().for_each(|(index, item)| gather(item, fields, format!("{path}[{index}]"), found));
        }
        (Value::Object(map), []) => found.push((path, map)),
        (Value::Object(map), [first, rest @ ..]) => {
            let dot = if path.is_empty() { "" } else { "." };
            if let Some(next) = map.get(*first) {
                gather(next, rest, format!("{path}{dot}{first}"), found);
            }
        }
        _ => {}
    }
}

/// The same objects in the same order, to be changed.
pub fn carriers_mut<'a>(plugin: &str, config: &'a mut Value) -> Vec<&'a mut Map<String, Value>> {
    let mut found = Vec::new();
    if let Some(fields) = carrying(plugin) {
        gather_mut(config, fields, &mut found);
    }
    found
}

fn gather_mut<'a>(value: &'a mut Value, fields: &[&str], found: &mut Vec<&'a mut Map<String, Value>>) {
    match (value, fields) {
        (Value::Array(items), _) => items.iter_mut().for_each(|item| gather_mut(item, fields, found)),
        (Value::Object(map), []) => found.push(map),
        (Value::Object(map), [first, rest @ ..]) => {
            if let Some(next) = map.get_mut(*first) {
                gather_mut(next, rest, found);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_ways_find_the_same_objects_in_the_same_order() {
        let split =
            json!({"rules": [{"weighted_upstreams": [{"weight": 1}, 5]}, 3, {"weighted_upstreams": [{"weight": 2}]}, {}]});
        let paths: Vec<_> = carriers("traffic-split", &split).into_iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["rules[0].weighted_upstreams[0]", "rules[2].weighted_upstreams[0]"]);
        for (plugin, config) in [("traffic-split", split), ("failover", json!({"upstream_id": 1})), ("failover", json!([]))] {
            let maps: Vec<_> = carriers(plugin, &config).into_iter().map(|(_, map)| map.clone()).collect();
            let mut changed = config.clone();
            assert_eq!(carriers_mut(plugin, &mut changed).into_iter().map(|map| map.clone()).collect::<Vec<_>>(), maps);
        }
        assert!(carriers("cors", &json!({"upstream_id": 1})).is_empty());
    }
}
