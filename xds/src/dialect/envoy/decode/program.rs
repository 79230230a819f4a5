//! How large the programs are that regular expressions become, counted before anything is compiled. It knows no message.
//!
//! A short text may mean much: `(?:a{1000}){1000}` is a million steps. Whoever sends configurations must not fill the memory of a node with them.

use std::borrow::Cow;

use regex_syntax::Parser;
use regex_syntax::ast::parse::Parser as Reader;
use regex_syntax::hir::{Class, Hir, HirKind};
use regex_syntax::utf8::Utf8Sequences;
use serde_json::Value;

use super::super::syntax;

/// Steps of one program; each takes some 40 bytes once it is compiled.
const MOST: u64 = 10_000;
/// Steps of all programs of one resource.
const MOST_TOGETHER: u64 = 1_000_000;
/// Longest pattern in bytes.
const MAX_PATTERN: usize = 8 * 1024;

/// Says what is wrong with a pattern that is too large, is none, or is read otherwise by RE2; `most` is what its sender allows.
pub(super) fn check(pattern: &str, most: Option<u32>) -> Result<(), String> {
    if pattern.len() > MAX_PATTERN {
        return Err(format!("has {} bytes, expected at most {MAX_PATTERN}", pattern.len()));
    }
    let steps = steps_of(pattern)?;
    let most = most.map_or(MOST, |most| u64::from(most).min(MOST));
    if steps > most {
        return Err(format!(
            "becomes a program of some {steps} steps, expected at most {most}: repeat less, or use smaller classes"
        ));
    }
    // Any byte stands in no class, as what takes its place here does not.
    let apart = escapes(pattern, |named| (named == 'C').then_some(r"\B"));
    let read = Reader::new().parse(&apart).map_err(|error| format!("bad regex: {}", error.kind()))?;
    syntax::alike(&apart, &read).map_err(|difference| {
        format!(
            "must not have {}, which RE2 and our regular expressions do not read alike: write {}",
            difference.what, difference.instead
        )
    })
}

/// Counts the steps of all patterns of a resource.
#[derive(Default)]
pub(super) struct Together(u64);

impl Together {
    /// Counts those of a part of it; says whether all of them are too large.
    pub(super) fn add(&mut self, tree: &Value) -> Result<(), String> {
        self.0 = self.0.saturating_add(together(tree));
        let steps = self.0;
        if steps > MOST_TOGETHER {
            return Err(format!(
                "its regular expressions become programs of some {steps} steps together, expected at most {MOST_TOGETHER}"
            ));
        }
        Ok(())
    }
}

fn together(tree: &Value) -> u64 {
    let field = |(name, value): (&String, &Value)| match value {
        Value::String(pattern) if name == "regex" => steps_of(pattern).unwrap_or(0),
        value => together(value),
    };
    match tree {
        Value::Object(fields) => fields.iter().map(field).fold(0, u64::saturating_add),
        Value::Array(items) => items.iter().map(together).fold(0, u64::saturating_add),
        _ => 0,
    }
}

/// A pattern of RE2 as one of ours, over text: any byte (`\C`) is any character there, and what has a name is ASCII.
pub(super) fn of_text(pattern: &str) -> Cow<'_, str> {
    escapes(pattern, |named| match named {
        'C' => Some("(?s:.)"),
        // A class stands in the place of its name within another class, too.
        'd' => Some("[0-9]"),
        'D' => Some("[^0-9]"),
        's' => Some(r"[\t\n\f\r\x20]"),
        'S' => Some(r"[^\t\n\f\r\x20]"),
        'w' => Some("[0-9A-Za-z_]"),
        'W' => Some("[^0-9A-Za-z_]"),
        'b' => Some(r"(?-u:\b)"),
        'B' => Some(r"(?-u:\B)"),
        _ => None,
    })
}

