//! Variables of a request (`$host`, `arg_id`, `http_x_tag` …), looked up by a name that was resolved once. It knows no tables and reads no clock.
//!
//! Names and meanings are those of nginx and APISIX. What differs, on purpose: `arg_*` and `uri_param_*` are not percent-decoded (as in nginx),
//! `request_uri` shows the normalised path, `bytes_sent` counts body bytes only and `ssl_client_fingerprint` is SHA-256.

mod table;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Exchange;
use super::content::{self, JsonPath, Operation};
use crate::http::digits::{push_ip, push_number};
use crate::http::{FieldName, Fields, Name, Version};

/// Bytes of the longest address: 8 groups of 4, 7 colons.
const LONGEST_IP: usize = 39;

/// Request fields whose lines Envoy has as one, with commas between: measured with 1.40.
const ONE_LINE: [&str; 33] = [
    "accept",
    "accept-encoding",
    "access-control-request-headers",
    "access-control-request-method",
    "authorization",
    "cache-control",
    "cdn-loop",
    "connection",
    "content-encoding",
    "content-type",
    "expect",
    "grpc-accept-encoding",
    "grpc-timeout",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "origin",
    "pragma",
    "proxy-connection",
    "proxy-status",
    "referer",
    "te",
    "upgrade",
    "user-agent",
    "via",
    "x-client-trace-id",
    "x-envoy-attempt-count",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
];

/// Key of the slot (of type [`Fields`]) under which the fields of the response are recorded for `sent_http_*`.
pub const SENT_FIELDS: &str = "sent_fields";

/// Key of the slot (of type `String`) under which the `request-id` filter keeps an id that stands in no `X-Request-Id` field.
pub const REQUEST_ID: &str = "request-id";

/// Key of the slot (of type `serde_json::Map<String, serde_json::Value>`) under which plugins that verify tokens keep the claims, for `jwt_claim_*`.
pub const JWT_CLAIMS: &str = "jwt_claims";

/// Key of the slot (of type `String`) under which it is kept which authorization policy has refused a request, or would have.
pub const POLICY: &str = "authorization_policy";

/// Key of the slot (of type `String`) under which `jwt-auth` keeps all claims as JSON on demand.
pub const JWT_PAYLOAD: &str = "jwt_auth_payload";

/// A variable, resolved once from its name.
#[derive(Clone)]
pub struct Variable {
    name: Arc<str>,
    kind: Kind,
}

/// What a variable holds for one request.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// Text, borrowed where it exists.
    Text(Cow<'a, str>),
    /// A whole number.
    Number(u64),
    /// An address.
    Ip(IpAddr),
    /// A time, written in seconds with three decimals.
    Seconds(Duration),
    /// Yes or no, which only JSON knows.
    Bool(bool),
}

type Getter = for<'a> fn(&'a Exchange) -> Option<Value<'a>>;

