//! The values of a label, however they are written: a list, a list as JSON text, or text with something between. It knows no consumers.

use regex::Regex;
use serde_json::Value;

use crate::exchange::pattern;

/// How values are read.
#[derive(Debug)]
pub(super) enum Parser {
    /// As the value itself tells: a list, text that begins with `[`, text with commas, or one value.
    Told,
    /// A list.
    List,
    /// A list as JSON text.
    Json,
    /// Text with something between the values.
    Segmented(Regex),
}

impl Parser {
    /// Text with what the pattern matches, and blanks around it, between the values.
    ///
    /// # Errors
    /// The pattern is none.
    pub(super) fn segmented(separator: &str) -> Result<Parser, String> {
        pattern::compile(&format!("\\s*(?:{separator})\\s*"), "").map(Parser::Segmented)
    }

    /// Whether one of the wanted values is among those of a label of an external user.
    pub(super) fn finds(&self, value: &Value, wanted: &[Box<str>]) -> bool {
        match (self, value) {
            (Parser::Told | Parser::List, Value::Array(list)) => among(list, wanted),
            (Parser::Told, Value::String(text)) => finds_in_text(text, wanted),
            (Parser::Json, Value::String(text)) => json_list(text).is_some_and(|list| among(&list, wanted)),
            (Parser::Segmented(separator), Value::String(text)) => separator.split(text).any(|part| is_wanted(part, wanted)),
            _ => false,
        }
    }
}

/// Whether one of the wanted values is among those of a label that is text.
pub(super) fn finds_in_text(text: &str, wanted: &[Box<str>]) -> bool {
    if text.starts_with('[') {
        return json_list(text).is_some_and(|list| among(&list, wanted));
    }
    text.split(',').any(|part| is_wanted(part.trim(), wanted))
}

fn json_list(text: &str) -> Option<Vec<Value>> {
    serde_json::from_str(text).ok()
}

fn among(list: &[Value], wanted: &[Box<str>]) -> bool {
    list.iter().filter_map(Value::as_str).any(|value| is_wanted(value, wanted))
}

fn is_wanted(value: &str, wanted: &[Box<str>]) -> bool {
    wanted.iter().any(|one| **one == *value)
}
