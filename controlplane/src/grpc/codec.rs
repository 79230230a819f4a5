//! Between the messages of `heddle.admin.v1` and the control plane's own values. It asks nobody and decides nothing.

use std::net::{IpAddr, Ipv4Addr};
use std::time::SystemTime;

use heddle_proto::heddle::admin::v1 as api;
use prost_types::Timestamp;
use serde_json::Value;
use tonic::Status;

use super::explain::{ExplainedPlugin, Explanation, Question};
use super::masks::Masks;
use super::watch::Event;
use crate::model::{Fault, Key, ResourceKind};
use crate::state::{self, Refused, State, Stored};
use crate::store::{StoreError, Version};

/// Bytes of one JSON document at most: as much as the REST Admin API takes.
const MAX_DOCUMENT: usize = 3 << 19;

/// Reasons of routes that did not match when nobody says how many.
const DEFAULT_REASONS: usize = 20;
/// Reasons at most.
const MAX_REASONS: usize = 1_000;

/// What somebody proposes for a resource: a value, or `None` for a removal.
pub(super) type Proposal = (Key, Option<Value>);

pub(super) fn kind(collection: &str) -> Result<ResourceKind, Status> {
    ResourceKind::from_plural(collection).ok_or_else(|| {
        let known: Vec<&str> = ResourceKind::ALL.into_iter().map(ResourceKind::plural).collect();
        Status::invalid_argument(format!("`{collection}` is no collection; expected one of {}", known.join(", ")))
    })
}

pub(super) fn key(key: Option<api::Key>) -> Result<Key, Status> {
    let api::Key { collection, id } = key.ok_or_else(|| Status::invalid_argument("key: expected a collection and an id"))?;
    if id.is_empty() {
        return Err(Status::invalid_argument(format!("key: expected the id of one of the {collection}")));
    }
    Ok(Key::new(kind(&collection)?, id))
}

pub(super) fn from_key(key: &Key) -> api::Key {
    api::Key { collection: key.kind.plural().into(), id: key.id.to_string() }
}

/// Reads a change. Times are the server's to say, so that what was exported can be applied again.
pub(super) fn proposal(change: api::Change) -> Result<Proposal, Status> {
    let key = key(change.key)?;
    let Some(json) = change.json else { return Ok((key, None)) };
    if json.len() > MAX_DOCUMENT {
        return Err(Status::invalid_argument(format!("{key}: {} bytes; a resource has {MAX_DOCUMENT} at most", json.len())));
    }
    let mut value: Value =
        serde_json::from_slice(&json).map_err(|error| Status::invalid_argument(format!("{key}: no valid JSON: {error}")))?;
    if let Some(fields) = value.as_object_mut() {
        fields.shift_remove("create_time");
        fields.shift_remove("update_time");
    }
    Ok((key, Some(value)))
}

