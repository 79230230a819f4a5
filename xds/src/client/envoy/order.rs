//! How routes of which the first that fits decides are placed among routes of which the most specific does. It knows paths alone.
//!
//! Our routes are found by the longest literal beginning of a path first, and by priority only among those of the same beginning. A route of a list keeps its
//! own beginning where no earlier one would then be passed over; else it takes that of the earliest such one, and its path becomes a condition.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::dialect::envoy::decode::piece::Path;

/// Where a route is found, and what must hold besides.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Placement {
    /// Our pattern of the path.
    pub(super) uri: String,
    /// A condition on the path, where the pattern says less than it.
    pub(super) condition: Option<Value>,
}

/// A literal beginning, and whether nothing may follow.
struct Key {
    text: String,
    exact: bool,
    /// The pattern says all that the path says.
    whole: bool,
}

/// Places a list of routes.
pub(super) fn place<'p>(paths: impl Iterator<Item = &'p Path>) -> Vec<Placement> {
    let mut open: HashSet<String> = HashSet::new();
    let mut placed = Vec::new();
    for path in paths {
        let mut key = key(path);
        let ends = (0..key.text.len()).chain((key.exact).then_some(key.text.len()));
        let earlier = ends.filter(|end| key.text.is_char_boundary(*end)).find(|end| open.contains(&key.text[..*end]));
        if let Some(end) = earlier {
            key.text.truncate(end);
            key.exact = false;
            key.whole = false;
        }
        let condition = (!key.whole).then(|| condition(path));
        placed.push(Placement { uri: pattern(&key), condition });
        if !key.exact {
            open.insert(key.text);
        }
    }
    placed
}

/// Our pattern of the path: an empty beginning is that of every path.
fn pattern(key: &Key) -> String {
    match (key.text.as_str(), key.exact) {
        ("", _) => "/*".to_owned(),
        (text, true) => text.to_owned(),
        (text, false) => format!("{text}*"),
    }
}

/// Every path begins with a slash: what says less is the same as that.
fn key(path: &Path) -> Key {
    let (text, exact, whole) = match path {
        Path::Exact(text) => (&**text, true, true),
        Path::Prefix(text) => (&**text, false, true),
        Path::Below(text) => (&**text, false, false),
        Path::Pattern(pattern) => (start(pattern), false, false),
    };
    let special = text.find(['*', ':']);
    let text = match special {
        // What our patterns would read as more than text is left to the condition.
        Some(at) => &text[..at],
        None => text,
    };
    let text = if text.is_empty() { "/" } else { text };
    Key { text: text.to_owned(), exact: exact && special.is_none(), whole: whole && special.is_none() }
}

/// The plain text that everything begins with that a pattern covers; empty where that is not certain.
fn start(pattern: &str) -> &str {
    let inner = pattern.strip_prefix("^(?:").and_then(|rest| rest.strip_suffix(")$")).unwrap_or("");
    if inner.contains(['|', '\\']) || inner.contains("(?") {
        return "";
    }
    let end = inner.find(|c: char| ".+*?()[]{}^$#".contains(c) || !c.is_ascii()).unwrap_or(inner.len());
    match inner[end..].starts_with(['*', '?', '{', '+']) {
        // The last character may be there any number of times.
        true => &inner[..end.saturating_sub(1)],
        false => &inner[..end],
    }
}

/// What a path must look like, as a condition.
fn condition(path: &Path) -> Value {
    use crate::dialect::envoy::decode::escaped;
    match path {
        Path::Exact(text) => json!(["uri", "==", &**text]),
        Path::Prefix(text) => json!(["uri", "~~", format!("^{}", escaped(text))]),
        Path::Below(text) => json!(["uri", "~~", format!("^{}(?:/.*)?$", escaped(text))]),
        Path::Pattern(pattern) => json!(["uri", "~~", &**pattern]),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;

    use super::*;

    fn fits(path: &Path, request: &str) -> bool {
        match path {
            Path::Exact(text) => request == &**text,
            Path::Prefix(text) => request.starts_with(&**text),
            Path::Below(text) => request.strip_prefix(&**text).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            // The only pattern that these tests make.
            Path::Pattern(pattern) => {
                let (before, _) = pattern.strip_prefix("^(?:").unwrap().split_once(".*").unwrap();
                request.starts_with(before)
            }
        }
    }

    fn path() -> impl Strategy<Value = Path> {
        let text = prop::collection::vec(prop::sample::select(vec!["/", "/a", "/b", "ab", "/:x", "*"]), 0..3)
            .prop_map(|parts| format!("/{}", parts.concat().trim_start_matches('/')));
        (0..4, text).prop_map(|(kind, text)| match kind {
            0 => Path::Exact(text.into()),
            1 => Path::Prefix(text.into()),
            2 => Path::Below(text.into()),
            _ => Path::Pattern(format!("^(?:{}.*)$", text.replace('*', "")).into()),
        })
    }

    proptest! {
        /// The order of our table: exact before the longest beginning, then the place in the list, which is the priority.
        #[test]
        fn the_first_that_fits_is_the_first_that_is_found(
            paths in prop::collection::vec((path(), any::<bool>()), 1..8),
            request in prop::sample::select(vec!["/", "/a", "/a/b", "/ab", "/a/a", "/b/:x", "/*", "/a*", "/abab", "/b"]),
        ) {
            let placed = place(paths.iter().map(|(path, _)| path));
            // `holds` stands for whatever else a route demands.
            let candidate = |at: &usize| {
                let uri = &placed[*at].uri;
                let found = match uri.strip_suffix('*') {
                    Some(prefix) => request.starts_with(prefix),
                    None => request == uri,
                };
                let (path, holds) = &paths[*at];
                found && *holds && (placed[*at].condition.is_none() || fits(path, request))
            };
            let rank = |at: &usize| {
                let uri = &placed[*at].uri;
                (!uri.ends_with('*'), if uri.ends_with('*') { uri.len() } else { 0 }, std::cmp::Reverse(*at))
            };
            let ours = (0..paths.len()).filter(candidate).max_by_key(rank);
            let first = paths.iter().position(|(path, holds)| *holds && fits(path, request));
            prop_assert_eq!(ours, first, "{:?}", placed);
        }
    }

    #[test]
    fn what_is_in_order_already_keeps_its_own_beginning() {
        let paths =
            [Path::Exact("/a".into()), Path::Prefix("/a/b".into()), Path::Prefix("/".into()), Path::Prefix("/late".into())];
        let uris: Vec<String> = place(paths.iter()).into_iter().map(|one| one.uri).collect();
        assert_eq!(uris, ["/a", "/a/b*", "/*", "/*"]);
    }
}
