//! The filter of `hmac-auth`.

use std::borrow::Cow;
use std::sync::Arc;

use aws_lc_rs::{digest, hmac};
use base64::Engine;
use bytes::Bytes;
use serde_json::Value;
use subtle::ConstantTimeEq;

use super::super::identity::{self, BASE64, Guests};
use super::super::{BuildContext, Built, Filter, Flow, Phases, check};
use super::canonical::{self, Signature};
use super::config::{Algorithm, Config, Secret};
use super::date;
use crate::exchange::{Answer, ConsumerInfo, Exchange};
use crate::http::Name;

/// The answer's words for everybody; what is wrong follows.
const REFUSAL: &str = "client request can't be validated";

struct HmacAuth(Arc<Inner>);

struct Inner {
    allowed: Box<[Algorithm]>,
    skew: u64,
    signed: Box<[Box<str>]>,
    /// Most bytes of a body whose digest is checked; `None` when none is.
    body: Option<u64>,
    hide: bool,
    guests: Guests,
    challenge: Box<str>,
    /// What those are checked against who do not exist, so that it takes as long.
    decoy: Secret,
}

pub(super) fn build(value: &Value, _context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    Ok(Arc::new(HmacAuth(Arc::new(Inner {
        allowed: config.allowed_algorithms.into(),
        skew: config.clock_skew.into(),
        signed: config.signed_headers.into_iter().map(|name| name.to_ascii_lowercase().into()).collect(),
        body: config.validate_request_body.then_some(config.max_req_body_size),
        hide: config.hide_credentials,
        guests: Guests::new(config.anonymous_consumer),
        challenge: format!("hmac realm=\"{}\"", config.realm).into(),
        decoy: Secret::new(&[0; 32]),
    }))))
}

impl Filter for HmacAuth {
    fn phases(&self) -> Phases {
        Phases::REWRITE
    }

    fn rewrite(&self, x: &mut Exchange) -> Flow {
        let inner = &self.0;
        let consumer = match inner.verify(x) {
            Ok(consumer) => consumer,
            Err(reason) => return inner.refuse(x, &reason),
        };
        let Some(limit) = inner.body else { return inner.accept(x, consumer) };
        // Said by the client, and worth something when it is signed too.
        let told = x.request.fields.get_str("digest").and_then(|value| value.strip_prefix("SHA-256="));
        let Some(told) = told.and_then(|value| BASE64.decode(value).ok()) else { return inner.refuse(x, "Invalid digest") };
        let inner = inner.clone();
        Flow::Body {
            limit,
            then: Box::new(move |x, bytes: Bytes| {
                let found = digest::digest(&digest::SHA256, &bytes);
                if bool::from(found.as_ref().ct_eq(&told)) {
                    inner.accept(x, consumer)
                } else {
                    inner.refuse(x, "Invalid digest")
                }
            }),
        }
    }
}

impl Inner {
    /// Whose signature it is, or what is wrong with it.
    fn verify(&self, x: &Exchange) -> Result<Arc<ConsumerInfo>, String> {
        let value = x.request.fields.get_known(Name::Authorization).ok_or("missing Authorization header")?;
        let value = std::str::from_utf8(value).ok().and_then(|value| identity::after_scheme(value, "Signature"));
        let signature = canonical::parse(value.ok_or("Authorization header does not start with 'Signature'")?);
        let signature = signature.map_err(|error| error.to_string())?;
        let algorithm = Algorithm::of_name(signature.algorithm).filter(|algorithm| self.allowed.contains(algorithm));
        let algorithm = algorithm.ok_or("Invalid algorithm")?;
        self.check_date(x)?;
        for name in &self.signed {
            if !signature.headers.iter().any(|signed| signed.eq_ignore_ascii_case(name)) {
                return Err(format!("expected header \"{name}\" missing in signing"));
            }
        }
        let consumer = x.directory.find_credential("hmac-auth", signature.key_id.as_bytes());
        let secret = consumer.as_deref().and_then(|consumer| consumer.proof.clone()?.downcast::<Secret>().ok());
        let right = is_right(x, &signature, secret.as_deref().unwrap_or(&self.decoy).key(algorithm));
        match consumer {
            None => Err("Invalid key_id".to_owned()),
            Some(consumer) if right && secret.is_some() => Ok(consumer),
            Some(_) => Err("Invalid signature".to_owned()),
        }
    }

    fn check_date(&self, x: &Exchange) -> Result<(), String> {
        let text = x.request.fields.get_known(Name::Date).ok_or("Date header missing. failed to validate clock skew")?;
        let told = std::str::from_utf8(text).ok().and_then(date::parse).ok_or("Invalid GMT format time")?;
        let now = i64::try_from(x.started_ms / 1_000).unwrap_or(i64::MAX);
        if now.abs_diff(told) > self.skew { Err("Clock skew exceeded".to_owned()) } else { Ok(()) }
    }

    fn accept(&self, x: &mut Exchange, consumer: Arc<ConsumerInfo>) -> Flow {
        if self.hide {
            x.request.fields.remove_known(Name::Authorization);
        }
        identity::attach(x, consumer);
        Flow::Continue
    }

    fn refuse(&self, x: &mut Exchange, reason: &str) -> Flow {
        let refusal: Answer = identity::challenge(&format!("{REFUSAL}: {reason}"), &self.challenge);
        self.guests.admit_or(x, &refusal)
    }
}

/// Whether the signature is that of the request; compared in constant time.
fn is_right(x: &Exchange, signature: &Signature<'_>, key: &hmac::Key) -> bool {
    let original = &x.original;
    let target = match &original.query {
        Some(query) => format!("{}?{query}", original.path),
        None => original.path.clone(),
    };
    let text = canonical::signed_text(signature, original.method.as_str(), &target, |name| signed_value(x, name));
    BASE64.decode(signature.signature).is_ok_and(|given| hmac::verify(key, &text, &given).is_ok())
}

/// What is signed under a name: the host, which is no field here, or the values of all fields with commas between them (RFC 9110 section 5.3), so that
/// nobody can add one unnoticed.
fn signed_value<'a>(x: &'a Exchange, name: &str) -> Option<Cow<'a, [u8]>> {
    if name.eq_ignore_ascii_case("host") {
        return Some(x.request.authority.as_bytes()).filter(|host| !host.is_empty()).map(Cow::Borrowed);
    }
    let mut values = x.request.fields.iter().filter(|field| field.is(name)).map(|field| field.value);
    let mut all = Cow::Borrowed(values.next()?);
    for value in values {
        let all = all.to_mut();
        all.extend_from_slice(b", ");
        all.extend_from_slice(value);
    }
    Some(all)
}