#[derive(Clone)]
enum Kind {
    Plain(Getter),
    Header(HeaderName),
    /// The fields of one name, spelled with its very hyphens and underscores, each for itself.
    Field(Arc<FieldName>),
    /// The same of a name whose lines are one.
    OneLine(Arc<FieldName>),
    SentHeader(HeaderName),
    Arg(Arc<str>),
    Cookie(Arc<str>),
    Param(Arc<str>),
    Claim(Arc<str>),
    /// An argument of a form in the body.
    PostArg(Arc<str>),
    /// A place in the document that the body is.
    PostPath(Arc<JsonPath>),
    Operation(fn(&Operation) -> Cow<'_, str>),
    RootFields,
    /// Whom the certificate of the client names: several names of one.
    Principals,
    /// The addresses that the request came by, as Envoy tells them: behind those that the client names, at the edge, its own.
    ForwardedFor,
    Unknown,
}

/// A header name with `-` for `_`; a known one is found without comparing text.
#[derive(Clone)]
struct HeaderName(Arc<FieldName>);

impl Variable {
    /// The variable of this name, without `$`. A name that means nothing is always absent.
    pub fn new(name: &str) -> Variable {
        let kind = if let Some(getter) = table::find(name) {
            Kind::Plain(getter)
        } else if let Some(header) = name.strip_prefix("http_") {
            Kind::Header(HeaderName::new(header))
        } else if let Some(field) = name.strip_prefix("field_") {
            let field = field.to_ascii_lowercase();
            let is_one = ONE_LINE.contains(&field.as_str());
            let name = Arc::new(FieldName::new(field));
            if is_one { Kind::OneLine(name) } else { Kind::Field(name) }
        } else if let Some(header) = name.strip_prefix("sent_http_") {
            Kind::SentHeader(HeaderName::new(header))
        } else if let Some(arg) = name.strip_prefix("arg_") {
            Kind::Arg(arg.into())
        } else if let Some(cookie) = name.strip_prefix("cookie_") {
            Kind::Cookie(cookie.into())
        } else if let Some(param) = name.strip_prefix("uri_param_") {
            Kind::Param(param.into())
        } else if let Some(claim) = name.strip_prefix("jwt_claim_") {
            Kind::Claim(claim.into())
        } else if let Some(arg) = name.strip_prefix("post_arg_") {
            Kind::PostArg(arg.into())
        } else if let Some(path) = name.strip_prefix("post_arg.") {
            JsonPath::parse(path).map_or(Kind::Unknown, |path| Kind::PostPath(Arc::new(path)))
        } else if name == "graphql_name" {
            Kind::Operation(|operation| Cow::Borrowed(&operation.name))
        } else if name == "graphql_operation" {
            Kind::Operation(|operation| Cow::Borrowed(operation.kind))
        } else if name == "graphql_root_fields" {
            Kind::RootFields
        } else if name == "ssl_client_principal" {
            Kind::Principals
        } else if name == "forwarded_for" {
            Kind::ForwardedFor
        } else {
            Kind::Unknown
        };
        Variable { name: name.into(), kind }
    }

    /// The name, without `$`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is taken from the body, which must have been kept ([`Exchange::keep_content`]).
    pub fn wants_content(&self) -> bool {
        content::is_named(&self.name)
    }

    /// Whether this is the address of the client.
    pub(crate) fn is_client_address(&self) -> bool {
        &*self.name == "remote_addr"
    }

    /// The value for this request, `None` when absent.
    pub fn value<'a>(&self, x: &'a Exchange) -> Option<Value<'a>> {
        match &self.kind {
            Kind::Plain(getter) => getter(x),
            Kind::Header(name) => name.joined(&x.request.fields).map(Value::Text),
            Kind::Field(name) if is_crumbs(name, x) => HeaderName(name.clone()).joined(&x.request.fields).map(Value::Text),
            Kind::Field(name) => x.request.fields.get_named(name).map(Value::lossy),
            Kind::OneLine(name) => joined(x.request.fields.get_all_named(name), ",").map(Value::Text),
            Kind::SentHeader(name) => name.joined(x.slot::<Fields>(SENT_FIELDS)?).map(Value::Text),
            Kind::Arg(name) => query_arg(table::query(x)?, name).map(Value::from),
            Kind::Cookie(name) => x.request.cookie(name).map(Value::from),
            Kind::Param(name) => x.params.iter().find(|(key, _)| key == name).map(|(_, value)| Value::from(value.as_str())),
            Kind::Claim(name) => claim(x, name),
            Kind::PostArg(name) => x.content()?.form()?.get(&**name).and_then(first).and_then(Value::of_json),
            Kind::PostPath(path) => in_document(x, path),
            Kind::Operation(part) => x.operation().map(|operation| Value::Text(part(operation))),
            Kind::RootFields => {
                let fields = &x.operation()?.root_fields;
                Some(Value::Text(Cow::Owned(serde_json::Value::from(fields.as_slice()).to_string())))
            }
            Kind::Principals => principals(x).next().map(Value::from),
            Kind::ForwardedFor if x.trusted => forwarded_for(x).map(Value::Text),
            Kind::ForwardedFor => {
                let peer = Value::Ip(x.connection.peer.ip().to_canonical());
                Some(match forwarded_for(x) {
                    Some(said) => Value::from(format!("{said},{}", peer.into_text())),
                    None => peer,
                })
            }
            Kind::Unknown => None,
        }
    }

    /// Whether it may hold several values, of which one is enough for a condition.
    pub(super) fn is_several(&self) -> bool {
        matches!(self.kind, Kind::Principals | Kind::Field(_))
    }

    /// The text for this request, `None` when absent; allocates only where no text exists (addresses, numbers).
    pub fn get<'a>(&self, x: &'a Exchange) -> Option<Cow<'a, str>> {
        self.value(x).map(Value::into_text)
    }

    /// Calls `each` with every single value: all fields of a header, all arguments of a name; else the one value.
    pub fn any(&self, x: &Exchange, mut each: impl FnMut(&str) -> bool) -> bool {
        match &self.kind {
            Kind::Header(name) if name.0.id() != Name::Host => {
                x.request.fields.get_all_loosely(&name.0).any(|value| each(&String::from_utf8_lossy(value)))
            }
            Kind::Field(name) if is_crumbs(name, x) => {
                HeaderName(name.clone()).joined(&x.request.fields).is_some_and(|value| each(&value))
            }
            Kind::Field(name) => x.request.fields.get_all_named(name).any(|value| each(&String::from_utf8_lossy(value))),
            Kind::Arg(name) => table::query(x).is_some_and(|query| query_args(query, name).any(each)),
            Kind::PostArg(name) => {
                let value = x.content().and_then(|content| content.form()).and_then(|form| form.get(&**name));
                value.is_some_and(|value| any_item(value, &mut each))
            }
            Kind::PostPath(path) => {
                let found = x.content().and_then(|content| content.document()).map(|document| path.find(document));
                found.is_some_and(|found| found.into_iter().any(|value| any_item(value, &mut each)))
            }
            Kind::RootFields => x.operation().is_some_and(|operation| operation.root_fields.iter().any(|name| each(name))),
            Kind::Principals => principals(x).any(each),
            _ => self.get(x).is_some_and(|value| each(&value)),
        }
    }
}

