//! Path patterns as Envoy matches them. It knows no route.
//!
//! Our agents write the digits of what is percent-encoded large, Envoy leaves them as they come: where a pattern has such, both forms match.

use std::cmp::Reverse;

use crate::model::canonical_path;

/// A path pattern, brought to the closest of Envoy's matchers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Path {
    /// This path.
    Exact(String),
    /// Every path that starts so.
    Prefix(String),
    /// Every path that matches as a whole.
    Regex(String),
}

/// Where a pattern stands among those of a host: exact paths first, then the longest literal prefix.
pub(super) type Rank = (bool, Reverse<usize>);

#[derive(Debug)]
enum Token {
    Literal(String),
    Segment,
    Rest,
}

/// Reads a pattern: `/a`, `/a/*`, `/a/:id/b`, or with `*` anywhere.
pub(super) fn read(source: &str) -> (Path, Rank) {
    let tokens = tokens(source);
    let first = match tokens.first() {
        Some(Token::Literal(text)) => text.clone(),
        _ => String::new(),
    };
    let length = first.len();
    let path = match tokens.as_slice() {
        [Token::Literal(_)] if has_one_form(&first) => return (Path::Exact(first), (false, Reverse(0))),
        [Token::Literal(_)] => return (Path::Regex(any_form(&first)), (false, Reverse(0))),
        [Token::Rest] => Path::Prefix("/".to_owned()),
        [Token::Literal(_), Token::Rest] if has_one_form(&first) => Path::Prefix(first),
        tokens => Path::Regex(tokens.iter().map(Token::regex).collect()),
    };
    (path, (true, Reverse(length)))
}

impl Token {
    fn regex(&self) -> String {
        match self {
            Token::Literal(text) => any_form(text),
            Token::Segment => "[^/]+".to_owned(),
            Token::Rest => ".*".to_owned(),
        }
    }
}

/// Whether a text of a path stands in it in one form alone.
pub(super) fn has_one_form(canonical: &str) -> bool {
    !canonical.contains('%')
}

/// A regular expression of a text of a path, in all the forms in which Envoy may have it.
pub(super) fn any_form(canonical: &str) -> String {
    let digit = |digit: char| match digit {
        'A'..='F' => format!("[{digit}{}]", digit.to_ascii_lowercase()),
        other => escape(other.encode_utf8(&mut [0; 4])),
    };
    let mut out = String::with_capacity(canonical.len());
    let mut rest = canonical.chars();
    while let Some(c) = rest.next() {
        match c {
            '%' => out.extend(['%'.to_string()].into_iter().chain(rest.by_ref().take(2).map(digit))),
            c => out.push_str(&escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    out
}

/// A text of which a regular expression takes nothing but the text.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if !c.is_alphanumeric() && c != '/' && c != '_' && c != '-' && c.is_ascii() {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Splits at `*` and at `:` where a segment starts.
fn tokens(source: &str) -> Vec<Token> {
    let (mut tokens, mut literal) = (Vec::new(), String::new());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let segment = rest.find('/').unwrap_or(rest.len());
        let after_slash = literal.ends_with('/');
        if first == ':' && after_slash && segment > 1 {
            flush(&mut literal, &mut tokens);
            tokens.push(Token::Segment);
            rest = &rest[segment..];
        } else if first == '*' {
            flush(&mut literal, &mut tokens);
            tokens.push(Token::Rest);
            let named = after_slash && segment == rest.len();
            rest = if named { "" } else { &rest[1..] };
        } else {
            literal.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    flush(&mut literal, &mut tokens);
    tokens
}

fn flush(literal: &mut String, tokens: &mut Vec<Token>) {
    if !literal.is_empty() {
        tokens.push(Token::Literal(canonical_path(&std::mem::take(literal))));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn patterns_become_the_closest_matcher() {
        let path = |source| read(source).0;
        assert_eq!(path("/a"), Path::Exact("/a".into()));
        assert_eq!(path("/a/*"), Path::Prefix("/a/".into()));
        assert_eq!(path("/a*"), Path::Prefix("/a".into()));
        assert_eq!(path("/*"), Path::Prefix("/".into()));
        assert_eq!(path("*"), Path::Prefix("/".into()));
        assert_eq!(path("/a/*rest"), Path::Prefix("/a/".into()));
        assert_eq!(path("/a/:id/b.c"), Path::Regex(r"/a/[^/]+/b\.c".into()));
        assert_eq!(path("/a/*/b"), Path::Regex("/a/.*/b".into()));
        assert_eq!(path("/a%2db"), Path::Exact("/a-b".into()));
    }

    #[test]
    fn what_is_encoded_matches_in_either_case() {
        let path = |source| read(source);
        assert_eq!(path("/é"), (Path::Regex("/%[Cc]3%[Aa]9".into()), (false, Reverse(0))));
        assert_eq!(path("/caf%c3%a9/*").0, Path::Regex("/caf%[Cc]3%[Aa]9/.*".into()));
        assert_eq!(path("/caf%c3%a9/*").1, (true, Reverse("/caf%C3%A9/".len())));
        assert_eq!(path("/a|b").0, Path::Regex("/a%7[Cc]b".into()));
        assert_eq!(path("/a b/:id").0, Path::Regex("/a%20b/[^/]+".into()));
        assert_eq!(path("/a{/*x/b").0, Path::Regex("/a%7[Bb]/.*x/b".into()));
    }

    #[test]
    fn exact_paths_come_first_and_then_the_longest_text() {
        let mut all = ["/*", "/a/:id", "/a/b", "/a/b/*"].map(|source| (read(source).1, source));
        all.sort();
        assert_eq!(all.map(|(_, source)| source), ["/a/b", "/a/b/*", "/a/:id", "/*"]);
    }
}
