//! What a limit tells the client in response fields. It counts nothing.

use smallvec::SmallVec;

use super::config::Metadata;
use super::counters::Verdict;
use crate::exchange::Exchange;
use crate::http::Fields;

/// Names of the response fields of one limit.
#[derive(Debug)]
pub(super) struct Names {
    limit: Box<str>,
    remaining: Box<str>,
    reset: Box<str>,
}

impl Names {
    /// The names of a limit that stands alone, or with `prefix` those of one of several.
    pub(super) fn new(metadata: &Metadata, prefix: Option<&str>) -> Names {
        let with = |name: &str| match prefix {
            Some(prefix) => format!("X-{prefix}-{}", name.strip_prefix("X-").unwrap_or(name)).into(),
            None => name.into(),
        };
        Names {
            limit: with(&metadata.limit_header),
            remaining: with(&metadata.remaining_header),
            reset: with(&metadata.reset_header),
        }
    }

    /// Writes the fields of one verdict.
    pub(super) fn write(&self, quota: &Quota, fields: &mut Fields) {
        let mut digits = [0; 20];
        fields.set(&*self.limit, decimal(quota.count, &mut digits));
        fields.set(&*self.remaining, decimal(quota.verdict.remaining, &mut digits));
        fields.set(&*self.reset, decimal(quota.verdict.reset_ms.div_ceil(1000), &mut digits));
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

fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[start..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::decimal;

    #[test]
    fn numbers_are_written_in_full() {
        for number in [0, 7, 10, 12_345, u64::MAX] {
            assert_eq!(decimal(number, &mut [0; 20]), number.to_string().as_bytes());
        }
    }
}
