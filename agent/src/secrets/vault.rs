//! HashiCorp Vault's KV engine, both versions: what is asked and how the answer reads. It opens no connections.

use std::sync::Arc;

use heddle_node::config::Environment;
use serde::Deserialize;
use serde_json::Value;

use super::reference::{Reference, is_reference};
use crate::http::Fields;
use crate::outbound::{Call, Outbound, Remote, RemoteOptions};

/// Longest answer.
const MAX_ANSWER: u64 = 1024 * 1024;

/// A Vault as `secrets/vault/<id>` describes it.
#[derive(Deserialize)]
struct Described {
    uri: String,
    prefix: String,
    token: String,
    namespace: Option<String>,
}

/// A Vault that can be asked.
#[derive(Clone)]
pub(super) struct Vault {
    remote: Remote,
    prefix: String,
    token: Arc<str>,
    namespace: Option<String>,
}

impl Vault {
    /// From its description.
    pub(super) fn new(json: &str, outbound: &Outbound, environment: &dyn Environment) -> Result<Vault, String> {
        let described: Described = serde_json::from_str(json).map_err(|_| "expected uri, prefix and token".to_owned())?;
        let options = RemoteOptions { max_body: MAX_ANSWER, ..RemoteOptions::default() };
        let remote = outbound.remote(&described.uri, &options)?;
        let token = match Reference::parse(&described.token) {
            Ok(reference @ Reference::Env { .. }) => from_environment(&reference, environment)?,
            _ if is_reference(&described.token) => return Err("token: only $env:// references are followed here".to_owned()),
            _ => described.token.as_str().into(),
        };
        Ok(Vault { remote, prefix: described.prefix.trim_matches('/').to_owned(), token, namespace: described.namespace })
    }

    /// What `key` of the secret `name` holds.
    pub(super) async fn ask(&self, name: &str, key: &str) -> Result<Arc<str>, String> {
        let mut fields = Fields::new();
        fields.set("x-vault-token", &*self.token);
        fields.set("x-vault-request", "true");
        if let Some(namespace) = &self.namespace {
            fields.set("x-vault-namespace", namespace.as_str());
        }
        let target = format!("{}/v1/{}/{name}", self.remote.target().trim_end_matches('/'), self.prefix);
        let reply = self.remote.send(Call { target, fields, ..Call::default() }).await.map_err(|error| error.to_string())?;
        if reply.head.status != 200 {
            return Err(format!("answered with status {}", reply.head.status));
        }
        member(&reply.body, key)
    }
}

/// Version 1 has the members in `data`, version 2 in `data.data` beside `data.metadata`.
fn member(body: &[u8], key: &str) -> Result<Arc<str>, String> {
    let answer: Value = serde_json::from_slice(body).map_err(|_| "the answer is no JSON".to_owned())?;
    let data = &answer["data"];
    let members = if data["metadata"].is_object() && data.get("data").is_some() { &data["data"] } else { data };
    text(members.get(key).ok_or_else(|| "the secret has no such key".to_owned())?)
}

/// A variable of the environment, or a member of the JSON object in it.
pub(super) fn from_environment(reference: &Reference<'_>, environment: &dyn Environment) -> Result<Arc<str>, String> {
    let Reference::Env { name, key } = reference else { return Err("expected $env://NAME".to_owned()) };
    let value = environment.get(name).ok_or_else(|| "the agent's environment has no such variable".to_owned())?;
    let Some(key) = key else { return Ok(value.into()) };
    let object: Value = serde_json::from_str(&value).map_err(|_| "the variable holds no JSON".to_owned())?;
    text(object.get(key).ok_or_else(|| "the variable has no such key".to_owned())?)
}

fn text(value: &Value) -> Result<Arc<str>, String> {
    match value {
        Value::String(text) => Ok(text.as_str().into()),
        Value::Number(_) | Value::Bool(_) => Ok(value.to_string().into()),
        _ => Err("expected a text, a number or a boolean".to_owned()),
    }
}
