//! What an answer shows of a data plane, and in what two may differ: each difference that is allowed stands here with its reason.

use std::collections::BTreeMap;

use heddle_integration::client::Answer;
use heddle_integration::echo;

use super::requests::Request;

/// Fields of answers that are compared by whether they are there: what they say is of the moment.
const OF_THE_MOMENT: [&str; 1] = ["date"];

/// In what answers may differ.
pub struct Allowed {
    /// Whether a field of answers may say this here, and that there.
    field: fn(&Request, &str, Option<&str>, Option<&str>) -> bool,
    /// Routes on which we tell the upstream a port behind the name of a host, with the reason.
    with_port: &'static [(&'static str, &'static str)],
    /// Why answers to a request may differ as a whole.
    excuse: fn(&Request, &Seen, &Seen) -> Option<&'static str>,
}

/// Between Heddle's agent and Envoy with one bootstrap of Envoy's.
pub const READ: Allowed = Allowed { field: read, with_port: &WITH_PORT, excuse };

/// Between Heddle's own gateway and Envoy with the same resources of Heddle's.
pub const SERVED: Allowed = Allowed { field: told, with_port: &[], excuse: served };

fn read(_: &Request, name: &str, _: Option<&str>, _: Option<&str>) -> bool {
    FIELDS.iter().any(|(known, _)| *known == name)
}

/// What we tell every browser, Envoy tells in preflights alone; in the place of `*` it repeats what was asked. It tells preflights of others what the allowed may do,
/// which says nothing without the origin, and does not tell caches of preflights, which nobody keeps, that they depend on it.
fn told(request: &Request, name: &str, ours: Option<&str>, theirs: Option<&str>) -> bool {
    let preflight = request.method == "OPTIONS";
    match name {
        // What edits answers is not asked about those to preflights.
        "vary" | "x-route" => preflight && theirs.is_none(),
        "access-control-allow-origin" => ours == Some("*"),
        "access-control-allow-credentials" => preflight && ours.is_none(),
        "access-control-allow-methods" | "access-control-allow-headers" | "access-control-max-age" => {
            ours == Some("*") || theirs.is_none() || (preflight && ours.is_none())
        }
        _ => false,
    }
}

/// Fields of answers that may differ, with the reason.
const FIELDS: [(&str, &str); 7] = [
    ("vary", "we tell caches that the answer depends on the origin"),
    ("access-control-allow-methods", "we send it with every answer; browsers read it of preflights alone"),
    ("access-control-allow-headers", "the same"),
    ("access-control-max-age", "the same"),
    ("www-authenticate", "what is wrong with a token we say in our words"),
    ("x-envoy-upstream-service-time", "fields of that name are never sent"),
    ("x-envoy-upstream-healthchecked-cluster", "fields of that name are never sent"),
];

/// Fields of requests at the upstream that may differ, with the reason.
const UPSTREAM_FIELDS: [(&str, &str); 7] = [
    ("x-request-id", "its form is ours"),
    ("x-forwarded-for", "of a client on the loopback Envoy tells an address of its own"),
    ("x-envoy-external-address", "x-forwarded-for says it"),
    ("x-envoy-internal", "nobody believes it behind another proxy"),
    ("x-forwarded-host", "who was asked is told on by us, in addition"),
    ("x-forwarded-port", "the same"),
    ("x-real-ip", "the same"),
];

/// Routes on which we tell the upstream a port behind the name of a host, with the reason.
const WITH_PORT: [(&str, &str); 2] = [
    ("query", "the own name of an endpoint is told with its port"),
    ("write", "the header that stands instead of the host is not there, so that the host stays as it came"),
];

/// Whether a request has a token of an issuer whom the configuration does not name: the beginning of its claims, in base64url.
fn of_nobody(request: &Request) -> bool {
    let claims = heddle_integration::openssl::base64url(b"{\"iss\":\"nobody");
    request.fields.iter().any(|(_, value)| value.contains(&claims[..claims.len() - 1]))
}

