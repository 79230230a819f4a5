//! Answers as people read them: aligned columns, and changes with `+`, `-` and `~`.

use heddle_proto::heddle::admin::v1 as api;
use serde_json::{Value, json};

/// Left-aligned columns under their headings; the last column is not padded.
pub fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).chain([headings[column].len()]).max().unwrap_or(0);
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let mut text = line(headings.to_vec());
    rows.iter().for_each(|row| text.push_str(&line(row.iter().map(String::as_str).collect())));
    text
}

/// What happened, or would happen, to each resource; unchanged ones are only counted.
pub fn outcomes(list: &[api::Outcome]) -> String {
    let mut text = String::new();
    let mut unchanged = 0;
    for outcome in list {
        let name = outcome.key.as_ref().map(key).unwrap_or_default();
        match outcome.effect() {
            api::Effect::Created => text.push_str(&format!("+ {name}\n")),
            api::Effect::Removed => text.push_str(&format!("- {name}\n")),
            api::Effect::Changed => text.push_str(&format!("~ {name}\n")),
            api::Effect::Refused => text.push_str(&format!("! {name}\n")),
            api::Effect::Unchanged | api::Effect::Unspecified => unchanged += 1,
        }
        for field in &outcome.fields {
            let side = |value: &Option<String>| value.clone().unwrap_or_else(|| "(absent)".into());
            text.push_str(&format!("    {}: {} -> {}\n", field.path, side(&field.before), side(&field.after)));
        }
        for fault in &outcome.faults {
            let path = if fault.path.is_empty() { String::new() } else { format!("{}: ", fault.path) };
            text.push_str(&format!("    {path}{}\n", fault.message));
        }
    }
    if unchanged > 0 {
        text.push_str(&format!("{unchanged} unchanged\n"));
    }
    text
}

/// `routes/r1`.
pub fn key(key: &api::Key) -> String {
    format!("{}/{}", key.collection, key.id)
}

/// A resource as JSON with its revisions.
pub fn resource_json(resource: &api::Resource) -> Value {
    let value: Value = serde_json::from_slice(&resource.json).unwrap_or(Value::Null);
    json!({ "key": resource.key.as_ref().map(key), "value": value, "createdIndex": resource.created, "modifiedIndex": resource.modified })
}

/// A moment as RFC 3339 in UTC.
pub fn time(stamp: Option<&prost_types::Timestamp>) -> String {
    stamp.map(ToString::to_string).unwrap_or_else(|| "-".into())
}

/// The first ids of many, and how many more there are.
pub(super) fn ids(all: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown = all.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = all.len().saturating_sub(SHOWN);
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

/// The last part of a type.
pub(super) fn short_type(type_url: &str) -> &str {
    type_url.rsplit('.').next().unwrap_or(type_url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_do_not_end_in_blanks() {
        let text = table(&["ID", "NAME"], &[vec!["r1".into(), "a".into()], vec!["longer".into(), String::new()]]);
        assert_eq!(text, "ID      NAME\nr1      a\nlonger\n");
    }
}
