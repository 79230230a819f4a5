//! Commands that only look.

use heddle_proto::heddle::admin::v1 as api;
use serde_json::{Value, json};

use super::render::{self, ids, short_type, table};
use super::rollout::{held_json, kept_json, kept_text};
use super::session::{Client, ClientError, connect};
use super::standing;
use crate::args::{ExplainArgs, GetArgs, HistoryArgs, NodesArgs, Output};
use crate::files;
use crate::output::say;

/// `heddle get`.
///
/// # Errors
/// The collection or resource does not exist.
pub async fn get(args: GetArgs) -> Result<(), ClientError> {
    let mut client = connect(&args.server).await?;
    if let (true, Some(collection), Some(id)) = (args.status, &args.collection, &args.id) {
        let key = api::Key { collection: collection.clone(), id: id.clone() };
        client.get(api::GetRequest { key: Some(key.clone()) }).await?;
        let mut nodes = client.nodes(api::NodesRequest {}).await?.into_inner().nodes;
        if nodes.iter().any(|node| !node.held.is_empty()) {
            let groups = client.rollouts(api::RolloutsRequest {}).await?.into_inner().groups;
            standing::with_all_held(&mut nodes, &groups, &key);
        }
        standing::say_of(&key, &nodes, args.output);
        return Ok(());
    }
    let resources = match (args.collection, args.id) {
        (Some(collection), Some(id)) => {
            let answer = client.get(api::GetRequest { key: Some(api::Key { collection, id }) }).await?.into_inner();
            answer.resource.into_iter().collect()
        }
        (collection, _) => list(&mut client, collection.unwrap_or_default()).await?,
    };
    match args.output {
        Output::Json => show(&Value::Array(resources.iter().map(render::resource_json).collect()), Output::Json),
        Output::Yaml => say(&files::write_resources(resources.iter().filter_map(named_value))),
        Output::Table => say(&resource_table(&resources)),
    }
    Ok(())
}

async fn list(client: &mut Client, collection: String) -> Result<Vec<api::Resource>, ClientError> {
    let (mut all, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = api::ListRequest { collection: collection.clone(), page_size: 0, page_token };
        let answer = client.list(request).await?.into_inner();
        all.extend(answer.resources);
        if answer.next_page_token.is_empty() {
            return Ok(all);
        }
        page_token = answer.next_page_token;
    }
}

fn named_value(resource: &api::Resource) -> Option<(String, Value)> {
    let key = resource.key.as_ref()?;
    Some((key.collection.clone(), serde_json::from_slice(&resource.json).ok()?))
}

