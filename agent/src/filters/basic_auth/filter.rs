//! The filter of `basic-auth`.

use std::sync::Arc;

use base64::Engine;
use serde_json::Value;

use super::super::identity::{self, BASE64, Guests};
use super::super::{BuildContext, Built, Filter, Flow, Phases, Resume, check};
use super::config::Config;
use super::password::{MAX_PASSWORD, Password};
use super::workshop::{Busy, Workshop};
use crate::exchange::{Answer, ConsumerInfo, Exchange};
use crate::http::Name;

struct BasicAuth(Arc<Inner>);

struct Inner {
    hide: bool,
    guests: Guests,
    missing: Answer,
    invalid: Answer,
    busy: Answer,
    workshop: Arc<Workshop>,
}

pub(super) fn build(value: &Value, context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let challenge = format!("Basic realm=\"{}\"", config.realm);
    let mut busy = identity::refusal(503, "Too many passwords are being checked");
    busy.head.fields.append("Retry-After", "1");
    Ok(Arc::new(BasicAuth(Arc::new(Inner {
        hide: config.hide_credentials,
        guests: Guests::new(config.anonymous_consumer),
        missing: identity::challenge("Missing authorization in request", &challenge),
        invalid: identity::challenge("Invalid user authorization", &challenge),
        busy,
        workshop: context.keep.get_or("basic-auth", Workshop::default),
    }))))
}

impl Filter for BasicAuth {
    fn phases(&self) -> Phases {
        Phases::REWRITE
    }

    fn rewrite(&self, x: &mut Exchange) -> Flow {
        let inner = &self.0;
        let Some(value) = x.request.fields.get_known(Name::Authorization) else {
            return inner.guests.admit_or(x, &inner.missing);
        };
        let Some((user, password)) = credentials(value) else { return inner.guests.admit_or(x, &inner.invalid) };
        let consumer = x.directory.find_credential("basic-auth", &user);
        let kept = consumer.as_deref().and_then(|consumer| consumer.proof.clone()?.downcast::<Password>().ok());
        let check = inner.workshop.check(kept, password);
        if check.is_quick() {
            let right = check.verdict();
            return inner.decide(x, consumer.filter(|_| right));
        }
        let fingerprint = inner.workshop.fingerprint(&check);
        let now_ms = x.started_ms;
        if fingerprint.is_some_and(|fingerprint| inner.workshop.knows(&fingerprint, now_ms)) {
            return inner.decide(x, consumer);
        }
        let inner = inner.clone();
        Flow::Wait(Box::pin(async move {
            let verdict = inner.workshop.run(check).await;
            if let (Ok(true), Some(fingerprint)) = (&verdict, fingerprint) {
                inner.workshop.remember(fingerprint, now_ms);
            }
            Box::new(move |x: &mut Exchange| match verdict {
                Ok(right) => inner.decide(x, consumer.filter(|_| right)),
                Err(Busy) => Flow::Answer(Box::new(inner.busy.clone())),
            }) as Resume
        }))
    }
}

impl Inner {
    fn decide(&self, x: &mut Exchange, consumer: Option<Arc<ConsumerInfo>>) -> Flow {
        let Some(consumer) = consumer else { return self.guests.admit_or(x, &self.invalid) };
        if self.hide {
            x.request.fields.remove_known(Name::Authorization);
        }
        identity::attach(x, consumer);
        Flow::Continue
    }
}

/// Name and password of `Basic …` (RFC 7617 section 2). A password may hold colons.
fn credentials(value: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let encoded = identity::after_scheme(std::str::from_utf8(value).ok()?, "Basic")?;
    let mut user = BASE64.decode(encoded).ok()?;
    let colon = memchr::memchr(b':', &user)?;
    let password = user.split_off(colon + 1);
    user.pop();
    (password.len() <= MAX_PASSWORD).then_some((user, password))
}
