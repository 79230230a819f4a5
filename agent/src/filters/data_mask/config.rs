//! Configuration of `data-mask`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::check::{self, Faults};
use super::super::fields::is_name;
use super::rule::json_path;
use crate::exchange::pattern;

/// Configuration on a route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// What is masked, rule after rule.
    pub request: Vec<RuleConfig>,
    /// Most bytes of a body that is masked; of a longer one logs see nothing.
    #[serde(default = "max_body_size")]
    #[schemars(range(min = 1))]
    pub max_body_size: u64,
    /// Most arguments of a form that is masked; of one with more logs see nothing.
    #[serde(default = "max_req_post_args")]
    #[schemars(range(min = 1))]
    pub max_req_post_args: usize,
}

/// One thing to mask.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleConfig {
    /// Where it stands: `query`, `header` or `body`.
    #[serde(rename = "type")]
    pub place: Place,
    /// Its name: of an argument or a field, or the place in a JSON body, such as `$.users[*].email`.
    #[schemars(length(min = 1))]
    pub name: String,
    /// What is done: `remove` takes it out, `replace` puts `value` in its place, `regex` puts `value` in the place of what `regex` finds in it.
    pub action: Action,
    /// How the body is written, `json` or `urlencoded`; required where the type is `body`.
    pub body_format: Option<BodyFormat>,
    /// The pattern of the action `regex`.
    pub regex: Option<String>,
    /// What is put in; `$1` stands for the first group of `regex`.
    pub value: Option<String>,
}

/// Where something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Place {
    Query,
    Header,
    Body,
}

/// What is done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Action {
    Regex,
    Replace,
    Remove,
}

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum BodyFormat {
    Json,
    Urlencoded,
}

fn max_body_size() -> u64 {
    1024 * 1024
}

fn max_req_post_args() -> usize {
    100
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        if self.request.is_empty() {
            faults.add("request", "expect array to have at least 1 items");
        }
        for (index, rule) in self.request.iter().enumerate() {
            rule.validate(&format!("request[{index}]"), faults);
        }
        faults.range("max_body_size", self.max_body_size, 1, u64::MAX);
        faults.range("max_req_post_args", self.max_req_post_args, 1, usize::MAX);
    }
}

impl RuleConfig {
    fn validate(&self, path: &str, faults: &mut Faults) {
        let named = match (self.place, self.body_format) {
            (Place::Header, _) => is_name(&self.name),
            (Place::Body, Some(BodyFormat::Json)) => json_path(&self.name).is_some(),
            _ => !self.name.is_empty(),
        };
        if !named {
            faults.add(format!("{path}.name"), format!("expected the name of what is masked, got \"{}\"", self.name));
        }
        if self.place == Place::Body && self.body_format.is_none() {
            faults.add(path, "property \"body_format\" is required");
        }
        if self.action != Action::Remove && self.value.is_none() {
            faults.add(path, "property \"value\" is required");
        }
        match (self.action, &self.regex) {
            (Action::Regex, None) => faults.add(path, "property \"regex\" is required"),
            (Action::Regex, Some(regex)) => {
                if let Err(error) = pattern::compile(regex, "") {
                    faults.add(format!("{path}.regex"), error);
                }
            }
            _ => {}
        }
    }
}