fn resource_table(resources: &[api::Resource]) -> String {
    let row = |resource: &api::Resource| {
        let value: Value = serde_json::from_slice(&resource.json).unwrap_or(Value::Null);
        let text = |name: &str| value.get(name).map(plain).unwrap_or_default();
        let what = ["uri", "uris", "host", "hosts", "snis", "sni", "nodes", "address"]
            .map(text)
            .into_iter()
            .find(|text| !text.is_empty());
        vec![
            resource.key.as_ref().map(render::key).unwrap_or_default(),
            text("name"),
            what.unwrap_or_default(),
            // What a provider reports has no revision of the store.
            if resource.key.as_ref().is_some_and(|key| key.id.contains('@')) {
                "-".into()
            } else {
                resource.modified.to_string()
            },
        ]
    };
    table(&["RESOURCE", "NAME", "WHAT", "REVISION"], &resources.iter().map(row).collect::<Vec<_>>())
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// For programs, or as files are written.
pub(super) fn show(value: &Value, output: Output) {
    match output {
        Output::Yaml => say(&files::yaml(value)),
        Output::Json | Output::Table => say(&format!("{value:#}\n")),
    }
}

/// `heddle history`.
///
/// # Errors
/// The resource never was.
pub async fn history(args: HistoryArgs) -> Result<(), ClientError> {
    let key = args.collection.zip(args.id).map(|(collection, id)| api::Key { collection, id });
    let request = api::HistoryRequest { key, limit: args.limit, before_revision: 0 };
    let revisions = connect(&args.server).await?.history(request).await?.into_inner().revisions;
    if args.output != Output::Table {
        let item = |revision: &api::Revision| {
            json!({
                "revision": revision.revision,
                "author": revision.author,
                "time": render::time(revision.time.as_ref()),
                "changes": changes(revision),
            })
        };
        show(&Value::Array(revisions.iter().map(item).collect()), args.output);
        return Ok(());
    }
    let row = |revision: &api::Revision| {
        let mut list = changes(revision);
        list.truncate(MAX_SHOWN);
        if revision.changes.len() > list.len() {
            list.push(format!("and {} more", revision.changes.len() - list.len()));
        }
        vec![revision.revision.to_string(), render::time(revision.time.as_ref()), revision.author.clone(), list.join(" ")]
    };
    say(&table(&["REVISION", "TIME", "AUTHOR", "CHANGES"], &revisions.iter().map(row).collect::<Vec<_>>()));
    Ok(())
}

/// Changes of one revision that the table shows.
const MAX_SHOWN: usize = 4;

/// What a revision did, as `+routes/r1`.
fn changes(revision: &api::Revision) -> Vec<String> {
    let sign = |effect| match effect {
        api::Effect::Created => "+",
        api::Effect::Removed => "-",
        _ => "~",
    };
    let one = |change: &api::RevisionChange| {
        format!("{}{}", sign(change.effect()), change.key.as_ref().map(render::key).unwrap_or_default())
    };
    revision.changes.iter().map(one).collect()
}

/// `heddle nodes`.
///
/// # Errors
/// The control plane cannot be asked.
pub async fn nodes(args: NodesArgs) -> Result<(), ClientError> {
    let nodes = connect(&args.server).await?.nodes(api::NodesRequest {}).await?.into_inner().nodes;
    if args.output != Output::Table {
        show(&Value::Array(nodes.iter().map(node_json).collect()), args.output);
        return Ok(());
    }
    let row = |node: &api::NodeStatus| {
        let resources: u64 = node.types.iter().map(|held| held.resources).sum();
        let pending = node.types.iter().any(|held| held.pending);
        let state = match node.streams {
            _ if node.connected_since.is_none() => "away".to_owned(),
            0 | 1 => "connected".to_owned(),
            streams => format!("connected ({streams} streams)"),
        };
        let held = format!("{resources}{}", if pending { " (more on the way)" } else { "" });
        vec![
            node.id.clone(),
            node.role.clone(),
            node.zone.clone(),
            node.version.clone(),
            state,
            held,
            node.nacks.len().to_string(),
        ]
    };
    say(&table(
        &["NODE", "ROLE", "ZONE", "VERSION", "STATE", "RESOURCES", "REFUSED"],
        &nodes.iter().map(row).collect::<Vec<_>>(),
    ));
    for node in &nodes {
        for nack in &node.nacks {
            let field = if nack.field.is_empty() { String::new() } else { format!(" {}", nack.field) };
            let since = if nack.parts.is_empty() { String::new() } else { format!(" (changed since: {})", ids(&nack.parts)) };
            let what = short_type(&nack.type_url);
            say(&format!("! {} refuses {what} {}{field}: {}{since}\n", node.id, nack.resource, nack.reason));
        }
        for held_back in &node.withheld {
            say(&format!("! {} is not given {} {}: {}\n", node.id, held_back.kind, held_back.resource, held_back.reason));
        }
        say(&kept_text(&node.id, &node.kept));
        for (held, nack) in node.held.iter().filter_map(|held| Some((held, held.nack.as_ref()?))) {
            let (what, name) = (short_type(&nack.type_url), &nack.resource);
            say(&format!("! {} does not get {what} {name} as it is now: {} refuses it: {}\n", node.id, held.node, nack.reason));
        }
    }
    Ok(())
}

fn node_json(node: &api::NodeStatus) -> Value {
    let held = |held: &api::TypeStatus| json!({ "type": held.type_url, "version": held.version, "resources": held.resources, "pending": held.pending });
    let withheld = |one: &api::Withheld| json!({ "kind": one.kind, "resource": one.resource, "reason": one.reason });
    json!({
        "id": node.id, "role": node.role, "zone": node.zone, "version": node.version, "dialect": node.dialect,
        "connected": node.connected_since.is_some(), "streams": node.streams,
        "connected_since": node.connected_since.as_ref().map(|stamp| render::time(Some(stamp))),
        "types": node.types.iter().map(held).collect::<Vec<_>>(),
        "nacks": node.nacks.iter().map(nack_json).collect::<Vec<_>>(),
        "speaks": node.speaks,
        "withheld": node.withheld.iter().map(withheld).collect::<Vec<_>>(),
        "group": node.group,
        "held": node.held.iter().map(held_json).collect::<Vec<_>>(),
        "kept": node.kept.iter().map(kept_json).collect::<Vec<_>>(),
    })
}

/// What a node refuses.
pub(super) fn nack_json(nack: &api::Nack) -> Value {
    json!({
        "type": nack.type_url, "resource": nack.resource, "field": nack.field, "reason": nack.reason, "parts": nack.parts,
        "time": render::time(nack.time.as_ref()),
    })
}

/// `heddle explain`.
///
/// # Errors
/// A header field is malformed.
pub async fn explain(args: ExplainArgs) -> Result<(), ClientError> {
    let header = |field: &String| {
        let (name, value) =
            field.split_once(':').ok_or_else(|| ClientError::Usage(format!("-H {field:?}: expected `Name: value`")))?;
        Ok(api::Header { name: name.trim().into(), value: value.trim().into() })
    };
    let headers = args.headers.iter().map(header).collect::<Result<Vec<_>, ClientError>>()?;
    let request = api::ExplainRequest {
        method: args.method,
        url: args.url,
        headers,
        remote_addr: args.from.unwrap_or_default(),
        consumer: args.consumer.unwrap_or_default(),
        max_reasons: 0,
    };
    let answer = connect(&args.server).await?.explain(request).await?.into_inner();
    if args.output == Output::Table {
        explain_text(&answer)
    } else {
        show(&explain_json(&answer), args.output)
    }
    Ok(())
}

fn explain_text(answer: &api::ExplainResponse) {
    match &answer.route {
        Some(route) => say(&format!("route {route}: {}\n", answer.why)),
        None => say(&format!("no route: {}\n", answer.why)),
    }
    for (at, plugin) in answer.plugins.iter().enumerate() {
        say(&format!("  plugin {}. {}\n", at + 1, plugin_text(plugin)));
    }
    answer.silent_plugins.iter().for_each(|plugin| say(&format!("  plugin -. {}\n", plugin_text(plugin))));
    answer.notes.iter().for_each(|note| say(&format!("  note: {note}\n")));
    if let Some(upstream) = &answer.upstream {
        say(&format!("  upstream {} ({}, {})\n", upstream.name, upstream.balancer, upstream.scheme));
        upstream
            .endpoints
            .iter()
            .for_each(|end| say(&format!("    {} weight {} priority {}\n", end.address, end.weight, end.priority)));
    }
    answer.others.iter().for_each(|other| say(&format!("  not {}: {}\n", other.route, other.reason)));
    if answer.others_left_out > 0 {
        say(&format!("  … and {} more\n", answer.others_left_out));
    }
}

/// One plugin with what is special about it, for example `cors (priority 4000, from service/s) hidden by route/r`.
fn plugin_text(plugin: &api::ExplainedPlugin) -> String {
    let mut text = format!("{} (priority {}, from {})", plugin.name, plugin.priority, plugin.origin);
    if let Some(stronger) = &plugin.hidden_by {
        text.push_str(&format!(" hidden by {stronger}"));
    }
    if plugin.disabled {
        text.push_str(" switched off by _meta.disable");
    }
    if plugin.after_authentication {
        text.push_str(" after authentication");
    }
    if let Some(condition) = &plugin.condition {
        text.push_str(&format!(" only if {}", String::from_utf8_lossy(condition)));
    }
    text
}

fn explain_json(answer: &api::ExplainResponse) -> Value {
    let plugin = |plugin: &api::ExplainedPlugin| {
        let config: Value = serde_json::from_slice(&plugin.config).unwrap_or(Value::Null);
        let condition = plugin.condition.as_ref().and_then(|condition| serde_json::from_slice::<Value>(condition).ok());
        json!({
            "name": plugin.name, "origin": plugin.origin, "priority": plugin.priority, "config": config, "condition": condition,
            "after_authentication": plugin.after_authentication, "disabled": plugin.disabled, "hidden_by": plugin.hidden_by,
        })
    };
    let end = |end: &api::ExplainedEndpoint| json!({ "address": end.address, "weight": end.weight, "priority": end.priority });
    json!({
        "route": answer.route, "why": answer.why, "revision": answer.revision,
        "plugins": answer.plugins.iter().map(plugin).collect::<Vec<_>>(),
        "silent_plugins": answer.silent_plugins.iter().map(plugin).collect::<Vec<_>>(),
        "notes": answer.notes,
        "upstream": answer.upstream.as_ref().map(|upstream| json!({
            "name": upstream.name, "balancer": upstream.balancer, "scheme": upstream.scheme,
            "endpoints": upstream.endpoints.iter().map(end).collect::<Vec<_>>(),
        })),
        "others": answer.others.iter().map(|other| json!({ "route": other.route, "reason": other.reason })).collect::<Vec<_>>(),
        "others_left_out": answer.others_left_out,
    })
}
