//! What tells stored answers apart: place, method, scheme, consumer or user, and the operator's own texts, as one hash. It knows no store.

use aws_lc_rs::digest::{Context, SHA256};
use serde_json::{Map, Value};

use crate::exchange::variable::JWT_CLAIMS;
use crate::exchange::{Exchange, Template};
use crate::http::{FieldName, Fields};

/// SHA-256: nobody can find two requests with the same key, so nobody can put an answer where others will find it.
pub(super) type Key = [u8; 32];

/// How the keys of one configuration are made.
pub(super) struct KeyMaker {
    origin: Box<str>,
    parts: Vec<Template>,
    per_consumer: bool,
}

impl KeyMaker {
    pub(super) fn new(origin: &str, parts: &[String], per_consumer: bool) -> KeyMaker {
        KeyMaker { origin: origin.into(), parts: parts.iter().map(|part| Template::new(part)).collect(), per_consumer }
    }

    /// The key of what this request asks for with this method. Each part goes in with its length, so that no two lists give the same text.
    pub(super) fn of(&self, x: &Exchange, method: &str) -> Key {
        let mut hash = Context::new(&SHA256);
        put(&mut hash, self.origin.as_bytes());
        put(&mut hash, method.as_bytes());
        // A part of the target (RFC 9111 section 2): the answer to `http` may be that one should come by `https`.
        put(&mut hash, x.scheme().as_bytes());
        // `$host` has no port, and upstreams write the one that they are told into links and redirections.
        put(&mut hash, port(x).as_bytes());
        if self.per_consumer {
            match (&x.consumer, x.slot::<Map<String, Value>>(JWT_CLAIMS)) {
                (Some(consumer), _) => put(&mut hash, consumer.username.as_bytes()),
                (None, Some(claims)) => put_user(&mut hash, claims),
                (None, None) => hash.update(&[0xff]),
            }
        }
        let mut text = String::with_capacity(128);
        for part in &self.parts {
            text.clear();
            part.render_into(x, &mut text);
            put(&mut hash, text.as_bytes());
        }
        finished(hash)
    }
}

/// The key of the variant of an answer that a request with these fields gets, among those that differ by fields of the request (RFC 9111 section 4.1).
pub(super) fn variant(key: &Key, nonce: u64, names: &[FieldName], asked: &Fields) -> Key {
    let mut hash = Context::new(&SHA256);
    hash.update(key);
    hash.update(&nonce.to_le_bytes());
    for name in names {
        put(&mut hash, name.as_str().as_bytes());
        // Lines and their parts differ only by blanks from one list.
        for value in asked.get_all_named(name).flat_map(|line| line.split(|byte| *byte == b',')) {
            put(&mut hash, value.trim_ascii());
        }
        hash.update(&[0xff]);
    }
    finished(hash)
}

/// The port that the client names, unless it is the scheme's own.
fn port(x: &Exchange) -> &str {
    let named = x.request.authority.rsplit_once(':').map_or("", |(_, port)| port);
    let usual = if x.scheme() == "https" { "443" } else { "80" };
    if named != usual && named.bytes().all(|byte| byte.is_ascii_digit()) { named } else { "" }
}

/// Who is no consumer and was found by a token, as `openid-connect` does: by issuer and subject, or by all that is said where these are not.
fn put_user(hash: &mut Context, claims: &Map<String, Value>) {
    hash.update(&[0xfe]);
    match (claims.get("iss"), claims.get("sub")) {
        (issuer, Some(subject)) => {
            put(hash, issuer.map(Value::to_string).unwrap_or_default().as_bytes());
            put(hash, subject.to_string().as_bytes());
        }
        (_, None) => put(hash, serde_json::to_string(claims).unwrap_or_default().as_bytes()),
    }
}

fn put(hash: &mut Context, bytes: &[u8]) {
    hash.update(&[0]);
    hash.update(&(bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

fn finished(hash: Context) -> Key {
    let mut key = Key::default();
    // SHA-256 has as many bytes as the key.
    key.copy_from_slice(hash.finish().as_ref());
    key
}
