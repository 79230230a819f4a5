//! Names and values as URLs and forms write them. It knows no meanings.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Everything but what RFC 3986 section 2.3 calls unreserved.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Names and values, encoded; a blank is `%20`, which forms and URLs both understand.
#[derive(Default)]
pub(crate) struct Form(String);

impl Form {
    /// Adds a pair.
    pub(crate) fn add(&mut self, name: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        self.0.extend(utf8_percent_encode(name, RESERVED));
        self.0.push('=');
        self.0.extend(utf8_percent_encode(value, RESERVED));
    }

    /// Adds some pairs.
    pub(crate) fn with<'a>(mut self, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Form {
        pairs.into_iter().for_each(|(name, value)| self.add(name, value));
        self
    }

    /// The text.
    pub(crate) fn into_text(self) -> String {
        self.0
    }

    /// A URL with the pairs as query, behind a query that it may have.
    pub(crate) fn behind(self, url: &str) -> String {
        let separator = if url.contains('?') { '&' } else { '?' };
        format!("{url}{separator}{}", self.0)
    }
}

/// One text, encoded.
pub(crate) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// The value of a query argument, decoded; `None` when it is absent, given twice (RFC 6749 section 3.1) or no text.
pub(crate) fn argument(query: &str, name: &str) -> Option<String> {
    let mut found = query.split('&').filter_map(|pair| pair.split_once('=')).filter(|(key, _)| *key == name);
    let (_, value) = found.next()?;
    if found.next().is_some() {
        return None;
    }
    percent_decode_str(&value.replace('+', " ")).decode_utf8().ok().map(|text| text.into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pairs_go_behind_a_query() {
        let form = || Form::default().with([("a b", "c&d"), ("e", "")]);
        assert_eq!(form().behind("https://p/x"), "https://p/x?a%20b=c%26d&e=");
        assert_eq!(form().behind("https://p/x?y=1"), "https://p/x?y=1&a%20b=c%26d&e=");
    }

    #[test]
    fn what_is_given_twice_is_not_given() {
        assert_eq!(argument("a=1&b=x+y%20z", "b").unwrap(), "x y z");
        for query in ["a=1&a=2", "b=1", "a", "", "a=%ff"] {
            assert_eq!(argument(query, "a"), None, "{query}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(value in ".{0,40}", other in ".{0,10}") {
            let text = Form::default().with([("x", other.as_str()), ("value", value.as_str())]).into_text();
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic()));
            prop_assert_eq!(argument(&text, "value").unwrap(), value);
        }
    }
}
