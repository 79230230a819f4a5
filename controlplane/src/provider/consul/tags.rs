//! Tags such as `traefik.http.routers.web.rule=…` as a tree, and constraints over tags. It knows no route.

use std::collections::BTreeMap;

use regex::Regex;

use super::rule::{self, Rule};

/// Tags of one service that are looked at.
const MOST_TAGS: usize = 1_024;
/// Bytes of one tag: rules are long at times.
const LONGEST_TAG: usize = 4 * 1024;
/// Bytes of all tags of one service that ask for routes.
const MOST_BYTES: usize = 64 * 1024;

/// What the tags of one service say below a prefix: by lower-case path, values as written.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Tags {
    values: BTreeMap<String, String>,
}

impl Tags {
    /// Reads the tags `PREFIX.PATH=VALUE` of any of the prefixes.
    ///
    /// # Errors
    /// Two instances of the service say different things under one name, or they say too much.
    pub(super) fn read(prefixes: &[String], tags: &[String]) -> Result<Tags, Vec<String>> {
        let (mut read, mut wrong) = (Tags::default(), Vec::new());
        let lead = |tag: &&String| {
            let rest = |prefix: &String| tag.get(..prefix.len()).filter(|start| start.eq_ignore_ascii_case(prefix));
            prefixes.iter().any(|prefix| rest(prefix).is_some())
        };
        let asking: Vec<&String> = tags.iter().filter(lead).collect();
        let bytes: usize = asking.iter().map(|tag| tag.len()).sum();
        if asking.len() > MOST_TAGS || bytes > MOST_BYTES || asking.iter().any(|tag| tag.len() > LONGEST_TAG) {
            return Err(vec![format!(
                "it has {} tags of {bytes} bytes that ask for routes; at most {MOST_TAGS} of {MOST_BYTES} bytes are taken, {LONGEST_TAG} bytes each",
                asking.len()
            )]);
        }
        for tag in asking {
            let Some((path, value)) = tag.split_once('=') else { continue };
            let path = path.trim().to_ascii_lowercase();
            let below = prefixes.iter().find_map(|prefix| path.strip_prefix(prefix.as_str())?.strip_prefix('.'));
            let Some(below) = below else { continue };
            let value = value.trim().to_owned();
            match read.values.get(below) {
                Some(other) if *other != value => {
                    wrong.push(format!("tags say both {below}={other} and {below}={value}; all instances must say the same"));
                }
                _ => drop(read.values.insert(below.to_owned(), value)),
            }
        }
        if wrong.is_empty() { Ok(read) } else { Err(wrong) }
    }

    /// One value.
    pub(super) fn get(&self, path: &str) -> Option<&str> {
        self.values.get(path).map(String::as_str)
    }

    /// All paths with their values.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(path, value)| (path.as_str(), value.as_str()))
    }

    /// By the name behind `path`: what is said below each.
    pub(super) fn named(&self, path: &str) -> BTreeMap<String, BTreeMap<String, String>> {
        let mut named: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for (key, value) in &self.values {
            let Some(rest) = key.strip_prefix(path).and_then(|rest| rest.strip_prefix('.')) else { continue };
            let (name, field) = rest.split_once('.').unwrap_or((rest, ""));
            named.entry(name.to_owned()).or_default().insert(field.to_owned(), value.clone());
        }
        named
    }
}

/// Items divided by commas.
pub(super) fn list(value: &str) -> Vec<String> {
    value.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

/// Whether the tags of a service satisfy a constraint: ``Tag(`a`)``, ``TagRegex(`^b`)``, joined as rules are.
///
/// # Errors
/// In words: it is no constraint.
pub(in crate::provider) fn satisfies(constraint: &str, tags: &[String]) -> Result<bool, String> {
    judge(&rule::parse(constraint)?, tags)
}

fn judge(constraint: &Rule, tags: &[String]) -> Result<bool, String> {
    // Every part is judged, so that a mistake is told whatever the tags are.
    match constraint {
        Rule::And(all) => all.iter().try_fold(true, |so_far, one| Ok(judge(one, tags)? && so_far)),
        Rule::Or(all) => all.iter().try_fold(false, |so_far, one| Ok(judge(one, tags)? || so_far)),
        Rule::Not(inner) => judge(inner, tags).map(|holds| !holds),
        Rule::Matcher(name, arguments) => match (name.as_str(), &arguments[..]) {
            ("Tag", [tag]) => Ok(tags.contains(tag)),
            ("TagRegex", [pattern]) => {
                let pattern = Regex::new(pattern).map_err(|error| error.to_string())?;
                Ok(tags.iter().any(|tag| pattern.is_match(tag)))
            }
            _ => Err(format!("unknown constraint {name}; expected Tag(`…`) or TagRegex(`…`)")),
        },
    }
}