/// Why answers to a request may differ as a whole.
fn excuse(request: &Request, ours: &Seen, theirs: &Seen) -> Option<&'static str> {
    let asks = |name: &str| request.fields.iter().any(|(field, _)| field.eq_ignore_ascii_case(name));
    if request.target.starts_with("/..") && ours.status == 400 {
        return Some("a path that climbs above the root is refused");
    }
    if request.method == "OPTIONS" && asks("access-control-request-method") && ours.status == 200 && theirs.asked.is_some() {
        return Some("a preflight of an origin that is not allowed is answered and not sent on");
    }
    if (ours.status, theirs.status) == (401, 200) && request.target.starts_with("/token/maybe") && of_nobody(request) {
        return Some("a token of an issuer that nobody named is refused, also where none is needed");
    }
    if (ours.status, theirs.status) == (200, 401) && request.target.contains("access_token=") && asks("authorization") {
        return Some("of several tokens the first counts");
    }
    if (ours.status, theirs.status) == (401, 403) && asks("authorization") {
        return Some("a token for another audience is 401");
    }
    if (ours.status, theirs.status) == (502, 503) && ours.asked.is_none() && theirs.asked.is_none() {
        return Some("an endpoint that takes no connection is 502");
    }
    None
}

/// The same where both are given Heddle's resources.
fn served(request: &Request, ours: &Seen, theirs: &Seen) -> Option<&'static str> {
    if request.target.starts_with("/..") && ours.status == 400 {
        return Some("a path that climbs above the root is refused");
    }
    if (ours.status, theirs.status) == (502, 503) && ours.asked.is_none() && theirs.asked.is_none() {
        return Some("an endpoint that takes no connection is 503 in Envoy");
    }
    let says_scheme = request.fields.iter().any(|(name, _)| name == "x-forwarded-proto");
    if request.target.starts_with("/secure") && says_scheme && theirs.status == 301 {
        return Some("what a client says of its scheme Envoy does not believe");
    }
    None
}

/// What is seen of one answer.
pub struct Seen {
    pub status: u16,
    fields: BTreeMap<String, String>,
    body: String,
    /// What the upstream was asked, when one was.
    asked: Option<Asked>,
}

struct Asked {
    line: String,
    fields: BTreeMap<String, String>,
    body: String,
}

fn joined<'f>(fields: impl Iterator<Item = (&'f str, &'f str)>) -> BTreeMap<String, String> {
    let mut map: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in fields {
        let there = map.entry(name.to_ascii_lowercase()).or_default();
        there.push_str(if there.is_empty() { "" } else { ", " });
        there.push_str(value);
    }
    map
}

