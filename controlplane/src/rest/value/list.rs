//! Filters and pages of lists.

use percent_encoding::percent_decode_str;
use regex::{Regex, RegexBuilder};
use serde_json::Value;

/// A compiled pattern may take this much memory.
const MOST_PATTERN_BYTES: usize = 1 << 20;

/// The decoded pairs of a query string; `+` is a blank.
pub(in super::super) fn query(text: &str) -> Vec<(String, String)> {
    let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').map_or_else(|| (decode(pair), String::new()), |(k, v)| (decode(k), decode(v))))
        .collect()
}

/// The first value of a query argument.
pub(in super::super) fn arg<'a>(query: &'a [(String, String)], name: &str) -> Option<&'a str> {
    query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// What a list is narrowed to. All conditions must hold.
#[derive(Debug, Default)]
pub(in super::super) struct Filter {
    name: Option<Regex>,
    uri: Option<Regex>,
    label: Option<String>,
    fields: Vec<(String, String)>,
}

impl Filter {
    /// Reads `name`, `uri`, `label` and `filter`.
    pub(in super::super) fn read(query: &[(String, String)], is_route: bool) -> Result<Filter, String> {
        let pattern = |name: &str| match arg(query, name) {
            None => Ok(None),
            Some(text) => RegexBuilder::new(text)
                .size_limit(MOST_PATTERN_BYTES)
                .build()
                .map(Some)
                .map_err(|_| format!("invalid argument {name}: expected a regular expression, got {text}")),
        };
        let fields = match arg(query, "filter") {
            Some(text) if is_route => {
                self::query(text).into_iter().filter(|(key, _)| matches!(key.as_str(), "service_id" | "upstream_id")).collect()
            }
            _ => Vec::new(),
        };
        // An empty label is no restriction, as APISIX documents it.
        let label = arg(query, "label").filter(|label| !label.is_empty()).map(str::to_owned);
        Ok(Filter { name: pattern("name")?, uri: pattern("uri")?, label, fields })
    }

    /// Whether a resource passes.
    pub(in super::super) fn passes(&self, value: &Value) -> bool {
        let text = |name: &str| value.get(name).and_then(Value::as_str);
        let uris = || value.get("uris").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        self.name.as_ref().is_none_or(|pattern| text("name").is_some_and(|name| pattern.is_match(name)))
            && self.uri.as_ref().is_none_or(|pattern| text("uri").into_iter().chain(uris()).any(|uri| pattern.is_match(uri)))
            && self.label.as_ref().is_none_or(|label| value.get("labels").is_some_and(|labels| labels.get(label).is_some()))
            && self.fields.iter().all(|(name, wanted)| match value.get(name) {
                Some(Value::String(text)) => text == wanted,
                Some(Value::Number(number)) => number.to_string() == *wanted,
                _ => false,
            })
    }
}

/// A page of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Page {
    /// Resources before it.
    pub(in super::super) skip: usize,
    /// Resources on it.
    pub(in super::super) take: usize,
}

impl Page {
    /// Reads `page` and `page_size`; no page when not both are numbers.
    pub(in super::super) fn read(query: &[(String, String)]) -> Result<Option<Page>, String> {
        let number = |name: &str| arg(query, name).and_then(|text| text.parse::<i64>().ok());
        let (Some(page), Some(size)) = (number("page"), number("page_size")) else { return Ok(None) };
        let take = usize::try_from(size).ok().filter(|size| (10..=500).contains(size));
        let take = take.ok_or_else(|| "page_size must be between 10 and 500".to_owned())?;
        let page = usize::try_from(page.max(1)).unwrap_or(usize::MAX);
        Ok(Some(Page { skip: (page - 1).saturating_mul(take), take }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use serde_json::json;

    #[test]
    fn filters_narrow() {
        let value = json!({"name": "shop-1", "uris": ["/a", "/shop/*"], "labels": {"env": "x"}, "service_id": 7});
        let passes = |text: &str| Filter::read(&query(text), true).unwrap().passes(&value);
        for (text, expected) in [
            ("", true),
            ("name=shop", true),
            ("name=%5Eop", false),
            ("uri=shop", true),
            ("uri=%5E%2Fb", false),
            ("label=env", true),
            ("label=en", false),
            ("label=", true),
            ("filter=service_id%3D7", true),
            ("filter=service_id%3D8%26color%3D1", false),
            ("filter=color%3D1", true),
            ("name=shop&label=env&uri=a", true),
        ] {
            assert_eq!(passes(text), expected, "{text}");
        }
        assert!(Filter::read(&query("name=("), true).is_err());
    }

    #[test]
    fn pages_need_two_numbers() {
        let page = |text: &str| Page::read(&query(text));
        assert_eq!(page("page=2&page_size=10"), Ok(Some(Page { skip: 10, take: 10 })));
        assert_eq!(page("page=-3&page_size=500"), Ok(Some(Page { skip: 0, take: 500 })));
        assert_eq!(page("page=2"), Ok(None));
        assert_eq!(page("page=x&page_size=10"), Ok(None));
        for bad in ["page=1&page_size=9", "page=1&page_size=501", "page=1&page_size=-1"] {
            assert!(page(bad).is_err(), "{bad}");
        }
        assert!(page("page=9223372036854775807&page_size=500").is_ok());
    }
}
