//! GET, PUT, POST, PATCH and DELETE of user resources.

use axum::response::Response;
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};

use super::value::{body, list, patch};
use super::{Call, envelope, show};
use crate::model::{Key, ResourceKind};
use crate::state::{Effect, Expect, Intent, Options, Refused, Stored};

/// A PATCH is tried again this often when others write at the same time.
const PATCH_TRIES: usize = 16;
/// How much of a body that is not understood is repeated.
const MOST_REPEATED: usize = 1024;

/// A request for a whole collection.
pub(super) async fn collection(
    call: &Call<'_>,
    method: &Method,
    kind: ResourceKind,
    parent: Option<String>,
    bytes: &[u8],
) -> Response {
    match *method {
        Method::GET => all(call, kind, parent.as_deref()),
        Method::POST if takes(kind, method) => match read_object(bytes) {
            Ok(value) => create(call, kind, value).await,
            Err(refusal) => *refusal,
        },
        Method::PUT if parent.is_none() => match read_object(bytes) {
            Ok(value) => {
                let field = if kind == ResourceKind::Consumer { "username" } else { "id" };
                match value.get(field).and_then(id_text) {
                    Some(id) => put(call, Key::new(kind, id), value).await,
                    None => envelope::bad(format!("missing {} {field}", kind.singular())),
                }
            }
            Err(refusal) => *refusal,
        },
        Method::PUT => envelope::bad(format!("missing {} id", kind.singular())),
        Method::PATCH | Method::DELETE if takes(kind, method) => envelope::bad(format!("missing {} id", kind.singular())),
        _ => not_supported(kind, method),
    }
}

/// A request for one resource.
pub(super) async fn item(call: &Call<'_>, method: &Method, key: Key, bytes: &[u8]) -> Response {
    match *method {
        Method::GET => one(call, &key),
        Method::DELETE => delete(call, key).await,
        Method::POST if takes(key.kind, method) => envelope::bad(format!("wrong {} id, do not need it", key.kind.singular())),
        Method::PUT => match read_object(bytes) {
            Ok(value) => put(call, key, value).await,
            Err(refusal) => *refusal,
        },
        Method::PATCH if takes(key.kind, method) => match read_object(bytes) {
            Ok(change) => {
                update(call, key, &|value| {
                    patch::merge(value, &change);
                    Ok(())
                })
                .await
            }
            Err(refusal) => *refusal,
        },
        _ => not_supported(key.kind, method),
    }
}

/// A request for an attribute of a resource.
pub(super) async fn attribute(call: &Call<'_>, method: &Method, key: Key, path: &[String], bytes: &[u8]) -> Response {
    if *method != Method::PATCH || !takes(key.kind, method) {
        return not_supported(key.kind, method);
    }
    match read_value(bytes) {
        Ok(new) => update(call, key, &|value| patch::replace(value, path, new.clone())).await,
        Err(refusal) => *refusal,
    }
}

/// Which kinds take POST (a generated id) and PATCH.
fn takes(kind: ResourceKind, method: &Method) -> bool {
    use ResourceKind::*;
    match *method {
        Method::POST => matches!(kind, Route | Service | Upstream | Ssl | Listener),
        Method::PATCH => !matches!(kind, Consumer | Credential | PluginMetadata),
        _ => true,
    }
}

fn not_supported(kind: ResourceKind, method: &Method) -> Response {
    envelope::error(StatusCode::METHOD_NOT_ALLOWED, format!("not supported `{method}` method for {}", kind.singular()))
}

fn one(call: &Call<'_>, key: &Key) -> Response {
    let state = call.admin.keeper.state();
    let Some(stored) = state.get(key) else { return envelope::missing() };
    let tag = format!("\"{}\"", stored.modified);
    let held = call.headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let mut response = match held {
        Some(held) if held.split(',').any(|one| one.trim() == tag) => envelope::empty(StatusCode::NOT_MODIFIED),
        _ => envelope::json(StatusCode::OK, &shown(call, key, stored)),
    };
    if let Ok(value) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, value);
    }
    response
}

fn shown(call: &Call<'_>, key: &Key, stored: &Stored) -> Value {
    envelope::item(key, show::to_reader(call, key.kind, &stored.value), stored)
}

