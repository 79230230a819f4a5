//! What RFC 9111 says of storing an answer and of using it again, as functions of heads and moments. It knows no store and reads no clock.

mod date;
mod directives;
#[cfg(test)]
mod tests;

pub(super) use date::parse as parse_date;
pub(super) use directives::Directives;

use crate::http::{FieldName, Fields, ResponseHead};

pub(super) const AGE: FieldName = FieldName::of("Age");
pub(super) const CACHE_CONTROL: FieldName = FieldName::of("Cache-Control");
pub(super) const EXPIRES: FieldName = FieldName::of("Expires");
const DATE: FieldName = FieldName::of("Date");
const CONTENT_RANGE: FieldName = FieldName::of("Content-Range");
const SET_COOKIE: FieldName = FieldName::of("Set-Cookie");
pub(super) const VARY: FieldName = FieldName::of("Vary");
pub(super) const ETAG: FieldName = FieldName::of("ETag");
pub(super) const LAST_MODIFIED: FieldName = FieldName::of("Last-Modified");

/// What the user allows.
#[derive(Debug, Clone)]
pub(super) struct Policy {
    /// Statuses that are stored.
    pub statuses: Vec<u16>,
    /// Whether `Cache-Control` and `Expires` of answers are heeded.
    pub heeds_answers: bool,
    /// Whether `Cache-Control` of requests is heeded.
    pub heeds_requests: bool,
    /// Whether answers that set cookies are stored.
    pub set_cookie: bool,
    /// Seconds that an answer is fresh which does not say so itself.
    pub lifetime: u64,
    /// Seconds that a stale one is served while it is fetched anew, where it does not say so itself.
    pub stale_while_revalidate: u64,
    /// Seconds that a stale one is served when the upstream fails, where it does not say so itself.
    pub stale_if_error: u64,
}

/// How long a stored answer may be used. All spans are seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Terms {
    /// Its age when it came (RFC 9111 section 4.2.3).
    pub initial_age: u64,
    /// Age up to which it is fresh (section 4.2.1).
    pub lifetime: u64,
    /// How long after that it is served while it is fetched anew (RFC 5861 section 3).
    pub stale_while_revalidate: u64,
    /// How long after that it is served when the upstream fails (RFC 5861 section 4).
    pub stale_if_error: u64,
    /// Never served stale (`must-revalidate`, `proxy-revalidate`, `s-maxage`).
    pub must_revalidate: bool,
    /// Never served without asking (`no-cache`).
    pub no_cache: bool,
}

/// What of a request decides whether its answer is stored.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Asked {
    /// It carries `Authorization`.
    pub authorization: bool,
    /// It says `no-store`.
    pub no_store: bool,
}

/// What may be done with a stored answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Served as it is.
    Fresh,
    /// Served though stale: the client takes it so.
    Stale,
    /// Served though stale, and fetched anew beside.
    Refresh,
    /// The upstream must be asked first.
    Revalidate,
}

/// Under which terms an answer is stored; `None` when it is not. `asked_ms` and `now_ms` are when it was asked for and when it came, in Unix milliseconds.
pub(super) fn terms(policy: &Policy, asked: Asked, head: &ResponseHead, asked_ms: u64, now_ms: u64) -> Option<Terms> {
    let fields = &head.fields;
    let partial = head.status == 206 || head.status == 304 || fields.get_named(&CONTENT_RANGE).is_some();
    if partial || !policy.statuses.contains(&head.status) || (!policy.set_cookie && fields.get_named(&SET_COOKIE).is_some()) {
        return None;
    }
    if fields.get_all_named(&VARY).any(|value| value.split(|byte| *byte == b',').any(|name| name.trim_ascii() == b"*")) {
        return None;
    }
    let said = Directives::of(fields);
    // RFC 9111 section 3.5: what was asked for with credentials is for nobody else, unless the answer says so.
    let for_all = said.public || said.s_maxage.is_some() || said.must_revalidate;
    if asked.authorization && !for_all {
        return None;
    }
    if !policy.heeds_answers {
        return Some(Terms { lifetime: policy.lifetime, ..of_policy(policy) });
    }
    if asked.no_store || said.no_store || said.private {
        return None;
    }
    let terms = Terms {
        initial_age: initial_age(fields, asked_ms, now_ms),
        lifetime: lifetime(&said, fields, policy.lifetime, now_ms),
        stale_while_revalidate: said.stale_while_revalidate.unwrap_or(policy.stale_while_revalidate),
        stale_if_error: said.stale_if_error.unwrap_or(policy.stale_if_error),
        must_revalidate: said.must_revalidate || said.proxy_revalidate || said.s_maxage.is_some(),
        no_cache: said.no_cache,
    };
    terms.is_of_use(fields).then_some(terms)
}

fn of_policy(policy: &Policy) -> Terms {
    Terms { stale_while_revalidate: policy.stale_while_revalidate, stale_if_error: policy.stale_if_error, ..Terms::default() }
}

/// Section 4.2.1; what cannot be read is taken as stale.
fn lifetime(said: &Directives, fields: &Fields, otherwise: u64, now_ms: u64) -> u64 {
    if let Some(seconds) = said.s_maxage.or(said.max_age) {
        return seconds;
    }
    match fields.get_named(&EXPIRES) {
        None => otherwise,
        Some(expires) => {
            let date = fields.get_named(&DATE).and_then(parse_date).unwrap_or(now_ms / 1000);
            parse_date(expires).map_or(0, |expires| expires.saturating_sub(date))
        }
    }
}

/// Section 4.2.3.
fn initial_age(fields: &Fields, asked_ms: u64, now_ms: u64) -> u64 {
    let said = fields.get_named(&AGE).and_then(directives::seconds).unwrap_or(0);
    let delay = now_ms.saturating_sub(asked_ms) / 1000;
    let apparent = fields.get_named(&DATE).and_then(parse_date).map_or(0, |date| (now_ms / 1000).saturating_sub(date));
    apparent.max(said.saturating_add(delay))
}

impl Terms {
    /// Whether there is a way to use it again at all.
    fn is_of_use(&self, fields: &Fields) -> bool {
        let can_be_asked_for = fields.get_named(&ETAG).is_some() || fields.get_named(&LAST_MODIFIED).is_some();
        let serves = !self.no_cache && self.lifetime.saturating_add(self.stale_while_revalidate) > self.initial_age;
        serves || can_be_asked_for
    }

    /// What may be done at this age for a request that says this; `None` when nobody heeds what requests say.
    pub(super) fn usable(&self, age: u64, asked: Option<&Directives>) -> Use {
        let said = asked.copied().unwrap_or_default();
        if self.no_cache || said.no_cache {
            return Use::Revalidate;
        }
        let allowed = said.max_age.unwrap_or(u64::MAX);
        let left = self.lifetime.saturating_sub(age);
        if age < self.lifetime && age <= allowed && left >= said.min_fresh.unwrap_or(0) {
            return Use::Fresh;
        }
        let stale_for = age.saturating_sub(self.lifetime);
        let may_be_stale = !self.must_revalidate && said.min_fresh.is_none() && age <= allowed && age >= self.lifetime;
        match said.max_stale {
            Some(most) if may_be_stale && stale_for <= most => Use::Stale,
            _ if may_be_stale && stale_for < self.stale_while_revalidate => Use::Refresh,
            _ => Use::Revalidate,
        }
    }

    /// Whether it may be served at this age since the upstream fails.
    pub(super) fn helps_out(&self, age: u64) -> bool {
        !self.must_revalidate && !self.no_cache && age < self.lifetime.saturating_add(self.stale_if_error)
    }
}
