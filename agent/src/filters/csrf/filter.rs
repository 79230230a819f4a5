//! The filter of `csrf`.

use std::sync::Arc;

use aws_lc_rs::hmac;
use serde_json::{Value, json};
use subtle::ConstantTimeEq;

use super::super::{BuildContext, Built, Filter, Flow, Phases, check};
use super::config::Config;
use super::{origin, token};
use crate::exchange::{Answer, Exchange, Reason};
use crate::http::h1::http_date;
use crate::http::{FieldName, Method, ResponseHead};

struct Csrf {
    key: hmac::Key,
    /// Seconds for which a token is good; 0 for ever.
    lifetime: u64,
    name: FieldName,
    no_header: Answer,
    no_cookie: Answer,
    mismatch: Answer,
    not_ours: Answer,
}

const SET_COOKIE: FieldName = FieldName::of("Set-Cookie");

pub(super) fn build(value: &Value, _context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    if let Some(by) = &config.by_origin {
        return origin::build(by);
    }
    let refusal = |message: &str| Answer::json(401, &json!({"error_msg": message}), Reason::Plugin);
    Ok(Arc::new(Csrf {
        key: token::key(config.key.as_deref().unwrap_or_default()),
        lifetime: config.expires.into(),
        name: FieldName::new(config.name),
        no_header: refusal("no csrf token in headers"),
        no_cookie: refusal("no csrf cookie"),
        mismatch: refusal("csrf token mismatch"),
        not_ours: refusal("Failed to verify the csrf token signature"),
    }))
}

impl Filter for Csrf {
    fn phases(&self) -> Phases {
        Phases::ACCESS.and(Phases::RESPONSE_HEAD)
    }

    fn access(&self, x: &mut Exchange) -> Flow {
        match self.refusal(x) {
            None => Flow::Continue,
            Some(refusal) => Flow::Answer(Box::new(refusal.clone())),
        }
    }

    fn response_head(&self, x: &mut Exchange, head: &mut ResponseHead) {
        let mut random = [0; 16];
        // Without random bits there is no token, and what changes anything is refused.
        if aws_lc_rs::rand::fill(&mut random).is_err() {
            return;
        }
        let now = x.started_ms / 1000;
        let mut cookie =
            format!("{}={};path=/;SameSite=Lax", self.name.as_str(), token::make(&self.key, u128::from_ne_bytes(random), now));
        if x.connection.tls.is_some() {
            cookie.push_str(";Secure");
        }
        if self.lifetime > 0 {
            cookie.push_str(";Expires=");
            cookie.extend(http_date(now + self.lifetime).map(char::from));
        }
        head.fields.append_named(&SET_COOKIE, cookie);
    }
}

impl Csrf {
    fn refusal(&self, x: &Exchange) -> Option<&Answer> {
        if matches!(x.request.method, Method::Get | Method::Head | Method::Options) {
            return None;
        }
        let Some(header) = x.request.fields.get_named(&self.name).filter(|token| !token.is_empty()) else {
            return Some(&self.no_header);
        };
        let Some(cookie) = x.request.cookie(self.name.as_str()) else { return Some(&self.no_cookie) };
        if !bool::from(header.ct_eq(cookie.as_bytes())) {
            return Some(&self.mismatch);
        }
        (!token::is_good(&self.key, header, self.lifetime, x.started_ms / 1000)).then_some(&self.not_ours)
    }
}
