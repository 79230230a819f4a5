//! From keys to resources: `PREFIX/routes/ID` with JSON or YAML behind it. Each key is a source of its own, so a fault of one leaves the others.

use std::sync::Arc;

use heddle_node::config::{Document, Expansion, Format};
use heddle_node::consul::KvPair;
use serde_json::Value;

use super::Sources;
use crate::model::{Key, ResourceKind};

/// Longest id; ids become metric labels and URLs.
const MAX_ID: usize = 256;

/// What lies behind the keys below a prefix. Folders (keys that end with a slash) are no resources.
pub(super) fn read(prefix: &str, provider: &str, pairs: &[KvPair]) -> Sources {
    let mut sources = Sources::new();
    for pair in pairs {
        let Some(path) = pair.key.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('/')) else { continue };
        if path.is_empty() || path.ends_with('/') {
            continue;
        }
        let read = resource(path, provider, &pair.key, &pair.value).map(|resource| vec![resource]);
        sources.insert(Arc::from(pair.key.as_str()), read);
    }
    sources
}

fn resource(path: &str, provider: &str, file: &str, text: &[u8]) -> Result<(Key, Value), Vec<String>> {
    let wrong = |why: String| vec![format!("{file}: {why}")];
    let (collection, id) = path
        .split_once('/')
        .ok_or_else(|| wrong("expected a key COLLECTION/ID below the prefix, for example routes/shop".to_owned()))?;
    let kind = ResourceKind::from_plural(collection).ok_or_else(|| {
        let all = ResourceKind::ALL.map(ResourceKind::plural).join(", ");
        wrong(format!("unknown collection `{collection}`; expected one of: {all}"))
    })?;
    let parts: Vec<&str> = id.split('/').collect();
    let kind = match (kind, &parts[..]) {
        (ResourceKind::Consumer, [_, "credentials", _]) => ResourceKind::Credential,
        (ResourceKind::Secret, [_, _]) => kind,
        (ResourceKind::Secret, _) => return Err(wrong("expected a key secrets/MANAGER/ID".to_owned())),
        (_, [_]) => kind,
        _ => return Err(wrong(format!("expected an id without slashes, found `{id}`"))),
    };
    let plain = |part: &&str| {
        (1..=MAX_ID).contains(&part.len())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
    };
    if !parts.iter().all(plain) {
        return Err(wrong(format!("expected an id of at most {MAX_ID} letters, digits, `-`, `_` and `.`, found `{id}`")));
    }
    let format = if text.trim_ascii_start().starts_with(b"{") { Format::Json } else { Format::Yaml };
    let document = Document::parse(file, text, format, Expansion::Off)
        .map_err(|mistakes| mistakes.to_string().lines().map(str::to_owned).collect::<Vec<_>>())?;
    let mut value = document.to_json();
    let Some(fields) = value.as_object_mut() else {
        return Err(wrong(format!("expected a {} (a map)", kind.singular())));
    };
    let name = parts.last().copied().unwrap_or_default();
    if kind == ResourceKind::Consumer {
        if fields.get("username").is_some_and(|written| written != name) {
            return Err(wrong(format!("expected `username` to be the id in the key (`{name}`)")));
        }
        fields.insert("username".into(), name.into());
    } else {
        if fields.get("id").is_some_and(|written| written != name) {
            return Err(wrong(format!("expected `id` to be the one in the key (`{name}`), or none")));
        }
        if kind == ResourceKind::Listener {
            fields.entry("name").or_insert_with(|| name.into());
        }
        fields.insert("id".into(), format!("{name}@{provider}").into());
    }
    Ok((Key::new(kind, id), value))
}
