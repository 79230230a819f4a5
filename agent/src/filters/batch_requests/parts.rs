//! From the body of a batch to the requests in it: a pure function, in APISIX's words. It sends nothing.

use std::time::Duration;

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::http::chars::{is_target, is_token, is_value};
use crate::http::h1::is_authority;
use crate::http::{Fields, Method, RequestHead, Version};

/// What a batch may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) items: usize,
    pub(super) timeout: Duration,
}

/// The requests of a batch.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) timeout: Duration,
    pub(super) parts: Vec<Part>,
}

/// One request of a batch.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) head: Box<RequestHead>,
    pub(super) body: Bytes,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Told {
    #[serde(default)]
    query: Map<String, Value>,
    #[serde(default)]
    headers: Map<String, Value>,
    timeout: Option<u64>,
    pipeline: Vec<ToldPart>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ToldPart {
    #[serde(default)]
    method: String,
    path: String,
    #[serde(default)]
    query: Map<String, Value>,
    #[serde(default)]
    headers: Map<String, Value>,
    #[serde(default)]
    body: String,
    version: Option<f64>,
    /// APISIX asks itself over TLS where its clients do; here nothing leaves the process.
    #[serde(rename = "ssl_verify")]
    _ssl_verify: Option<bool>,
}

const METHODS: [&str; 10] = ["", "GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "CONNECT", "TRACE"];

/// What is escaped in arguments: all but the unreserved characters of RFC 3986 section 2.3.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// How long a batch may take when it does not say, as in APISIX.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Fields of the batch that are about the batch, or about the connection that it came on; and `Accept-Encoding`, since answers are put into JSON.
const OWN: [&str; 9] = [
    "accept-encoding",
    "connection",
    "expect",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The requests of a batch whose own head is `outer`: its fields go to each of them, below the common ones and those of the request itself.
///
/// # Errors
/// What is wrong, for the client.
pub(super) fn read(body: &[u8], outer: &RequestHead, limits: Limits) -> Result<Batch, String> {
    if body.is_empty() {
        return Err("no request body, you should give at least one pipeline setting".to_owned());
    }
    let told: Told = serde_json::from_slice(body).map_err(|error| format!("invalid request body: {error}"))?;
    if !(1..=limits.items).contains(&told.pipeline.len()) {
        return Err(format!("bad request body: expected pipeline to have 1 to {} items", limits.items));
    }
    if told.timeout == Some(0) {
        return Err("bad request body: expected timeout to be at least 1".to_owned());
    }
    let timeout = told.timeout.map_or(TIMEOUT, Duration::from_millis).min(limits.timeout);
    let common = (told.query, told.headers);
    let part = |(index, part): (usize, ToldPart)| {
        part.read(&common, outer).map_err(|why| format!("bad request body: pipeline[{index}]: {why}"))
    };
    let parts: Result<Vec<_>, _> = told.pipeline.into_iter().enumerate().map(part).collect();
    Ok(Batch { timeout, parts: parts? })
}

impl ToldPart {
    fn read(self, common: &(Map<String, Value>, Map<String, Value>), outer: &RequestHead) -> Result<Part, String> {
        if !METHODS.contains(&self.method.as_str()) {
            return Err(format!("unknown method {:?}", self.method));
        }
        if self.version.is_some_and(|version| version != 1.0 && version != 1.1) {
            return Err("expected version to be 1.0 or 1.1".to_owned());
        }
        let (path, own_query) = self.path.split_once('?').map_or((self.path.as_str(), None), |(path, query)| (path, Some(query)));
        if !path.starts_with('/') || !is_target(self.path.as_bytes()) {
            return Err("expected path to start with / and to be percent-encoded".to_owned());
        }
        let mut head = RequestHead {
            method: Method::from_token(if self.method.is_empty() { "GET" } else { &self.method }),
            version: Version::Http11,
            authority: outer.authority.clone(),
            path: path.to_owned(),
            query: query(own_query, &common.0, &self.query)?,
            ..RequestHead::default()
        };
        fields(&mut head, &[&self.headers, &common.1], outer)?;
        if !self.body.is_empty() {
            head.fields.set("content-length", self.body.len().to_string());
        }
        Ok(Part { head: Box::new(head), body: Bytes::from(self.body) })
    }
}

/// The query of a request: what stands in its path, then the common arguments that it does not have itself, then its own.
fn query(own: Option<&str>, common: &Map<String, Value>, told: &Map<String, Value>) -> Result<Option<String>, String> {
    let mut text = own.unwrap_or_default().to_owned();
    let shared = common.iter().filter(|(name, _)| !told.contains_key(*name));
    for (name, value) in shared.chain(told) {
        let values = match value {
            Value::Array(values) => values.as_slice(),
            one => std::slice::from_ref(one),
        };
        for value in values {
            let value = plain(value).ok_or_else(|| format!("query {name}: expected a text or a number"))?;
            let and = if text.is_empty() { "" } else { "&" };
            text.push_str(&format!("{and}{}={}", utf8_percent_encode(name, ESCAPED), utf8_percent_encode(&value, ESCAPED)));
        }
    }
    Ok((own.is_some() || !text.is_empty()).then_some(text))
}

/// Adds fields, the first maps first: a name that is there already stays as it is.
fn fields(head: &mut RequestHead, told: &[&Map<String, Value>], outer: &RequestHead) -> Result<(), String> {
    let mut host = None;
    for map in told {
        let mut new = Fields::new();
        for (name, value) in *map {
            let value = plain(value).filter(|value| is_value(value.as_bytes()) && is_token(name.as_bytes()) && !name.is_empty());
            let value = value.ok_or_else(|| format!("header {name:?}: not a header field"))?;
            if name.eq_ignore_ascii_case("host") {
                host = host.or(Some(value.to_ascii_lowercase()));
            } else if name.eq_ignore_ascii_case("content-length")
                || is_of_the_connection(name)
                || is_of_proxies(name)
                || head.fields.get(name).is_some()
            {
                continue;
            } else {
                new.append(name, value.trim());
            }
        }
        head.fields.append_all(&new);
    }
    if let Some(host) = host {
        if !is_authority(host.as_bytes()) {
            return Err("header \"host\": not a host".to_owned());
        }
        head.authority = host;
    }
    let mut new = Fields::new();
    for field in outer.fields.iter() {
        let Ok(name) = std::str::from_utf8(field.name) else { continue };
        let about_content = name.len() > 8 && name.as_bytes()[..8].eq_ignore_ascii_case(b"content-");
        let own = about_content || OWN.iter().any(|own| name.eq_ignore_ascii_case(own));
        if !own && head.fields.get(name).is_none() {
            new.append(name, field.value);
        }
    }
    head.fields.append_all(&new);
    Ok(())
}

fn is_of_the_connection(name: &str) -> bool {
    OWN[1..].iter().any(|own| name.eq_ignore_ascii_case(own))
}

/// Whether only a proxy before this one may say it, in any spelling: a client that writes it into a part has not been asked by any.
fn is_of_proxies(name: &str) -> bool {
    let dashed = name.replace('_', "-");
    let told = ["forwarded", "via", "x-real-ip", "x-forwarded-client-cert"].iter().any(|own| dashed.eq_ignore_ascii_case(own));
    told || dashed.get(..12).is_some_and(|start| start.eq_ignore_ascii_case("x-forwarded-"))
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}