impl Seen {
    pub fn new(answer: Answer) -> Seen {
        let mut fields = joined(answer.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        for name in OF_THE_MOMENT {
            fields.entry(name.to_owned()).and_modify(|value| *value = "there".to_owned());
        }
        let asked = echo::asked(&answer.body).map(|told| {
            let list: Vec<(String, String)> = serde_json::from_value(told["fields"].clone()).unwrap();
            Asked {
                line: format!("{} {}", told["method"].as_str().unwrap(), told["target"].as_str().unwrap()),
                fields: joined(list.iter().map(|(name, value)| (name.as_str(), value.as_str()))),
                body: told["body"].as_str().unwrap().to_owned(),
            }
        });
        if asked.is_some() {
            // What the upstream says of its fields makes it longer or shorter.
            fields.remove("content-length");
        }
        Seen { status: answer.status, fields, body: answer.text(), asked }
    }

    /// The route that answered, where it says so.
    pub fn route(&self) -> Option<String> {
        self.fields.get("x-route").cloned()
    }

    pub fn reached_upstream(&self) -> bool {
        self.asked.is_some()
    }
}

/// What differs between two answers to one request, and is not allowed to.
pub fn between(allowed: &Allowed, request: &Request, ours: &Seen, theirs: &Seen) -> Vec<String> {
    let mut found = Vec::new();
    if (allowed.excuse)(request, ours, theirs).is_some() {
        return found;
    }
    if ours.status != theirs.status {
        found.push(format!("status: {} instead of {}", ours.status, theirs.status));
    }
    // Answers of the proxy itself: their bodies are ours, where the configuration gives none.
    let own = ours.asked.is_none() && theirs.asked.is_none() && !theirs.fields.contains_key("x-upstream");
    let unsaid = own && theirs.status >= 400 && theirs.status != 418;
    let head = request.method == "HEAD";
    let skip = |name: &str, ours: Option<&str>, theirs: Option<&str>| {
        // The length of what is not sent need not be told, and is by nobody in the same way.
        (unsaid && matches!(name, "content-type" | "content-length"))
            || (head && matches!(name, "content-length" | "transfer-encoding"))
            || (allowed.field)(request, name, ours, theirs)
    };
    fields("field", &ours.fields, &theirs.fields, &skip, &mut found);
    let route = theirs.route();
    match (&ours.asked, &theirs.asked) {
        (Some(ours), Some(theirs)) => {
            if ours.line != theirs.line {
                found.push(format!("at the upstream: {} instead of {}", ours.line, theirs.line));
            }
            if ours.body != theirs.body {
                found.push("the body that the upstream got".to_owned());
            }
            let bare = |host: Option<&String>| host.map(|host| plain("host", host.split(':').next().unwrap_or_default()));
            let ported = allowed.with_port.iter().any(|(known, _)| route.as_deref() == Some(*known))
                && bare(ours.fields.get("host")) == bare(theirs.fields.get("host"));
            let skip = |name: &str, _: Option<&str>, _: Option<&str>| {
                UPSTREAM_FIELDS.iter().any(|(known, _)| *known == name) || (ported && name == "host")
            };
            fields("at the upstream", &ours.fields, &theirs.fields, &skip, &mut found);
        }
        (None, None) if !unsaid && request.method != "HEAD" && ours.body != theirs.body => {
            found.push(format!("body: {:?} instead of {:?}", ours.body, theirs.body));
        }
        (None, None) => {}
        (ours, _) => found.push(format!("{} reached an upstream", if ours.is_some() { "only we" } else { "only Envoy" })),
    }
    found
}

/// Whether a field of this name and these values is not compared.
type Skip<'s> = &'s dyn Fn(&str, Option<&str>, Option<&str>) -> bool;

fn fields(
    what: &str,
    ours: &BTreeMap<String, String>,
    theirs: &BTreeMap<String, String>,
    skip: Skip<'_>,
    found: &mut Vec<String>,
) {
    let names: std::collections::BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    for name in names {
        let (ours, theirs) = (ours.get(name), theirs.get(name));
        if skip(name, ours.map(String::as_str), theirs.map(String::as_str)) {
            continue;
        }
        let (a, b) = (ours.map(|value| plain(name, value)), theirs.map(|value| plain(name, value)));
        if a != b {
            found.push(format!("{what} {name}: {ours:?} instead of {theirs:?}"));
        }
    }
}

/// What counts of a value: names of hosts mean the same in both cases and without the dot of the root, and an empty query is none.
fn plain(name: &str, value: &str) -> String {
    match name {
        "host" => value.trim_end_matches('.').to_ascii_lowercase(),
        // A list, on one line or on several (RFC 9110 section 5.3).
        "x-by" => value.replace(", ", ","),
        "location" => {
            let value = value.strip_suffix('?').unwrap_or(value);
            let host = value.find("://").map_or(0, |at| value[at + 3..].find('/').map_or(value.len(), |end| at + 3 + end));
            value[..host].to_ascii_lowercase() + &value[host..]
        }
        _ => value.to_owned(),
    }
}
