//! `heddle rollout`: how new versions spread over groups of nodes.

use heddle_proto::heddle::admin::v1 as api;
use serde_json::{Value, json};

use super::look::{nack_json, show};
use super::render::{short_type, table};
use super::session::{ClientError, connect};
use crate::args::{Output, RolloutArgs, RolloutCommand};
use crate::output::say;

/// Lines of what is kept, of each group or node: one that refuses a table keeps a thousand and more when much is deleted.
const MAX_KEPT_LINES: usize = 20;

/// `heddle rollout`.
///
/// # Errors
/// There is no such group.
pub async fn rollout(args: RolloutArgs) -> Result<(), ClientError> {
    let mut client = connect(&args.server).await?;
    match args.command {
        RolloutCommand::Status { group, output } => {
            let mut groups = client.rollouts(api::RolloutsRequest {}).await?.into_inner().groups;
            if let Some(group) = group {
                groups.retain(|one| one.group == group);
                if groups.is_empty() {
                    return Err(ClientError::Usage(format!("there is no group {group}: `heddle rollout status` shows them all")));
                }
            }
            status(&groups, output);
        }
        RolloutCommand::Resume { group } => {
            let request = api::ResumeRolloutRequest { group: group.clone() };
            let resumed = client.resume_rollout(request).await?.into_inner().resumed;
            say(&format!("{group}: {resumed} held resources go on to all nodes\n"));
        }
    }
    Ok(())
}

fn status(groups: &[api::Rollout], output: Output) {
    if output != Output::Table {
        return show(&Value::Array(groups.iter().map(group_json).collect()), output);
    }
    let row = |group: &api::Rollout| {
        let (trying, held, kept) = (group.trying.to_string(), group.held.len().to_string(), group.kept.len().to_string());
        vec![group.group.clone(), group.nodes.to_string(), group.canaries.join(" "), trying, held, kept]
    };
    say(&table(&["GROUP", "NODES", "CANARIES", "TRYING", "HELD", "KEPT"], &groups.iter().map(row).collect::<Vec<_>>()));
    for group in groups {
        for held in &group.held {
            let Some(nack) = &held.nack else { continue };
            let (what, name, node) = (short_type(&nack.type_url), &nack.resource, &held.node);
            say(&format!("! {} does not get {what} {name} as it is now: {node} refuses it: {}\n", group.group, nack.reason));
        }
        say(&kept_text(&group.group, &group.kept));
    }
}

fn group_json(group: &api::Rollout) -> Value {
    json!({
        "group": group.group, "nodes": group.nodes, "canaries": group.canaries, "trying": group.trying,
        "held": group.held.iter().map(held_json).collect::<Vec<_>>(),
        "kept": group.kept.iter().map(kept_json).collect::<Vec<_>>(),
    })
}

/// What is gone and stays somewhere, a line for each: the first [`MAX_KEPT_LINES`].
pub(super) fn kept_text(whose: &str, kept: &[api::Kept]) -> String {
    let line = |one: &api::Kept| format!("! {whose} keeps {} {}, which is gone\n", short_type(&one.type_url), one.resource);
    let mut text: String = kept.iter().take(MAX_KEPT_LINES).map(line).collect();
    if let Some(more) = kept.len().checked_sub(MAX_KEPT_LINES).filter(|more| *more > 0) {
        text.push_str(&format!("! {whose} keeps {more} more, which `-o json` shows\n"));
    }
    text
}

/// The same for who reads JSON.
pub(super) fn kept_json(kept: &api::Kept) -> Value {
    json!({ "type": kept.type_url, "resource": kept.resource })
}

/// What is held, with who refused it.
pub(super) fn held_json(held: &api::Held) -> Value {
    let mut value = held.nack.as_ref().map(nack_json).unwrap_or_default();
    value["refused_by"] = json!(held.node);
    value["version"] = json!(held.version);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_how_it_stands_sees_what_is_kept_too() {
        let kept = |count: usize| -> Vec<api::Kept> {
            let one = |number| api::Kept {
                type_url: "type.googleapis.com/envoy.config.cluster.v3.Cluster".into(),
                resource: format!("upstreams/{number}"),
            };
            (0..count).map(one).collect()
        };
        assert_eq!(kept_text("gateway/envoy", &kept(1)), "! gateway/envoy keeps Cluster upstreams/0, which is gone\n");
        let text = kept_text("gateway/envoy", &kept(MAX_KEPT_LINES + 3));
        assert!(text.ends_with("! gateway/envoy keeps 3 more, which `-o json` shows\n"), "{text}");
        let group = api::Rollout { group: "gateway/envoy".into(), kept: kept(1), ..api::Rollout::default() };
        assert_eq!(group_json(&group)["kept"][0]["resource"], "upstreams/0");
    }
}
