//! Consumers on the wire; it knows no other kind but the plugins that stand on them.

use std::collections::BTreeMap;

use heddle_proto::heddle::config::v1 as wire;

use super::plugin::{confs_from_wire, confs_to_wire};
use super::read::{Fault, MAX_LIST, MAX_NAME, MAX_TEXT, Read, json, list, name, text, to_json};
use crate::model::{Consumer, Credential};

pub(super) fn to_wire(consumer: &Consumer) -> wire::Consumer {
    let credential = |credential: &Credential| wire::Credential {
        id: credential.id.to_string(),
        plugin: credential.plugin.to_string(),
        config: to_json(&credential.config),
    };
    wire::Consumer {
        username: consumer.username.to_string(),
        group_id: consumer.group_id.to_string(),
        credentials: consumer.credentials.iter().map(credential).collect(),
        plugins: confs_to_wire(&consumer.plugins),
        labels: consumer.labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
    }
}

pub(super) fn from_wire(message: wire::Consumer) -> Read<Consumer> {
    if message.labels.len() > MAX_LIST {
        return Err(Fault::new("labels", format!("has {} entries, at most {MAX_LIST} are allowed", message.labels.len())));
    }
    let mut labels = BTreeMap::new();
    for (key, value) in message.labels {
        labels.insert(text("labels", key, MAX_NAME)?, text("labels", value, MAX_TEXT)?);
    }
    Ok(Consumer {
        username: name("username", message.username)?,
        group_id: text("group_id", message.group_id, MAX_NAME)?,
        credentials: list("credentials", message.credentials, |field, value| {
            credential_from_wire(value).map_err(|fault| fault.inside(field))
        })?,
        plugins: confs_from_wire("plugins", message.plugins)?,
        labels,
    })
}

fn credential_from_wire(message: wire::Credential) -> Read<Credential> {
    Ok(Credential {
        id: text("id", message.id, MAX_NAME)?,
        plugin: name("plugin", message.plugin)?,
        config: json("config", &message.config)?,
    })
}
