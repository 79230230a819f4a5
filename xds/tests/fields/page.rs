//! What was found out as the page has it, and what the pages say. It knows no decoder.

use std::collections::{BTreeMap, BTreeSet};

use super::walk::{Entry, Walk, display};

const FIELDS: &str = include_str!("../../../docs/envoy-fields.md");
const PAGE: &str = include_str!("../../../docs/envoy.md");
const BEGIN: &str = "<!-- fields -->\n";
const END: &str = "<!-- /fields -->";

fn listed<'n>(names: impl Iterator<Item = &'n String>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The table: a row for each message, and for each place in which it is taken otherwise.
pub fn table(walk: &Walk) -> String {
    let mut out = "| message | supported | taken without effect |\n|---|---|---|\n".to_owned();
    let rows: BTreeMap<String, &BTreeMap<String, Entry>> =
        walk.found.iter().map(|(message, contexts)| (display(message), contexts)).collect();
    for (name, contexts) in rows {
        let mut groups: Vec<(&Entry, Vec<&String>)> = Vec::new();
        for (context, entry) in contexts {
            match groups.iter_mut().find(|(known, _)| *known == entry) {
                Some((_, places)) => places.push(context),
                None => groups.push((entry, vec![context])),
            }
        }
        let alone = groups.len() == 1;
        for (entry, places) in groups {
            let said = |set: &BTreeSet<String>| listed(set.iter());
            let place = if alone { String::new() } else { format!(" in {}", listed(places.into_iter())) };
            out.push_str(&format!("| `{name}`{place} | {} | {} |\n", said(&entry.done), said(&entry.idle)));
        }
    }
    out
}

/// The table as the page has it.
pub fn written() -> &'static str {
    let (_, rest) = FIELDS.split_once(BEGIN).unwrap_or_else(|| panic!("the page has no {BEGIN}"));
    rest.split_once(END).map_or(rest, |(table, _)| table)
}

/// The table of bootstraps as the page has it.
pub fn written_of_bootstrap() -> &'static str {
    let rest = FIELDS.split_once("<!-- bootstrap -->\n").map_or("", |(_, rest)| rest);
    rest.split_once("<!-- /bootstrap -->").map_or(rest, |(table, _)| table)
}

/// Fields that are taken without effect, each with its message.
pub fn idle(walk: &Walk) -> BTreeSet<String> {
    let of = |(message, contexts): (&String, &BTreeMap<String, Entry>)| {
        let fields: BTreeSet<String> = contexts.values().flat_map(|entry| entry.idle.clone()).collect();
        fields.into_iter().map(|field| format!("{}.{field}", display(message))).collect::<Vec<_>>()
    };
    walk.found.iter().flat_map(of).collect()
}

/// Those for which the page has a reason; one that stands there twice is told.
pub fn explained() -> (BTreeSet<String>, Vec<String>) {
    let heading = "\n## What is taken without effect\n";
    let (_, rest) = PAGE.split_once(heading).unwrap_or_else(|| panic!("the page has no{heading}"));
    let section = rest.split("\n## ").next().unwrap_or(rest);
    let (mut names, mut twice) = (BTreeSet::new(), Vec::new());
    for row in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split(" | ").collect();
        assert!(cells.len() == 2 && cells[1].len() > 10, "a row without a reason: {row}");
        for name in cells[0].split('`').skip(1).step_by(2) {
            if !names.insert(name.to_owned()) {
                twice.push(name.to_owned());
            }
        }
    }
    (names, twice)
}
