//! Asking by gRPC: what is told of a request, and what an answer does to it. It knows no message on the wire.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::super::asking::stays;
use super::filter::{of_the_client, separator};
use super::names::Matching;
use super::verdict::FOR_CLIENT;
use super::wire::{self, Allowed, Denied, Edit, How, Peer, Question};
use crate::exchange::{Answer, ClientCertificate, Exchange, Reason};
use crate::http::chars::{is_token, is_value};
use crate::http::h1::is_authority;
use crate::http::{Fields, Method, Name, RequestHead, ResponseHead, Version};

/// Whether the body that it is told is only the beginning.
const PARTIAL: &str = "x-envoy-auth-partial-body";
/// What stands for itself in a query.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// What stands before the id of an upstream in the name that the control plane gives it.
const SHARED: &str = "upstreams/";
/// Longest name of a host (RFC 1035 section 2.3.4).
const LONGEST_AUTHORITY: usize = 253;
/// Letters of a line of PEM.
const PEM_LINE: usize = 64;
/// Status of a refusal that does not say one.
const FORBIDDEN: u16 = 403;

/// What is told besides the request.
pub(super) struct Telling {
    pub(super) authority: String,
    pub(super) context: BTreeMap<String, String>,
    pub(super) certificate: bool,
    pub(super) server_name: bool,
    /// Bodies are told as bytes; otherwise as text, with what is none replaced.
    pub(super) bytes: bool,
}

/// Which fields are told: those that are allowed, all where nobody says which.
pub(super) struct Told<'a> {
    pub(super) allowed: &'a Matching,
    pub(super) refused: &'a Matching,
}

/// The authority of calls to an upstream where nobody says one: its name, in which `-` stands for what no host has. The control plane names upstreams by
/// what they belong to (`upstreams/5`, `routes/1/ext-authz/0`), and others put all kinds of things in names.
pub(super) fn authority_of(upstream: &str) -> String {
    let name = upstream.strip_prefix(SHARED).unwrap_or(upstream);
    if is_authority(name.as_bytes()) {
        return name.to_owned();
    }
    let letter = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
    name.chars().map(letter).take(LONGEST_AUTHORITY).collect()
}

impl Telling {
    /// The message about a request.
    pub(super) fn question(&self, x: &Exchange, told: &Told<'_>, body: Option<&(Bytes, bool)>) -> Bytes {
        let (connection, from) = (&x.connection, &x.request);
        let client = connection.tls.as_ref().and_then(|tls| tls.client.as_ref());
        let source = Peer {
            address: connection.peer,
            principal: client.and_then(|client| client.principals.first()).map(ToString::to_string).unwrap_or_default(),
            certificate: client.filter(|_| self.certificate).map(shown).unwrap_or_default(),
        };
        let destination = Peer { address: connection.local, principal: String::new(), certificate: String::new() };
        let server_name = connection.tls.as_ref().filter(|_| self.server_name).and_then(|tls| tls.server_name.as_deref());
        let (text, bytes) = match body {
            Some((body, _)) if self.bytes => (String::new(), body.to_vec()),
            Some((body, _)) => (String::from_utf8_lossy(body).into_owned(), Vec::new()),
            None => (String::new(), Vec::new()),
        };
        wire::question(Question {
            source: Some(source),
            destination: Some(destination),
            started_ms: x.started_ms,
            id: x.dice.clone().u64(..).to_string(),
            // A WebSocket over HTTP/2 is a GET over HTTP/1.1.
            method: if from.method == Method::Connect { Method::Get.as_str() } else { from.method.as_str() }.to_owned(),
            path: from.target(),
            host: from.authority.clone(),
            scheme: x.scheme().to_owned(),
            protocol: if from.version == Version::Http2 { "HTTP/2" } else { from.version.as_str() }.to_owned(),
            size: x.body.remaining().and_then(|bytes| i64::try_from(bytes).ok()).unwrap_or(-1),
            headers: fields(x, told, body.map(|(_, partial)| *partial)),
            body: text,
            raw_body: bytes,
            context: self.context.clone(),
            server_name: server_name.map(str::to_owned),
        })
    }

    /// The head of the call.
    pub(super) fn head(&self, timeout_ms: u128) -> RequestHead {
        let mut fields = Fields::new();
        fields.append_known(Name::ContentType, "application/grpc");
        fields.append("grpc-timeout", format!("{timeout_ms}m"));
        fields.append("grpc-accept-encoding", "identity");
        fields.append_known(Name::UserAgent, "heddle");
        RequestHead {
            method: Method::Post,
            authority: self.authority.clone(),
            path: wire::METHOD.to_owned(),
            fields,
            ..RequestHead::default()
        }
    }
}

/// The certificate of a client as PEM that a field could hold.
fn shown(client: &ClientCertificate) -> String {
    let Some(der) = client.chain.first() else { return String::new() };
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let text = STANDARD.encode(der);
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(PEM_LINE));
        pem.extend([line, "\n"]);
        rest = after;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    utf8_percent_encode(&pem, QUERY).to_string()
}