/// A pattern with something else in the place of some of what a backslash begins.
fn escapes(pattern: &str, other: impl Fn(char) -> Option<&'static str>) -> Cow<'_, str> {
    if !pattern.contains('\\') {
        return Cow::Borrowed(pattern);
    }
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern.chars();
    while let Some(c) = rest.next() {
        match (c, rest.clone().next()) {
            ('\\', Some(escaped)) => match other(escaped) {
                Some(text) => out.push_str(text),
                None => out.extend([c, escaped]),
            },
            _ => {
                out.push(c);
                continue;
            }
        }
        rest.next();
    }
    Cow::Owned(out)
}

fn steps_of(pattern: &str) -> Result<u64, String> {
    let parsed = Parser::new().parse(&of_text(pattern)).map_err(|error| match error {
        regex_syntax::Error::Parse(error) => format!("bad regex: {}", error.kind()),
        regex_syntax::Error::Translate(error) => format!("bad regex: {}", error.kind()),
        _ => "bad regex".to_owned(),
    })?;
    Ok(steps(&parsed))
}

fn steps(hir: &Hir) -> u64 {
    match hir.kind() {
        HirKind::Empty => 0,
        HirKind::Look(_) => 1,
        HirKind::Literal(literal) => literal.0.len() as u64,
        HirKind::Class(Class::Bytes(class)) => class.ranges().len() as u64,
        HirKind::Class(Class::Unicode(class)) => {
            class.iter().flat_map(|range| Utf8Sequences::new(range.start(), range.end())).map(|one| one.len() as u64).sum()
        }
        HirKind::Repetition(repeated) => {
            let times = repeated.max.unwrap_or_else(|| repeated.min.max(1)).max(1);
            steps(&repeated.sub).saturating_add(1).saturating_mul(times.into())
        }
        HirKind::Capture(capture) => steps(&capture.sub).saturating_add(2),
        HirKind::Concat(parts) => parts.iter().map(steps).fold(0, u64::saturating_add),
        HirKind::Alternation(parts) => parts.iter().map(steps).fold(parts.len() as u64, u64::saturating_add),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn what_grows_is_counted_before_it_does() {
        assert_eq!(steps_of("^/item/([0-9]+)$").unwrap(), 1 + 6 + 2 + 2 + 1);
        assert_eq!(steps_of("a{3,5}|b").unwrap(), 2 + 10 + 1);
        assert!(steps_of("(?:(?:(?:a{1000}){1000}){1000}){1000}").unwrap() > 1_000_000_000_000);
        assert!(check("/api/v[0-9]{1,3}/[^/]{1,100}", None).is_ok());
        assert!(check("(?:a{1000}){1000}", None).unwrap_err().contains("steps"));
        assert!(check(&"a".repeat(MAX_PATTERN + 1), None).unwrap_err().contains("bytes"));
        assert!(check("(", None).unwrap_err().starts_with("bad regex"));
    }

    #[test]
    fn what_envoy_reads_otherwise_is_refused_with_what_to_write() {
        for (pattern, what) in [
            ("[a&&b]", "operations on classes (&&, --, ~~)"),
            ("[a[b]]", "classes within classes"),
            ("[--/]", "`-` or `]` at the beginning"),
            ("a{ 2 }", "repetitions with blanks"),
            (r"(?s)\C*(?:a{ 2 })\C*", "repetitions with blanks"),
            ("a++", "repetitions of repetitions"),
        ] {
            let told = check(pattern, None).unwrap_err();
            assert!(told.contains(what) && told.contains(": write `"), "{told}");
        }
        for pattern in [r"[\--/]", r"[a\&\&b]", r"[a\[b\]]", r"a\{ 2 }", r"\C*é\C{2}"] {
            assert_eq!(check(pattern, None), Ok(()), "{pattern}");
        }
    }

    #[test]
    fn its_sender_may_allow_less() {
        assert!(check("[a-z]{1,60}", Some(100)).unwrap_err().contains("at most 100"));
        assert!(check("[a-z]{1,40}", Some(100)).is_ok());
        assert!(check("(?:a{1000}){1000}", Some(u32::MAX)).is_err(), "but not more");
    }

    #[test]
    fn any_byte_is_any_character() {
        assert_eq!(of_text(r"(?s)\C*(?:^a\\C)\C*"), r"(?s)(?s:.)*(?:^a\\C)(?s:.)*");
        assert!(check(r"(?s)\C*(?:^app\.)\C*", None).is_ok() && steps_of(r"\C{100}").unwrap() >= 100);
        assert!(check(r"[\C]", None).is_err() && check(r"[\\C]", None).is_ok(), "in a class it is none, as in RE2");
    }

    #[test]
    fn what_has_a_name_is_ascii_as_in_envoy() {
        let fits = |pattern: &str, text: &str| {
            check(pattern, None).unwrap();
            regex::Regex::new(&format!("^(?:{})$", of_text(pattern))).unwrap().is_match(text)
        };
        assert!(
            fits(r"\w+", "aZ_9") && !fits(r"\w+", "né") && fits(r"n\W+", "né"),
            "a rule that denies `\\W` is passed by no `é`"
        );
        assert!(fits(r"[\w-]+", "a-") && !fits(r"[^\W]+", "é") && fits(r"[a\W]+", "éa") && !fits(r"[a\W]+", "b"));
        assert!(fits(r"\d\D", "1٣") && fits(r"\s\S", " \u{a0}") && fits(r"n\bé", "né") && fits(r"é\B ", "é "));
        assert!(fits(r"\\w", r"\w"));
    }

    #[test]
    fn many_that_are_small_are_counted_together() {
        let routes = |count: usize| json!({"routes": vec![json!({"match": {"safe_regex": {"regex": "[a-z]{1,400}"}}}); count]});
        let mut programs = Together::default();
        assert!(programs.add(&routes(1_000)).is_ok());
        assert!(programs.add(&routes(1_500)).unwrap_err().contains("together"));
    }
}
