//! What a limit tells the client in response fields. It counts nothing.

use std::fmt::Write;

use super::config::Metadata;
use crate::exchange::Exchange;
use crate::http::digits::Digits;
use crate::http::{FieldName, Fields};

/// Names of the response fields of one limit.
#[derive(Debug)]
pub(super) struct Names {
    limit: FieldName,
    /// The field of a limit that is always the same.
    fixed: Option<Fields>,
    remaining: FieldName,
    reset: FieldName,
    /// What the limit is called in IETF fields: a string (RFC 9651 section 3.3.3) in quotes.
    policy: Box<str>,
}

/// Fields of draft-ietf-httpapi-ratelimit-headers-10.
const RATE_LIMIT: FieldName = FieldName::of("RateLimit");
const RATE_LIMIT_POLICY: FieldName = FieldName::of("RateLimit-Policy");

impl Names {
    /// The names of a limit that stands alone, or with `prefix` those of one of several.
    pub(super) fn new(metadata: &Metadata, prefix: Option<&str>, fixed: Option<u64>) -> Names {
        let with = |name: &str| {
            FieldName::new(match prefix {
                Some(prefix) => format!("X-{prefix}-{}", name.strip_prefix("X-").unwrap_or(name)),
                None => name.to_owned(),
            })
        };
        let limit = with(&metadata.limit_header);
        let told = |count: u64| {
            let mut fields = Fields::new();
            fields.append_named(&limit, count.to_string());
            fields.laid_out()
        };
        Names {
            fixed: fixed.map(told),
            limit,
            remaining: with(&metadata.remaining_header),
            reset: with(&metadata.reset_header),
            policy: format!("\"{}\"", prefix.unwrap_or("default")).into(),
        }
    }

    /// Adds the IETF fields of one verdict: the policy (quota and window in seconds), and what remains of it for how many seconds.
    pub(super) fn write_ietf(&self, quota: Quota, window: Option<u64>, fields: &mut Fields) {
        let mut text = String::with_capacity(64);
        // Writing to a `String` cannot fail.
        _ = write!(text, "{};q={}", self.policy, quota.count);
        if let Some(window) = window {
            _ = write!(text, ";w={window}");
        }
        fields.append_named(&RATE_LIMIT_POLICY, &text);
        text.clear();
        _ = write!(text, "{};r={};t={}", self.policy, quota.remaining, quota.reset_ms.div_ceil(1000));
        fields.append_named(&RATE_LIMIT, &text);
    }

    /// Writes the fields of one verdict.
    pub(super) fn write(&self, quota: Quota, fields: &mut Fields) {
        let mut digits = Digits::default();
        match &self.fixed {
            Some(line) => fields.set_all(line),
            None => fields.set_own_named(&self.limit, digits.of(quota.count)),
        }
        fields.set_own_named(&self.remaining, digits.of(quota.remaining));
        fields.set_own_named(&self.reset, digits.of(quota.reset_ms.div_ceil(1000)));
    }
}

/// A verdict that waits for the response.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quota {
    /// Number of the limit in the filter.
    pub limit: usize,
    pub count: u64,
    pub remaining: u64,
    pub reset_ms: u64,
}

/// Keeps a verdict until the response; `owner` tells the filter from another one, since two may run for one request (global rule and route).
pub(super) fn keep(x: &mut Exchange, owner: usize, quota: Quota) {
    x.note(owner, [quota.limit as u64, quota.count, quota.remaining, quota.reset_ms]);
}

/// The verdicts that a filter has kept.
pub(super) fn kept(x: &Exchange, owner: usize) -> impl Iterator<Item = Quota> {
    x.notes(owner).map(|[limit, count, remaining, reset_ms]| Quota { limit: limit as usize, count, remaining, reset_ms })
}
