//! What a limit tells the client in response fields. It counts nothing.

use smallvec::SmallVec;

use super::config::Metadata;
use super::counters::Verdict;
use crate::exchange::Exchange;
use crate::http::digits::Digits;
use crate::http::{FieldName, Fields};

/// Names of the response fields of one limit.
#[derive(Debug)]
pub(super) struct Names {
    limit: FieldName,
    remaining: FieldName,
    reset: FieldName,
}

impl Names {
    /// The names of a limit that stands alone, or with `prefix` those of one of several.
    pub(super) fn new(metadata: &Metadata, prefix: Option<&str>) -> Names {
        let with = |name: &str| {
            FieldName::new(match prefix {
                Some(prefix) => format!("X-{prefix}-{}", name.strip_prefix("X-").unwrap_or(name)),
                None => name.to_owned(),
            })
        };
        Names {
            limit: with(&metadata.limit_header),
            remaining: with(&metadata.remaining_header),
            reset: with(&metadata.reset_header),
        }
    }

    /// Writes the fields of one verdict.
    pub(super) fn write(&self, quota: &Quota, fields: &mut Fields) {
        let mut digits = Digits::default();
        fields.set_own_named(&self.limit, digits.of(quota.count));
        fields.set_own_named(&self.remaining, digits.of(quota.verdict.remaining));
        fields.set_own_named(&self.reset, digits.of(quota.verdict.reset_ms.div_ceil(1000)));
    }
}

/// A verdict that waits for the response.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quota {
    /// Which filter, since two may run for one request (global rule and route).
    pub owner: usize,
    /// Number of the limit in the filter.
    pub limit: usize,
    pub count: u64,
    pub verdict: Verdict,
}

type Quotas = SmallVec<[Quota; 2]>;
const NAME: &str = "limit-count";

/// Keeps a verdict until the response.
pub(super) fn keep(x: &mut Exchange, quota: Quota) {
    match x.slot_mut::<Quotas>(NAME) {
        Some(quotas) => quotas.push(quota),
        None => x.put(NAME, Quotas::from_iter([quota])),
    }
}

/// The verdicts that a filter has kept.
pub(super) fn kept(x: &Exchange, owner: usize) -> impl Iterator<Item = &Quota> {
    x.slot::<Quotas>(NAME).into_iter().flatten().filter(move |quota| quota.owner == owner)
}
