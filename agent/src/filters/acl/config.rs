//! Configuration of `acl`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::check::{self, Faults};
use super::pick::Pick;
use super::values::Parser;

/// Labels and their values.
pub(super) type Labels = BTreeMap<String, Vec<String>>;

/// Configuration on a route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Labels of which one with one of its values lets in; all others are kept out.
    #[schemars(extend("minProperties" = 1))]
    pub allow_labels: Option<Labels>,
    /// Labels of which one with one of its values keeps out; looked at first.
    #[schemars(extend("minProperties" = 1))]
    pub deny_labels: Option<Labels>,
    /// Where the value stands in what is known of a user whom a plugin like `openid-connect` has identified: a path such as `groups`, `$.realm_access.roles` or `orgs[*].id`.
    #[serde(default = "groups")]
    pub external_user_label_field: String,
    /// The label that this value counts as; the path itself when absent.
    pub external_user_label_field_key: Option<String>,
    /// How the value is read: `segmented_text`, `table` (a list) or `json` (a list as text); told from the value when absent.
    pub external_user_label_field_parser: Option<ParserName>,
    /// Pattern of what stands between the values of `segmented_text`.
    pub external_user_label_field_separator: Option<String>,
    /// Status of refusals.
    #[serde(default = "rejected_code")]
    #[schemars(range(min = 200, max = 599))]
    pub rejected_code: u16,
    /// `message` of refusals; by default it says that the consumer is forbidden.
    pub rejected_msg: Option<String>,
}

/// How a value is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum ParserName {
    /// Text with something between the values.
    SegmentedText,
    /// A list.
    Table,
    /// A list as JSON text.
    Json,
}

fn groups() -> String {
    "groups".to_owned()
}

fn rejected_code() -> u16 {
    403
}

impl Config {
    /// How values of external users are read.
    pub(super) fn parser(&self) -> Result<Parser, String> {
        match (self.external_user_label_field_parser, self.external_user_label_field_separator.as_deref()) {
            (None, _) => Ok(Parser::Told),
            (Some(ParserName::Table), _) => Ok(Parser::List),
            (Some(ParserName::Json), _) => Ok(Parser::Json),
            (Some(ParserName::SegmentedText), Some(separator)) if !separator.is_empty() => Parser::segmented(separator),
            (Some(ParserName::SegmentedText), _) => Err("segmented_text needs a separator".to_owned()),
        }
    }
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        if self.allow_labels.is_none() && self.deny_labels.is_none() {
            faults.add("", "expected allow_labels or deny_labels");
        }
        for (name, labels) in [("allow_labels", &self.allow_labels), ("deny_labels", &self.deny_labels)] {
            let Some(labels) = labels else { continue };
            if labels.is_empty() {
                faults.add(name, "expect object to have at least 1 properties");
            }
            for (label, _) in labels.iter().filter(|(_, values)| values.is_empty()) {
                faults.add(format!("{name}.{label}"), "expect array to have at least 1 items");
            }
        }
        if let Err(message) = Pick::parse(&self.external_user_label_field) {
            faults.add("external_user_label_field", message);
        }
        if let Err(message) = self.parser() {
            faults.add("external_user_label_field_separator", message);
        }
        faults.range("rejected_code", self.rejected_code, 200, 599);
    }
}
