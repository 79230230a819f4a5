//! How nodes stand to one resource of a user: `heddle get COLLECTION ID --status`. It knows what data-plane resources are called, not what they are.

use heddle_proto::heddle::admin::v1 as api;
use serde_json::{Value, json};

use super::look::show;
use super::render::{ids, table};
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
        let of_key = of_others.filter(|held| held.nack.as_ref().is_some_and(|nack| Concern::of(key, nack).is_some()));
        node.held = of_key.cloned().collect();
    }
}

/// How a refusal concerns a user's resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Concern {
    /// It is of what the resource stands for.
    Own,
    /// It is of all routes, which Envoy has in one, and this one may be why: it has changed.
    Among,
    /// It is of all routes, and nobody knows which of them is why.
    All,
    /// It is of all routes, and this one is not why: it is as the node has it.
    Others,
}

impl Concern {
    fn of(key: &api::Key, nack: &api::Nack) -> Option<Concern> {
        let kind = nack.type_url.rsplit('.').next().unwrap_or_default();
        if kind != "RouteConfiguration" || key.collection != "routes" {
            return is_of(key, kind, &nack.resource).then_some(Concern::Own);
        }
        let is_part = nack.parts.contains(&key.id);
        Some(match nack.parts.len() {
            0 => Concern::All,
            1 if is_part => Concern::Own,
            _ if is_part => Concern::Among,
            _ => Concern::Others,
        })
    }

    /// How a node stands to it, as `refused` or `held`.
    fn state(self, [own, among, all]: [&'static str; 3]) -> &'static str {
        match self {
            Concern::Own => own,
            Concern::Among => among,
            Concern::All => all,
            // It may well work there; what changes next of it does not arrive before the others are mended.
            Concern::Others => "confirmed",
        }
    }

    /// The words of the node, with what to look at.
    fn why(self, nack: &api::Nack, words: String) -> String {
        match self {
            Concern::Own | Concern::All => words,
            Concern::Among => format!("one of {}: {words}", ids(&nack.parts)),
            Concern::Others => format!("further changes wait for {}: {words}", ids(&nack.parts)),
        }
    }
}

const REFUSED: [&str; 3] = ["refused", "refused with others", "refused with all routes"];
const HELD: [&str; 3] = ["held", "held with others", "held with all routes"];

fn of(key: &api::Key, node: &api::NodeStatus) -> Vec<Standing> {
    let standing = |state, why| Standing { node: node.id.clone(), speaks: node.speaks.clone(), state, why };
    let withheld = node.withheld.iter().filter(|one| is_of(key, &one.kind, &one.resource));
    let withheld = withheld.map(|one| standing("withheld", one.reason.clone()));
    let nacks = node.nacks.iter().filter_map(|nack| {
        let concern = Concern::of(key, nack)?;
        let field = if nack.field.is_empty() { String::new() } else { format!("{}: ", nack.field) };
        Some(standing(concern.state(REFUSED), concern.why(nack, format!("{field}{}", nack.reason))))
    });
    let held = node.held.iter().filter_map(|held| {
        let nack = held.nack.as_ref()?;
        let concern = Concern::of(key, nack)?;
        Some(standing(concern.state(HELD), concern.why(nack, format!("{} refuses it: {}", held.node, nack.reason))))
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
        let mut parts = |parts: &[&str]| {
            let parts = parts.iter().map(|id| (*id).to_owned()).collect();
            node.nacks = vec![api::Nack { parts, ..nack("RouteConfiguration", "heddle") }];
            ["good", "bad"].map(|id| of(&key("routes", id), &node).remove(0)).map(|one| (one.state, one.why))
        };
        let [good, bad] = parts(&["bad"]);
        assert_eq!((good.0, &*good.1), ("confirmed", "further changes wait for bad: no"));
        assert_eq!((bad.0, &*bad.1), ("refused", "no"));
        let [_, bad] = parts(&["a", "b", "bad", "c", "d", "e", "f"]);
        assert_eq!((bad.0, &*bad.1), ("refused with others", "one of a, b, bad, c, d and 2 more: no"));
    }
}