fn all(call: &Call<'_>, kind: ResourceKind, parent: Option<&str>) -> Response {
    let state = call.admin.keeper.state();
    let filter = match list::Filter::read(&call.query, kind == ResourceKind::Route) {
        Ok(filter) => filter,
        Err(why) => return envelope::bad(why),
    };
    let page = match list::Page::read(&call.query) {
        Ok(page) => page,
        Err(why) => return envelope::text(StatusCode::BAD_REQUEST, "text/plain", why),
    };
    if let (ResourceKind::Credential, Some(user)) = (kind, parent)
        && state.get(&Key::new(ResourceKind::Consumer, user)).is_none()
    {
        return envelope::error(StatusCode::NOT_FOUND, "consumer not found");
    }
    let prefix = parent.map(|parent| format!("{parent}/"));
    let mut found: Vec<_> = state
        .list(kind)
        .filter(|(id, _)| prefix.as_ref().is_none_or(|prefix| id.starts_with(prefix)))
        .filter(|(_, stored)| filter.passes(&stored.value))
        .collect();
    found.sort_by_key(|(_, stored)| stored.created);
    let total = found.len();
    let (skip, take) = page.map_or((0, usize::MAX), |page| (page.skip, page.take));
    let items: Vec<Value> =
        found.into_iter().skip(skip).take(take).map(|(id, stored)| shown(call, &Key::new(kind, id.clone()), stored)).collect();
    envelope::json(StatusCode::OK, &json!({"total": total, "list": items}))
}

async fn create(call: &Call<'_>, kind: ResourceKind, mut value: Value) -> Response {
    if value.get("id").is_some() {
        return envelope::bad(format!("wrong {} id, do not need it", kind.singular()));
    }
    if let Err(why) = forbidden(&value) {
        return envelope::bad(why);
    }
    let expires_at_ms = match expiry(call) {
        Ok(expiry) => expiry,
        Err(why) => return envelope::bad(why),
    };
    show::from_writer(call, kind, &mut value);
    told(write(call, Intent::Create { kind, value, expires_at_ms }).await, false)
}

async fn put(call: &Call<'_>, key: Key, mut value: Value) -> Response {
    if let Err(why) = forbidden(&value).and_then(|()| same_id(&key, &value)) {
        return envelope::bad(why);
    }
    let (expires_at_ms, expect) = match (expiry(call), expect(call, &key)) {
        (Ok(expiry), Ok(expect)) => (expiry, expect),
        (Err(why), _) => return envelope::bad(why),
        (_, Err(refusal)) => return *refusal,
    };
    show::from_writer(call, key.kind, &mut value);
    told(write(call, Intent::Put { key, value, expires_at_ms, expect }).await, expect != Expect::Any)
}

async fn update(call: &Call<'_>, key: Key, change: &(dyn Fn(&mut Value) -> Result<(), String> + Sync)) -> Response {
    let (expires, demanded) = match (expiry(call), expect(call, &key)) {
        (Ok(expiry), Ok(expect)) => (expiry, expect),
        (Err(why), _) => return envelope::bad(why),
        (_, Err(refusal)) => return *refusal,
    };
    for _ in 0..PATCH_TRIES {
        let state = call.admin.keeper.state();
        let Some(stored) = state.get(&key) else { return envelope::missing() };
        let mut value = stored.value.clone();
        if let Err(why) = change(&mut value).and_then(|()| same_id(&key, &value)) {
            return envelope::bad(why);
        }
        show::from_writer(call, key.kind, &mut value);
        let expect = if demanded == Expect::Any { Expect::Modified(stored.modified) } else { demanded };
        let expires_at_ms = expires.or(stored.expires_at_ms);
        match write(call, Intent::Put { key: key.clone(), value, expires_at_ms, expect }).await {
            Err(Refused::Conflict { .. }) if demanded == Expect::Any => {}
            done => return told(done, demanded != Expect::Any),
        }
    }
    envelope::error(StatusCode::SERVICE_UNAVAILABLE, "value changed before overwritten")
}

async fn delete(call: &Call<'_>, key: Key) -> Response {
    let expect = match expect(call, &key) {
        Ok(expect) => expect,
        Err(refusal) => return *refusal,
    };
    let options = Options { force: call.arg("force") == Some("true"), ..Options::by(call.caller.author.clone()) };
    let text = envelope::key_text(&key);
    match call.admin.keeper.apply(vec![Intent::Delete { key, expect }], options).await {
        Ok(_) => envelope::json(StatusCode::OK, &json!({"deleted": "1", "key": text})),
        Err(refused) => envelope::refused(&refused, expect != Expect::Any),
    }
}