/// Fields by name in lower case, several of one name with commas between (of cookies `; `); what HTTP/2 says beside its fields, too.
fn fields(x: &Exchange, told: &Told<'_>, partial: Option<bool>) -> BTreeMap<String, String> {
    let from = &x.request;
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    let mut add = |name: String, value: &str| {
        let is_told = (told.allowed.is_empty() || told.allowed.has(name.as_bytes())) && !told.refused.has(name.as_bytes());
        if is_told {
            let between = separator(Name::find(name.as_bytes()));
            all.entry(name).and_modify(|there| *there = [there, value].join(between)).or_insert_with(|| value.to_owned());
        }
    };
    add(":authority".to_owned(), &from.authority);
    add(":method".to_owned(), from.method.as_str());
    add(":path".to_owned(), &from.target());
    add(":scheme".to_owned(), x.scheme());
    for field in from.fields.iter().filter(|field| !of_the_client(field.id)) {
        let name = String::from_utf8_lossy(field.name).to_ascii_lowercase();
        let hop = stays(field.id) && field.id != Name::ContentLength;
        if !hop && name != PARTIAL {
            add(name, &String::from_utf8_lossy(field.value));
        }
    }
    add("x-forwarded-for".to_owned(), &x.remote.ip().to_canonical().to_string());
    add("x-forwarded-proto".to_owned(), x.scheme());
    all.extend(partial.map(|partial| (PARTIAL.to_owned(), partial.to_string())));
    all
}

/// Does to a request what a consent says.
pub(super) fn consent(x: &mut Exchange, said: Allowed) {
    let to = &mut x.request.fields;
    for edit in said.headers.iter().filter(|edit| is_sound(edit)) {
        let there = to.get(&edit.name).is_some();
        match edit.how {
            // It is put behind what is there, and nothing comes of it where nothing is.
            How::Add if !there => {}
            How::Add => {
                let lines: Vec<&[u8]> = to.get_all(&edit.name).chain([edit.value.as_slice()]).collect();
                let joined = lines.join(&b","[..]);
                to.set(&edit.name, joined);
            }
            _ => to.set(&edit.name, &edit.value),
        }
    }
    for name in &said.removed {
        to.retain(|field| stays(field.id) || !field.name.eq_ignore_ascii_case(name.as_bytes()));
    }
    if !(said.query.is_empty() && said.query_removed.is_empty()) {
        x.request.query = query(x.request.query.as_deref().unwrap_or_default(), &said);
    }
    let answered: Vec<Edit> = said.answered.into_iter().filter(is_sound).collect();
    if !answered.is_empty() {
        match x.slot_mut::<Vec<Edit>>(FOR_CLIENT) {
            Some(before) => before.extend(answered),
            None => x.put(FOR_CLIENT, answered),
        }
    }
}

/// Does to the answer what consents have said.
pub(super) fn tell_client(x: &mut Exchange, head: &mut ResponseHead) {
    let Some(edits) = x.slot_mut::<Vec<Edit>>(FOR_CLIENT).map(std::mem::take) else { return };
    for edit in edits {
        let there = head.fields.get(&edit.name).is_some();
        match edit.how {
            How::Add => head.fields.append(&edit.name, &edit.value),
            How::IfAbsent if there => {}
            How::IfThere if !there => {}
            How::Set | How::IfAbsent | How::IfThere => head.fields.set(&edit.name, &edit.value),
        }
    }
}

/// What the client gets of a refusal.
pub(super) fn refusal(said: Denied) -> Answer {
    let mut head = ResponseHead::new(said.status.unwrap_or(FORBIDDEN));
    if !said.body.is_empty() {
        head.fields.append_known(Name::ContentType, "text/plain");
    }
    let sound: Vec<&Edit> = said.headers.iter().filter(|edit| is_sound(edit)).collect();
    for edit in &sound {
        head.fields.remove(&edit.name);
    }
    for edit in sound {
        head.fields.append(&edit.name, &edit.value);
    }
    Answer { head, body: Bytes::from(said.body), reason: Reason::Plugin }
}

/// Whether a field may stand in a message, and is not about the connection.
fn is_sound(edit: &Edit) -> bool {
    is_token(edit.name.as_bytes()) && is_value(&edit.value) && !stays(Name::find(edit.name.as_bytes()))
}

/// The query with other arguments; those that stay keep their places.
fn query(from: &str, said: &Allowed) -> Option<String> {
    // However a name is written, it is the one that the upstream reads.
    let names = |part: &str, key: &str| {
        let name = part.split('=').next().unwrap_or_default();
        name == key || percent_decode_str(&name.replace('+', " ")).eq(key.bytes())
    };
    let mut parts: Vec<String> = from.split('&').filter(|part| !part.is_empty()).map(str::to_owned).collect();
    for (key, value) in &said.query {
        let set = format!("{}={}", utf8_percent_encode(key, QUERY), utf8_percent_encode(value, QUERY));
        match parts.iter().position(|part| names(part, key)) {
            Some(first) => {
                parts[first] = set;
                let mut number = 0;
                parts.retain(|part| {
                    number += 1;
                    number <= first + 1 || !names(part, key)
                });
            }
            None => parts.push(set),
        }
    }
    for key in &said.query_removed {
        parts.retain(|part| !names(part, key));
    }
    (!parts.is_empty()).then(|| parts.join("&"))
}
