//! One rule: what it makes of a text, a query, a list of fields and a document. It knows no requests.

use std::borrow::Cow;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use regex::Regex;
use serde_json::Value;

use super::config::{Action, BodyFormat, Place, RuleConfig};
use crate::exchange::content::{JsonPath, decoded};
use crate::exchange::pattern;
use crate::http::{FieldName, Fields};

/// A compiled rule.
#[derive(Debug)]
pub(super) struct Rule {
    pub target: Target,
    change: Change,
}

/// What a rule masks.
#[derive(Debug)]
pub(super) enum Target {
    Query(Box<str>),
    Header(FieldName),
    Json(JsonPath),
    Form(Box<str>),
}

#[derive(Debug)]
enum Change {
    Remove,
    Replace(Box<str>),
    Regex(Regex, Box<str>),
}

/// The place in a document that is written as JSONPath writes it.
pub(super) fn json_path(text: &str) -> Option<JsonPath> {
    let rest = text.strip_prefix('$').unwrap_or(text);
    JsonPath::parse(if rest.starts_with("..") { rest } else { rest.strip_prefix('.').unwrap_or(rest) })
}

impl Rule {
    /// Compiles a rule.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub(super) fn compile(config: RuleConfig) -> Result<Rule, String> {
        let target = match (config.place, config.body_format) {
            (Place::Query, _) => Target::Query(config.name.into()),
            (Place::Header, _) => Target::Header(FieldName::new(config.name)),
            (Place::Body, Some(BodyFormat::Json)) => {
                Target::Json(json_path(&config.name).ok_or_else(|| "expected a place in a document".to_owned())?)
            }
            (Place::Body, _) => Target::Form(config.name.into()),
        };
        let value = config.value.unwrap_or_default().into();
        let change = match config.action {
            Action::Remove => Change::Remove,
            Action::Replace => Change::Replace(value),
            Action::Regex => Change::Regex(pattern::compile(&config.regex.unwrap_or_default(), "")?, value),
        };
        Ok(Rule { target, change })
    }

    /// What becomes of a text; `None` when it is taken out.
    fn masked<'a>(&'a self, text: &'a str) -> Option<Cow<'a, str>> {
        match &self.change {
            Change::Remove => None,
            Change::Replace(value) => Some(Cow::Borrowed(value)),
            Change::Regex(regex, value) => Some(regex.replace_all(text, &**value)),
        }
    }

    /// The query with the arguments of this name masked; none when there is nothing to mask.
    pub(super) fn query(&self, query: &str, name: &str) -> Option<Option<String>> {
        let is_it = |pair: &str| decoded(pair.split('=').next().unwrap_or_default().as_bytes()) == name;
        if !query.split('&').any(is_it) {
            return None;
        }
        let mut out = String::with_capacity(query.len());
        for pair in query.split('&') {
            let pair = if is_it(pair) {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                let value = decoded(value.as_bytes());
                let Some(value) = self.masked(&value) else { continue };
                Cow::Owned(format!("{key}={}", utf8_percent_encode(&value, NON_ALPHANUMERIC)))
            } else {
                Cow::Borrowed(pair)
            };
            if !out.is_empty() {
                out.push('&');
            }
            out.push_str(&pair);
        }
        Some((!out.is_empty()).then_some(out))
    }

    /// Masks all fields of this name.
    pub(super) fn fields(&self, fields: &mut Fields, name: &FieldName) {
        let values: Vec<String> = fields.get_all_named(name).map(|value| String::from_utf8_lossy(value).into_owned()).collect();
        fields.remove_named(name);
        for value in &values {
            if let Some(value) = self.masked(value) {
                fields.append_named(name, &*value);
            }
        }
    }

    /// Masks a value; says whether it stays. Of what is no text the JSON is masked.
    pub(super) fn value(&self, value: &mut Value) -> bool {
        let text = match &*value {
            Value::String(text) => Cow::Borrowed(text.as_str()),
            other => Cow::Owned(other.to_string()),
        };
        let masked = self.masked(&text).map(Cow::into_owned);
        match masked {
            None => return false,
            // What the pattern does not find in something that is no text stays what it is.
            Some(masked) if masked == *text => {}
            Some(masked) => *value = Value::String(masked),
        }
        true
    }
}
