//! `heddle rollout`: how new versions spread over groups of nodes.

use heddle_proto::heddle::admin::v1 as api;
use serde_json::{Value, json};

use super::look::{nack_json, show};
use super::render::{short_type, table};
use super::session::{ClientError, connect};
use crate::args::{Output, RolloutArgs, RolloutCommand};
use crate::output::say;

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
        let (trying, held) = (group.trying.to_string(), group.held.len().to_string());
        vec![group.group.clone(), group.nodes.to_string(), group.canaries.join(" "), trying, held]
    };
    say(&table(&["GROUP", "NODES", "CANARIES", "TRYING", "HELD"], &groups.iter().map(row).collect::<Vec<_>>()));
    for group in groups {
        for held in &group.held {
            let Some(nack) = &held.nack else { continue };
            let (what, name, node) = (short_type(&nack.type_url), &nack.resource, &held.node);
            say(&format!("! {} does not get {what} {name} as it is now: {node} refuses it: {}\n", group.group, nack.reason));
        }
    }
}

fn group_json(group: &api::Rollout) -> Value {
    json!({
        "group": group.group, "nodes": group.nodes, "canaries": group.canaries, "trying": group.trying,
        "held": group.held.iter().map(held_json).collect::<Vec<_>>(),
    })
}

/// What is held, with who refused it.
pub(super) fn held_json(held: &api::Held) -> Value {
    let mut value = held.nack.as_ref().map(nack_json).unwrap_or_default();
    value["refused_by"] = json!(held.node);
    value["version"] = json!(held.version);
    value
}
