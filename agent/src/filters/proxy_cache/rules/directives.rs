//! `Cache-Control` (RFC 9111 section 5.2) read once. It draws no conclusions.

use super::CACHE_CONTROL;
use crate::http::{FieldName, Fields};

/// What a `Cache-Control` field says. Spans are seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::filters::proxy_cache) struct Directives {
    pub no_store: bool,
    pub no_cache: bool,
    pub private: bool,
    pub public: bool,
    pub must_revalidate: bool,
    pub proxy_revalidate: bool,
    pub only_if_cached: bool,
    pub max_age: Option<u64>,
    pub s_maxage: Option<u64>,
    pub min_fresh: Option<u64>,
    /// Any when it names no number.
    pub max_stale: Option<u64>,
    pub stale_while_revalidate: Option<u64>,
    pub stale_if_error: Option<u64>,
}

const PRAGMA: FieldName = FieldName::of("Pragma");

/// The longest span that is told apart from longer ones (RFC 9111 section 1.2.2).
const LONGEST: u64 = 1 << 31;

impl Directives {
    /// What the field says; names in any case, values quoted or not.
    pub(in crate::filters::proxy_cache) fn of(fields: &Fields) -> Directives {
        let mut said = Directives::default();
        for line in fields.get_all_named(&CACHE_CONTROL) {
            Items(line).for_each(|item| said.take(item));
        }
        said
    }

    /// The same for a request, where `Pragma: no-cache` says it for clients that know no `Cache-Control` (RFC 9111 section 5.4).
    pub(in crate::filters::proxy_cache) fn of_request(fields: &Fields) -> Directives {
        let mut said = Directives::of(fields);
        if fields.get_named(&CACHE_CONTROL).is_none() {
            said.no_cache =
                fields.get_all_named(&PRAGMA).any(|line| Items(line).any(|item| item.eq_ignore_ascii_case(b"no-cache")));
        }
        said
    }

    fn take(&mut self, item: &[u8]) {
        let (name, value) = match item.iter().position(|byte| *byte == b'=') {
            Some(at) => (item[..at].trim_ascii(), Some(unquoted(item[at + 1..].trim_ascii()))),
            None => (item, None),
        };
        // What names no number that can be read is stale (section 4.2.1); of several the shortest holds.
        let number = || value.and_then(seconds).unwrap_or(0);
        let shortest = |old: Option<u64>, new: u64| Some(old.map_or(new, |old| old.min(new)));
        match name.to_ascii_lowercase().as_slice() {
            b"no-store" => self.no_store = true,
            b"no-cache" => self.no_cache = true,
            b"private" => self.private = true,
            b"public" => self.public = true,
            b"must-revalidate" => self.must_revalidate = true,
            b"proxy-revalidate" => self.proxy_revalidate = true,
            b"only-if-cached" => self.only_if_cached = true,
            b"max-age" => self.max_age = shortest(self.max_age, number()),
            b"s-maxage" => self.s_maxage = shortest(self.s_maxage, number()),
            b"min-fresh" => self.min_fresh = Some(number()),
            b"max-stale" => self.max_stale = Some(if value.is_some() { number() } else { u64::MAX }),
            b"stale-while-revalidate" => self.stale_while_revalidate = shortest(self.stale_while_revalidate, number()),
            b"stale-if-error" => self.stale_if_error = shortest(self.stale_if_error, number()),
            _ => {}
        }
    }
}

/// The items of a list, at commas that stand in no quotes.
struct Items<'a>(&'a [u8]);

impl<'a> Iterator for Items<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while !self.0.is_empty() {
            let (mut quoted, mut escaped) = (false, false);
            let end = self.0.iter().position(|byte| {
                let ends = *byte == b',' && !quoted;
                quoted ^= *byte == b'"' && !escaped;
                escaped = *byte == b'\\' && quoted && !escaped;
                ends
            });
            let (item, rest) = self.0.split_at(end.unwrap_or(self.0.len()));
            self.0 = rest.get(1..).unwrap_or_default();
            let item = item.trim_ascii();
            if !item.is_empty() {
                return Some(item);
            }
        }
        None
    }
}

fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value)
}

/// A number of seconds (RFC 9111 section 1.2.2).
pub(super) fn seconds(text: &[u8]) -> Option<u64> {
    let text = text.trim_ascii();
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(text.iter().fold(0u64, |sum, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'))).min(LONGEST))
}
