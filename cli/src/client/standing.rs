//! How nodes stand to one resource of a user: `heddle get COLLECTION ID --status`. It knows what data-plane resources are called, not what they are.

use heddle_proto::heddle::admin::v1 as api;
use serde_json::{Value, json};

use super::look::show;
use super::render::table;
use crate::args::Output;
use crate::output::say;

/// How one node stands to a resource, with the node's own words.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Standing {
    node: String,
    speaks: String,
    state: &'static str,
    why: String,
}

/// Prints how nodes stand to a resource.
pub(super) fn say_of(key: &api::Key, nodes: &[api::NodeStatus], output: Output) {
    let all: Vec<Standing> = nodes.iter().flat_map(|node| of(key, node)).collect();
    if output != Output::Table {
        let one = |one: &Standing| json!({ "node": one.node, "speaks": one.speaks, "state": one.state, "reason": one.why });
        return show(&Value::Array(all.iter().map(one).collect()), output);
    }
    let row = |one: &Standing| vec![one.node.clone(), one.speaks.clone(), one.state.to_owned(), one.why.clone()];
    say(&table(&["NODE", "SPEAKS", "STATE", "WHY"], &all.iter().map(row).collect::<Vec<_>>()));
}

/// Adds what is held of a resource with the group of a node: with the node itself only the first are told.
pub(super) fn with_all_held(nodes: &mut [api::NodeStatus], groups: &[api::Rollout], key: &api::Key) {
    for node in nodes.iter_mut().filter(|node| !node.held.is_empty()) {
        let of_group = groups.iter().find(|group| group.group == node.group).map(|group| &group.held);
        let of_others = of_group.into_iter().flatten().filter(|held| held.node != node.id);
        let of_key = of_others.filter(|held| held.nack.as_ref().is_some_and(|nack| is_meant(key, nack)));
        node.held = of_key.cloned().collect();
    }
}

/// Whether a refusal is of what a user's resource stands for, or of all routes, which Envoy has in one.
fn is_meant(key: &api::Key, nack: &api::Nack) -> bool {
    let kind = nack.type_url.rsplit('.').next().unwrap_or_default();
    kind == "RouteConfiguration" && key.collection == "routes" || is_of(key, kind, &nack.resource)
}

fn of(key: &api::Key, node: &api::NodeStatus) -> Vec<Standing> {
    let standing = |state, why| Standing { node: node.id.clone(), speaks: node.speaks.clone(), state, why };
    let withheld = node.withheld.iter().filter(|one| is_of(key, &one.kind, &one.resource));
    let withheld = withheld.map(|one| standing("withheld", one.reason.clone()));
    let nacks = node.nacks.iter().filter_map(|nack| {
        let kind = nack.type_url.rsplit('.').next().unwrap_or_default();
        // Envoy has all routes in one, so that each of them waits for the one that is refused.
        let with_others = kind == "RouteConfiguration" && key.collection == "routes";
        if !with_others && !is_of(key, kind, &nack.resource) {
            return None;
        }
        let field = if nack.field.is_empty() { String::new() } else { format!("{}: ", nack.field) };
        let state = if with_others { "refused with all routes" } else { "refused" };
        Some(standing(state, format!("{field}{}", nack.reason)))
    });
    let held = node.held.iter().filter_map(|held| {
        let nack = held.nack.as_ref()?;
        let kind = nack.type_url.rsplit('.').next().unwrap_or_default();
        let with_others = kind == "RouteConfiguration" && key.collection == "routes";
        let state = if with_others { "held with all routes" } else { "held" };
        let why = || format!("{} refuses it: {}", held.node, nack.reason);
        (with_others || is_of(key, kind, &nack.resource)).then(|| standing(state, why()))
    });
    let all: Vec<Standing> = withheld.chain(nacks).chain(held).collect();
    if !all.is_empty() {
        return all;
    }
    let state = match (&node.connected_since, node.types.iter().any(|held| held.pending)) {
        (None, _) => "away",
        (_, true) => "under way",
        (_, false) => "confirmed",
    };
    vec![standing(state, String::new())]
}

/// Whether a data-plane resource is one that a user's resource stands for. Upstreams and what belongs to them are called after their collection.
fn is_of(key: &api::Key, kind: &str, name: &str) -> bool {
    let own = match key.collection.as_str() {
        "routes" => kind == "Route",
        "ssls" => kind == "Certificate",
        "listeners" => kind == "Listener",
        "consumers" => kind == "Consumer",
        "global_rules" => kind == "GlobalRule",
        "plugin_metadata" => kind == "PluginMetadata",
        _ => false,
    };
    let below = name.strip_prefix(&key.collection).and_then(|rest| rest.strip_prefix('/'));
    let below = below.and_then(|rest| rest.strip_prefix(&key.id));
    (own && name == key.id) || below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(collection: &str, id: &str) -> api::Key {
        api::Key { collection: collection.into(), id: id.into() }
    }

    fn states(key: &api::Key, node: &api::NodeStatus) -> Vec<&'static str> {
        of(key, node).iter().map(|one| one.state).collect()
    }

    #[test]
    fn refusals_and_what_is_withheld_are_shown_on_the_resource_that_caused_them() {
        let nack = |kind: &str, resource: &str| api::Nack {
            type_url: format!("type.googleapis.com/x.{kind}"),
            resource: resource.into(),
            reason: "no".into(),
            ..Default::default()
        };
        let withheld = api::Withheld { kind: "Route".into(), resource: "kept".into(), reason: "not here".into() };
        let mut node = api::NodeStatus {
            id: "e".into(),
            nacks: vec![nack("Cluster", "upstreams/u"), nack("Cluster", "routes/inline")],
            withheld: vec![withheld],
            ..Default::default()
        };
        assert_eq!(states(&key("upstreams", "u"), &node), ["refused"]);
        assert_eq!(states(&key("upstreams", "u2"), &node), ["away"]);
        assert_eq!(states(&key("routes", "inline"), &node), ["refused"]);
        assert_eq!(states(&key("routes", "kept"), &node), ["withheld"]);
        node.connected_since = Some(Default::default());
        assert_eq!(states(&key("routes", "good"), &node), ["confirmed"]);
        node.held = vec![api::Held { nack: Some(nack("Route", "good")), node: "canary".into(), version: "2".into() }];
        assert_eq!(states(&key("routes", "good"), &node), ["held"]);
        assert_eq!(of(&key("routes", "good"), &node)[0].why, "canary refuses it: no");
        let held = |name: &str| api::Held { nack: Some(nack("Route", name)), node: "canary".into(), version: "2".into() };
        let group = api::Rollout { held: vec![held("good"), held("later")], ..Default::default() };
        let mut nodes = [node.clone()];
        with_all_held(&mut nodes, &[group], &key("routes", "later"));
        assert_eq!(states(&key("routes", "later"), &nodes[0]), ["held"], "with the node only the first were told");
        node.held.clear();
        node.nacks.push(nack("RouteConfiguration", "heddle"));
        assert_eq!(states(&key("routes", "good"), &node), ["refused with all routes"]);
    }
}