impl fmt::Debug for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${}", self.name)
    }
}

/// Whom the certificate of the client names. One who shows none over TLS has an empty name.
fn principals(x: &Exchange) -> impl Iterator<Item = &str> {
    const NOBODY: &[Box<str>] = &[];
    let tls = x.connection.tls.as_ref();
    let named = tls.and_then(|tls| tls.client.as_ref()).map(|client| &*client.principals);
    let nameless = tls.filter(|_| named.is_none()).map(|_| "");
    named.unwrap_or(NOBODY).iter().map(|name| &**name).chain(nameless)
}

/// What stands at a place of the document that the body is: all of it as JSON where the path may find many.
fn in_document<'a>(x: &'a Exchange, path: &JsonPath) -> Option<Value<'a>> {
    let found = path.find(x.content()?.document()?);
    if path.finds_many() {
        let list = || serde_json::Value::Array(found.iter().copied().cloned().collect());
        return (!found.is_empty()).then(|| Value::Text(Cow::Owned(list().to_string())));
    }
    found.first().copied().and_then(Value::of_json)
}

/// The first of the values of a name.
fn first(value: &serde_json::Value) -> Option<&serde_json::Value> {
    match value {
        serde_json::Value::Array(values) => values.first(),
        one => Some(one),
    }
}

/// Calls `each` with the items of an array, or with what is none.
fn any_item(value: &serde_json::Value, each: &mut impl FnMut(&str) -> bool) -> bool {
    let mut one = |value: &serde_json::Value| Value::of_json(value).is_some_and(|value| each(&value.into_text()));
    match value {
        serde_json::Value::Array(items) => items.iter().any(one),
        other => one(other),
    }
}