fn json(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

pub(super) fn resource(key: &Key, stored: &Stored, masks: &Masks) -> api::Resource {
    let value = masks.shown(key.kind, &stored.value);
    api::Resource { key: Some(from_key(key)), json: json(&value), created: stored.created, modified: stored.modified }
}

/// Where a page ended, so that the next can begin there: `routes/r1`.
pub(super) fn token_of(last: &api::Resource) -> Option<String> {
    last.key.as_ref().map(|key| format!("{}/{}", key.collection, key.id))
}

pub(super) fn page_token(token: &str) -> Result<Option<Key>, Status> {
    if token.is_empty() {
        return Ok(None);
    }
    let parts = token.split_once('/').and_then(|(collection, id)| Some(Key::new(ResourceKind::from_plural(collection)?, id)));
    parts.map(Some).ok_or_else(|| Status::invalid_argument("page_token: expected one from an answer before"))
}

pub(super) fn event(event: Event, masks: &Masks) -> api::WatchResponse {
    let (mut changed, mut removed) = (Vec::new(), Vec::new());
    for (key, stored) in event.changes {
        match stored {
            Some(stored) => changed.push(resource(&key, &stored, masks)),
            None => removed.push(from_key(&key)),
        }
    }
    api::WatchResponse { revision: event.revision, author: event.author.to_string(), changed, removed, refusal: None }
}

/// How the proposed values differ from `before`. Secrets are shown to nobody here, only that they differ.
pub(super) fn differences(before: &State, proposed: &[Proposal], masks: &Masks) -> Vec<api::Outcome> {
    let outcome = |(difference, (_, after)): (state::Difference, &Proposal)| {
        let key = &difference.key;
        let effect = match difference.change {
            state::Change::Created => api::Effect::Created,
            state::Change::Changed => api::Effect::Changed,
            state::Change::Unchanged => api::Effect::Unchanged,
            state::Change::Removed => api::Effect::Removed,
        };
        let old = before.get(key).map(|stored| masks.hidden(key.kind, &stored.value)).unwrap_or_default();
        let new = after.as_ref().map(|value| masks.hidden(key.kind, value)).unwrap_or_default();
        let fields = difference.fields.iter().map(|field| api::FieldChange {
            path: dotted(&old, &new, &field.pointer),
            before: old.pointer(&field.pointer).map(Value::to_string),
            after: new.pointer(&field.pointer).map(Value::to_string),
        });
        api::Outcome { key: Some(from_key(key)), effect: effect.into(), fields: fields.collect(), faults: vec![] }
    };
    state::diff(before, proposed).into_iter().zip(proposed).map(outcome).collect()
}

/// A JSON pointer as faults write it: `plugins.limit-count.count`, `uris[2]`.
fn dotted(old: &Value, new: &Value, pointer: &str) -> String {
    let (mut path, mut at) = (String::new(), String::new());
    for token in pointer.split('/').skip(1) {
        let inside = |value: &Value| value.pointer(&at).is_some_and(Value::is_array);
        if inside(old) || inside(new) {
            path.push_str(&format!("[{token}]"));
        } else {
            let dot = if path.is_empty() { "" } else { "." };
            path.push_str(&format!("{dot}{}", token.replace("~1", "/").replace("~0", "~")));
        }
        at.push('/');
        at.push_str(token);
    }
    path
}

/// Marks what is refused, and adds what is refused though nobody proposed it.
pub(super) fn refuse(outcomes: &mut Vec<api::Outcome>, faults: Vec<(Key, Fault)>) {
    for (key, fault) in faults {
        let key = from_key(&key);
        let at = outcomes.iter().position(|outcome| outcome.key.as_ref() == Some(&key)).unwrap_or_else(|| {
            outcomes.push(api::Outcome { key: Some(key), ..api::Outcome::default() });
            outcomes.len() - 1
        });
        outcomes[at].effect = api::Effect::Refused.into();
        outcomes[at].faults.push(api::Fault { path: fault.path.clone(), message: fault.message });
    }
}

/// What a refusal is to a gRPC client.
pub(super) fn status(refused: Refused) -> Status {
    let message = refused.to_string();
    match refused {
        Refused::Invalid(_) => Status::failed_precondition(message),
        Refused::NotFound(_) => Status::not_found(message),
        Refused::Conflict { .. } | Refused::Moved { .. } => Status::aborted(message),
        Refused::ReadOnly { .. } => Status::failed_precondition(message),
        Refused::Store(error) => store_status(&error),
        Refused::Closed => Status::unavailable(message),
    }
}

pub(super) fn store_status(error: &StoreError) -> Status {
    let message = error.to_string();
    match error {
        StoreError::Conflict { .. } | StoreError::Behind { .. } | StoreError::Changed(_) => Status::aborted(message),
        StoreError::Full(_) => Status::resource_exhausted(message),
        StoreError::TooLarge { .. } => Status::invalid_argument(message),
        StoreError::UnknownRevision(..) => Status::out_of_range(message),
        StoreError::Unusable(_) | StoreError::Away(_) | StoreError::Io(_) => Status::unavailable(message),
    }
}

pub(super) fn timestamp(unix_ms: u64) -> Timestamp {
    let nanos = i32::try_from(unix_ms % 1_000 * 1_000_000).unwrap_or_default();
    Timestamp { seconds: i64::try_from(unix_ms / 1_000).unwrap_or(i64::MAX), nanos }
}

pub(super) fn moment(time: SystemTime) -> Timestamp {
    timestamp(heddle_node::clock::unix_ms_of(time))
}

/// Versions (newest first) as whole revisions, with values when `masks` are given.
pub(super) fn revisions(versions: &[Version], masks: Option<&Masks>) -> Vec<api::Revision> {
    let change = |version: &Version| {
        let effect = match &version.value {
            None => api::Effect::Removed,
            Some(_) if version.created == version.revision => api::Effect::Created,
            Some(_) => api::Effect::Changed,
        };
        let value = masks.zip(version.value.as_ref()).map(|(masks, value)| masks.shown(version.key.kind, value));
        api::RevisionChange { key: Some(from_key(&version.key)), effect: effect.into(), json: value.as_ref().map(json) }
    };
    let revision = |group: &[Version]| {
        let first = group.first()?;
        Some(api::Revision {
            revision: first.revision,
            author: first.author.to_string(),
            time: Some(timestamp(first.time_ms)),
            changes: group.iter().rev().map(change).collect(),
        })
    };
    versions.chunk_by(|a, b| a.revision == b.revision).filter_map(revision).collect()
}

pub(super) fn question(request: api::ExplainRequest) -> Result<Question, Status> {
    let remote = match request.remote_addr.as_str() {
        "" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        text => text.parse().map_err(|_| Status::invalid_argument(format!("remote_addr: `{text}` is no IP address")))?,
    };
    let max_reasons = match request.max_reasons {
        0 => DEFAULT_REASONS,
        count => usize::try_from(count).unwrap_or(MAX_REASONS).min(MAX_REASONS),
    };
    let headers = request.headers.into_iter().map(|header| (header.name, header.value)).collect();
    let consumer = Some(request.consumer).filter(|name| !name.is_empty());
    Ok(Question { method: request.method, url: request.url, headers, remote, consumer, max_reasons })
}

pub(super) fn explanation(told: Explanation, revision: u64, masks: &Masks) -> api::ExplainResponse {
    let plugins = |list: Vec<ExplainedPlugin>| list.into_iter().map(|plugin| explained(plugin, masks)).collect();
    let endpoint = |(address, weight, priority)| api::ExplainedEndpoint { address, weight, priority };
    let upstream = told.upstream.map(|upstream| api::ExplainedUpstream {
        name: upstream.name.to_string(),
        balancer: upstream.balancer,
        scheme: upstream.scheme,
        endpoints: upstream.endpoints.into_iter().map(endpoint).collect(),
    });
    let others = told.others.into_iter().map(|(route, reason)| api::RouteReason { route: route.to_string(), reason });
    api::ExplainResponse {
        route: told.route.map(|route| route.to_string()),
        why: told.why,
        others: others.collect(),
        others_left_out: told.left_out,
        plugins: plugins(told.plugins),
        upstream,
        revision,
        silent_plugins: plugins(told.silent),
        notes: told.notes,
    }
}

fn explained(plugin: ExplainedPlugin, masks: &Masks) -> api::ExplainedPlugin {
    api::ExplainedPlugin {
        name: plugin.name.to_string(),
        origin: plugin.origin.to_string(),
        priority: i32::try_from(plugin.priority).unwrap_or(if plugin.priority < 0 { i32::MIN } else { i32::MAX }),
        config: json(&masks.hidden_plugin(&plugin.name, plugin.config)),
        condition: plugin.condition.as_ref().map(json),
        after_authentication: plugin.after_authentication,
        disabled: plugin.disabled,
        hidden_by: plugin.hidden_by.map(|origin| origin.to_string()),
    }
}
