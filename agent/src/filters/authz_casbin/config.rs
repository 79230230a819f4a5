//! Configuration of `authz-casbin`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::check::{self, Faults};
use super::super::fields::is_name;
use super::policy::Policy;

/// Configuration on a route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Field of the request that names the subject; without the field it is `anonymous`.
    pub username: String,
    /// Text of the model.
    pub model: Option<String>,
    /// Text of the policy, one rule a line.
    pub policy: Option<String>,
    /// File with the model, on the host of the data plane.
    pub model_path: Option<String>,
    /// File with the policy, on the host of the data plane.
    pub policy_path: Option<String>,
}

/// `plugin_metadata/authz-casbin`: for routes that name neither texts nor files.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Metadata {
    /// Text of the model.
    pub model: String,
    /// Text of the policy, one rule a line.
    pub policy: String,
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        if !is_name(&self.username) {
            faults.add("username", format!("expected the name of a header field, got \"{}\"", self.username));
        }
        let (texts, files) = ((&self.model, &self.policy), (&self.model_path, &self.policy_path));
        match (texts, files) {
            ((Some(model), Some(policy)), (None, None)) => try_out(model, policy, faults),
            ((None, None), (Some(_), Some(_)) | (None, None)) => {}
            _ => faults.add("", "expected model with policy, model_path with policy_path, or neither and plugin metadata"),
        }
    }
}

impl check::Config for Metadata {
    fn validate(&self, faults: &mut Faults) {
        try_out(&self.model, &self.policy, faults);
    }
}

fn try_out(model: &str, policy: &str, faults: &mut Faults) {
    if let Err((field, error)) = Policy::compile(model, policy) {
        faults.add(field, error);
    }
}