impl<'a> Value<'a> {
    /// A value of JSON: `null` is absent, objects and arrays are their text.
    fn of_json(value: &'a serde_json::Value) -> Option<Value<'a>> {
        Some(match value {
            serde_json::Value::Null => return None,
            serde_json::Value::Bool(value) => Value::Bool(*value),
            serde_json::Value::String(text) => Value::Text(Cow::Borrowed(text)),
            serde_json::Value::Number(number) => match number.as_u64() {
                Some(number) => Value::Number(number),
                None => Value::Text(Cow::Owned(number.to_string())),
            },
            other => Value::Text(Cow::Owned(other.to_string())),
        })
    }

    /// The value as text.
    pub fn into_text(self) -> Cow<'a, str> {
        match self {
            Value::Text(text) => text,
            Value::Number(number) => Cow::Owned(ascii(|out| push_number(out, number))),
            Value::Ip(ip) => Cow::Owned(ascii(|out| push_ip(out, ip))),
            Value::Seconds(_) => Cow::Owned(self.to_string()),
            Value::Bool(value) => Cow::Borrowed(if value { "true" } else { "false" }),
        }
    }

    /// Text from bytes; what is not UTF-8 is replaced.
    fn lossy(bytes: &'a [u8]) -> Value<'a> {
        Value::Text(String::from_utf8_lossy(bytes))
    }
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Text(text) => f.write_str(text),
            Value::Number(number) => number.fmt(f),
            Value::Ip(ip) => ip.fmt(f),
            Value::Bool(value) => value.fmt(f),
            Value::Seconds(time) => write!(f, "{}.{:03}", time.as_secs(), time.subsec_millis()),
        }
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Value<'a> {
        Value::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Value::Text(Cow::Owned(text))
    }
}

impl HeaderName {
    fn new(variable: &str) -> HeaderName {
        let text = variable.to_ascii_lowercase().replace('_', "-");
        HeaderName(Arc::new(FieldName::new(text)))
    }

    /// The value, or all values joined as RFC 9110 section 5.3 has it (cookies as RFC 9113 section 8.2.3).
    fn joined<'a>(&self, fields: &'a Fields) -> Option<Cow<'a, str>> {
        joined(fields.get_all_loosely(&self.0), if self.0.id() == Name::Cookie { "; " } else { ", " })
    }
}

/// Of HTTP/2 the crumbs of cookies are one (RFC 9113 section 8.2.3).
fn is_crumbs(name: &FieldName, x: &Exchange) -> bool {
    name.id() == Name::Cookie && x.request.version == Version::Http2
}

/// All lines of `X-Forwarded-For` as Envoy has them: without those that say nothing, and with no blank between.
fn forwarded_for(x: &Exchange) -> Option<Cow<'_, str>> {
    joined(x.request.fields.get_all_known(Name::XForwardedFor).filter(|line| !line.is_empty()), ",")
}

/// The value, or all values with a separator between.
fn joined<'a>(mut values: impl Iterator<Item = &'a [u8]>, separator: &str) -> Option<Cow<'a, str>> {
    let first = String::from_utf8_lossy(values.next()?);
    let Some(second) = values.next() else { return Some(first) };
    let mut all = first.into_owned();
    for value in std::iter::once(second).chain(values) {
        all.push_str(separator);
        all.push_str(&String::from_utf8_lossy(value));
    }
    Some(Cow::Owned(all))
}

/// A claim of the token that was verified: text as it is, what is no text as JSON.
fn claim<'a>(x: &'a Exchange, name: &str) -> Option<Value<'a>> {
    match x.slot::<serde_json::Map<String, serde_json::Value>>(JWT_CLAIMS)?.get(name)? {
        serde_json::Value::Null => None,
        serde_json::Value::String(text) => Some(text.as_str().into()),
        other => Some(other.to_string().into()),
    }
}

/// Text that the writer of digits makes, without the formatting machinery.
fn ascii(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::with_capacity(LONGEST_IP);
    write(&mut out);
    String::from_utf8(out).unwrap_or_default()
}

fn query_arg<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query_args(query, name).next()
}

fn query_args<'a>(query: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let mut rest = Some(query);
    std::iter::from_fn(move || {
        while let Some(text) = rest {
            // Most queries are short, and for those a plain loop over bytes is faster than a search for a character.
            let end = text.bytes().position(|byte| byte == b'&');
            rest = end.map(|end| &text[end + 1..]);
            match text[..end.unwrap_or(text.len())].strip_prefix(name) {
                Some("") => return Some(""),
                Some(value) if value.starts_with('=') => return Some(&value[1..]),
                _ => {}
            }
        }
        None
    })
}