/// Carries out one intent and tells what is there now.
async fn write(call: &Call<'_>, intent: Intent) -> Result<Response, Refused> {
    let created = matches!(intent, Intent::Create { .. });
    let applied = call.admin.keeper.apply(vec![intent], Options::by(call.caller.author.clone())).await?;
    let Some(outcome) = applied.outcomes.first() else { return Ok(envelope::missing()) };
    let status = if created || outcome.effect == Effect::Created { StatusCode::CREATED } else { StatusCode::OK };
    let value = show::to_writer(call, outcome.key.kind, &outcome.stored.value);
    Ok(envelope::json(status, &json!({"key": envelope::key_text(&outcome.key), "value": value})))
}

/// `guarded` when the client demanded a revision, so that a conflict is its own.
fn told(done: Result<Response, Refused>, guarded: bool) -> Response {
    done.unwrap_or_else(|refused| envelope::refused(&refused, guarded))
}

fn read_value(bytes: &[u8]) -> Result<Value, Box<Response>> {
    if bytes.is_empty() {
        return Err(Box::new(envelope::bad("missing configurations")));
    }
    body::json(bytes).map_err(|why| {
        let repeated: String = String::from_utf8_lossy(bytes).chars().take(MOST_REPEATED).collect();
        let answer = json!({"error_msg": format!("invalid request body: {why}"), "req_body": repeated});
        Box::new(envelope::json(StatusCode::BAD_REQUEST, &answer))
    })
}

fn read_object(bytes: &[u8]) -> Result<Value, Box<Response>> {
    let value = read_value(bytes)?;
    if value.is_object() {
        return Ok(value);
    }
    Err(Box::new(envelope::bad("invalid request body: expected a JSON object")))
}

fn id_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Times that the server sets must not be given.
fn forbidden(value: &Value) -> Result<(), String> {
    let given: Vec<&str> = ["create_time", "update_time"].into_iter().filter(|name| value.get(name).is_some()).collect();
    if given.is_empty() { Ok(()) } else { Err(format!("the property is forbidden:  {}", given.join(" "))) }
}

/// URL and body must agree on the id.
fn same_id(key: &Key, value: &Value) -> Result<(), String> {
    let own = key.id.rsplit('/').next().unwrap_or_default();
    let agrees = |text: &str| text == &*key.id || text == own;
    match value.get("id").and_then(id_text) {
        Some(id) if !agrees(&id) => Err(format!("wrong {} id", key.kind.singular())),
        _ if key.kind == ResourceKind::Consumer => match value.get("username").and_then(id_text) {
            Some(name) if !agrees(&name) => Err("wrong username".to_owned()),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// When a write is to be undone, by `?ttl=` seconds.
fn expiry(call: &Call<'_>) -> Result<Option<u64>, String> {
    let Some(text) = call.arg("ttl") else { return Ok(None) };
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds < 1e10 => Ok(Some((call.admin.clock)() + (seconds * 1000.0) as u64)),
        Ok(_) => Err("invalid argument ttl: should be a number above 0".to_owned()),
        Err(_) => Err("invalid argument ttl: should be a number".to_owned()),
    }
}

/// What `If-Match` (a `modifiedIndex` or `*`) or `If-None-Match: *` demands.
fn expect(call: &Call<'_>, key: &Key) -> Result<Expect, Box<Response>> {
    let text = |name| call.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).map(str::trim);
    if text(header::IF_NONE_MATCH) == Some("*") {
        return Ok(Expect::Absent);
    }
    let Some(wanted) = text(header::IF_MATCH) else { return Ok(Expect::Any) };
    if wanted == "*" {
        let state = call.admin.keeper.state();
        return match state.get(key) {
            Some(stored) => Ok(Expect::Modified(stored.modified)),
            None => Err(Box::new(envelope::error(StatusCode::PRECONDITION_FAILED, format!("{key} does not exist")))),
        };
    }
    match wanted.trim_matches('"').parse() {
        Ok(revision) => Ok(Expect::Modified(revision)),
        Err(_) => Err(Box::new(envelope::bad(format!("invalid If-Match: expected a modifiedIndex, got {wanted}")))),
    }
}
