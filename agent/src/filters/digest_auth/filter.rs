//! The filter of `digest-auth`.

use std::sync::Arc;

use serde_json::Value;
use subtle::ConstantTimeEq;

use super::super::identity::{self, Guests};
use super::super::{BuildContext, Built, Filter, Flow, Phases, check};
use super::config::{Config, Secret};
use super::digest::{Hash, Response};
use super::nonce::Nonces;
use crate::exchange::{ConsumerInfo, Exchange};
use crate::http::Name;

struct DigestAuth {
    realm: Box<str>,
    algorithms: Box<[Hash]>,
    ttl_ms: u64,
    hide: bool,
    guests: Guests,
    nonces: Arc<Nonces>,
}

/// Why nobody is let in.
enum Refused {
    Missing,
    Invalid,
    /// The password is right, the nonce is not (any more): clients try again by themselves.
    Stale,
}

pub(super) fn build(value: &Value, context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    Ok(Arc::new(DigestAuth {
        realm: config.realm.into(),
        algorithms: config.algorithms.into(),
        ttl_ms: u64::from(config.nonce_ttl) * 1_000,
        hide: config.hide_credentials,
        guests: Guests::new(config.anonymous_consumer),
        nonces: context.keep.get_or("digest-auth", Nonces::default),
    }))
}

impl Filter for DigestAuth {
    fn phases(&self) -> Phases {
        Phases::REWRITE
    }

    fn rewrite(&self, x: &mut Exchange) -> Flow {
        match self.verify(x) {
            Ok(consumer) => {
                if self.hide {
                    x.request.fields.remove_known(Name::Authorization);
                }
                identity::attach(x, consumer);
                Flow::Continue
            }
            Err(refused) => self.refuse(x, &refused),
        }
    }
}

impl DigestAuth {
    fn verify(&self, x: &Exchange) -> Result<Arc<ConsumerInfo>, Refused> {
        let value = x.request.fields.get_known(Name::Authorization).ok_or(Refused::Missing)?;
        let text = std::str::from_utf8(value).ok().and_then(|value| identity::after_scheme(value, "Digest"));
        let response = text.and_then(Response::parse).ok_or(Refused::Invalid)?;
        if *response.realm != *self.realm || !self.algorithms.contains(&response.hash) || !is_target(x, &response.uri) {
            return Err(Refused::Invalid);
        }
        let consumer = x.directory.find_credential("digest-auth", response.username.as_bytes());
        let secret = consumer.as_deref().and_then(|consumer| consumer.proof.clone()?.downcast::<Secret>().ok());
        let (ha1, known) = self.ha1(&response, secret.as_deref());
        let expected = response.expected(&ha1, x.original.method.as_str());
        // Computed for those who do not exist too, so that it takes as long.
        let right = bool::from(expected.as_bytes().ct_eq(response.response.as_bytes()));
        let consumer = consumer.filter(|_| right && known).ok_or(Refused::Invalid)?;
        if self.nonces.is_fresh(&self.realm, &response.nonce, response.number(), x.started_ms, self.ttl_ms) {
            Ok(consumer)
        } else {
            Err(Refused::Stale)
        }
    }

    /// The hash of name, realm and password, and whether it is really one.
    fn ha1(&self, response: &Response, secret: Option<&Secret>) -> (String, bool) {
        let of_password = |password: &str| response.hash.hex(&[&response.username, &self.realm, password]);
        match secret {
            Some(Secret::Password(password)) => (of_password(password), true),
            Some(Secret::Ha1(ha1)) if ha1.len() == response.hash.hex_len() => (ha1.to_string(), true),
            Some(Secret::Ha1(_) | Secret::Nothing) | None => (of_password(""), false),
        }
    }

    fn refuse(&self, x: &mut Exchange, refused: &Refused) -> Flow {
        let (message, stale) = match refused {
            Refused::Missing => ("Missing authorization in request", ""),
            Refused::Invalid => ("Invalid user authorization", ""),
            Refused::Stale => ("Invalid user authorization", ", stale=true"),
        };
        let mut refusal = identity::refusal(401, message);
        let nonce = self.nonces.make(&self.realm, x.started_ms, x.dice.u64(..));
        for algorithm in &self.algorithms {
            let (realm, name) = (&self.realm, algorithm.name());
            let challenge = format!("Digest realm=\"{realm}\", qop=\"auth\", algorithm={name}, nonce=\"{nonce}\"{stale}");
            refusal.head.fields.append("WWW-Authenticate", challenge);
        }
        self.guests.admit_or(x, &refusal)
    }
}

/// Whether the answer is meant for this request: by path and query, or by the whole URL.
fn is_target(x: &Exchange, uri: &str) -> bool {
    let uri = match uri.split_once("://") {
        // In a target that is a path it stands in the query.
        Some((_, rest)) if !uri.starts_with('/') => rest.find('/').map_or("/", |slash| &rest[slash..]),
        _ => uri,
    };
    match (&x.original.query, uri.split_once('?')) {
        (Some(query), Some((path, rest))) => path == x.original.path && rest == query,
        (None, None) => uri == x.original.path,
        _ => false,
    }
}
