//! The functions of matchers over paths and patterns. Casbin's own panic at patterns that are none and at texts that are not ASCII, and compile a pattern each
//! time; these do neither. They know no policies.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use casbin::function_map::{OperatorFunction, dynamic_to_str};
use casbin::{CoreApi, Enforcer};
use regex::Regex;

use crate::exchange::pattern;

/// Most patterns of one kind that a thread keeps compiled.
const MAX_PATTERNS: usize = 4096;

/// How the second argument of a function becomes a pattern.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// It is one.
    Regex,
    /// `/a/:name/*`.
    Colon,
    /// `/a/{name}/*`.
    Braces,
    /// The same, with names that mean the same text wherever they stand.
    Named,
}

thread_local! {
    static PATTERNS: RefCell<[HashMap<String, Option<Regex>>; 4]> = RefCell::default();
    /// Whether a pattern was not usable since the flag was taken.
    static FAILED: Cell<bool> = const { Cell::new(false) };
}

/// Puts the functions in place of Casbin's.
pub(super) fn install(enforcer: &mut Enforcer) {
    let functions: [(&str, OperatorFunction); 7] = [
        ("keyMatch", OperatorFunction::Arg2(|a, b| key_match(&dynamic_to_str(&a), &dynamic_to_str(&b)).into())),
        ("keyGet", OperatorFunction::Arg2(|a, b| key_get(&dynamic_to_str(&a), &dynamic_to_str(&b)).into())),
        ("keyMatch2", OperatorFunction::Arg2(|a, b| matches(Kind::Colon, &dynamic_to_str(&a), &dynamic_to_str(&b)).into())),
        ("keyMatch3", OperatorFunction::Arg2(|a, b| matches(Kind::Braces, &dynamic_to_str(&a), &dynamic_to_str(&b)).into())),
        ("keyMatch4", OperatorFunction::Arg2(|a, b| matches(Kind::Named, &dynamic_to_str(&a), &dynamic_to_str(&b)).into())),
        (
            "keyMatch5",
            OperatorFunction::Arg2(|a, b| matches(Kind::Braces, without_query(&dynamic_to_str(&a)), &dynamic_to_str(&b)).into()),
        ),
        ("regexMatch", OperatorFunction::Arg2(|a, b| matches(Kind::Regex, &dynamic_to_str(&a), &dynamic_to_str(&b)).into())),
    ];
    for (name, function) in functions {
        enforcer.add_function(name, function);
    }
}

/// Whether a pattern was not usable since this was asked last.
pub(super) fn take_failure() -> bool {
    FAILED.replace(false)
}

/// `/a/*` matches all that begins with `/a/`.
fn key_match(key: &str, pattern: &str) -> bool {
    match pattern.split_once('*') {
        Some((start, _)) => key.starts_with(start),
        None => key == pattern,
    }
}

/// What stands for the star.
fn key_get(key: &str, pattern: &str) -> String {
    let start = pattern.split_once('*').map(|(start, _)| start);
    start.and_then(|start| key.strip_prefix(start)).unwrap_or_default().to_owned()
}

fn without_query(key: &str) -> &str {
    key.split('?').next().unwrap_or_default()
}

fn matches(kind: Kind, key: &str, source: &str) -> bool {
    PATTERNS.with_borrow_mut(|patterns| {
        let patterns = &mut patterns[kind as usize];
        if !patterns.contains_key(source) {
            if patterns.len() >= MAX_PATTERNS {
                patterns.clear();
            }
            patterns.insert(source.to_owned(), pattern::compile(&translated(kind, source), "").ok());
        }
        match patterns.get(source) {
            Some(Some(regex)) if matches!(kind, Kind::Named) => matches_named(regex, key, source),
            Some(Some(regex)) => regex.is_match(key),
            _ => {
                FAILED.set(true);
                false
            }
        }
    })
}

/// The pattern that a path with names stands for. Other signs keep their meaning in patterns, as in Casbin.
fn translated(kind: Kind, source: &str) -> String {
    let source = if matches!(kind, Kind::Regex) { return source.to_owned() } else { source.replace("/*", "/.*") };
    let mut out = String::from("^");
    let mut rest = source.as_str();
    let (open, part) = match kind {
        Kind::Colon => (':', "[^/]+"),
        Kind::Named => ('{', "([^/]+)"),
        _ => ('{', "[^/]+"),
    };
    while let Some((before, behind)) = rest.split_once(open) {
        let end = match kind {
            Kind::Colon => Some(behind.find('/').unwrap_or(behind.len())),
            _ => behind.find('}').filter(|end| !behind[..*end].contains('/')).map(|end| end + 1),
        };
        out.push_str(before);
        match end {
            Some(end) => {
                out.push_str(part);
                rest = &behind[end..];
            }
            None => {
                out.push_str("\\{");
                rest = behind;
            }
        }
    }
    out.push_str(rest);
    out.push('$');
    out
}

/// The names in braces, in order.
fn names(source: &str) -> impl Iterator<Item = &str> {
    source.split('{').skip(1).filter_map(|part| part.split_once('}')).map(|(name, _)| name).filter(|name| !name.contains('/'))
}

fn matches_named(regex: &Regex, key: &str, source: &str) -> bool {
    let Some(captures) = regex.captures(key) else { return false };
    let values: Vec<(&str, &str)> =
        names(source).zip(captures.iter().skip(1)).filter_map(|(name, value)| Some((name, value?.as_str()))).collect();
    values.iter().all(|(name, value)| values.iter().all(|(other, text)| name != other || value == text))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_match_as_casbin_says() {
        assert!(key_match("/foo/bar", "/foo/*") && key_match("/foo/", "/foo/*") && !key_match("/foo", "/foo/*"));
        assert!(key_match("/foo", "/foo") && !key_match("/foo/bar", "/foo") && !key_match("/f\u{f6}\u{f6}", "/fo*"));
        assert_eq!((key_get("/foo/bar/x", "/foo/*").as_str(), key_get("/bar", "/foo/*").as_str()), ("bar/x", ""));
        let is = |kind, key, source| (matches(kind, key, source), take_failure());
        assert_eq!(is(Kind::Colon, "/res1/x", "/:r/x"), (true, false));
        assert_eq!(is(Kind::Colon, "/a/b/c", "/a/*"), (true, false));
        assert_eq!(is(Kind::Colon, "/a/b/c", "/a/:x"), (false, false));
        assert_eq!(is(Kind::Braces, "/res1/x", "/{r}/x"), (true, false));
        assert_eq!(is(Kind::Braces, "/proj_a_admin/", "/proj_{p}_admin/"), (true, false));
        assert_eq!(is(Kind::Named, "/p/1/c/1", "/p/{id}/c/{id}"), (true, false));
        assert_eq!(is(Kind::Named, "/p/1/c/2", "/p/{id}/c/{id}"), (false, false));
        assert_eq!(is(Kind::Named, "/p/1/c/2", "/p/{id}/c/{other}"), (true, false));
        assert_eq!(is(Kind::Regex, "/a1", "^/a[0-9]$"), (true, false));
        assert_eq!(is(Kind::Regex, "/a1", "("), (false, true));
        assert_eq!(without_query("/a?b"), "/a");
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(key in ".{0,20}", source in "[a-z/:{}*()\\[\u{e9}]{0,20}") {
            for kind in [Kind::Regex, Kind::Colon, Kind::Braces, Kind::Named] {
                let _ = matches(kind, &key, &source);
            }
            prop_assert!(key_get(&key, &source).len() <= key.len());
            let _ = key_match(&key, &source);
        }
    }
}
