//! Configuration of `degraphql`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::check::{self, Faults};
use super::document;

/// Configuration on a route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// The GraphQL document that is sent.
    #[schemars(length(min = 1, max = 1024))]
    pub query: String,
    /// Variables of the document, taken by name from the query of GET and the JSON body of POST.
    #[schemars(length(min = 1))]
    pub variables: Option<Vec<String>>,
    /// Which operation of the document is meant; needed when it has several.
    #[schemars(length(min = 1, max = 1024))]
    pub operation_name: Option<String>,
    /// Longest body of POST in bytes that is read; longer ones are answered with 413.
    #[serde(default = "max_req_body_size")]
    #[schemars(range(min = 1))]
    pub max_req_body_size: u64,
}

fn max_req_body_size() -> u64 {
    64 * 1024 * 1024
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        faults.range("query", self.query.len(), 1, 1024);
        let operations = match document::operations(&self.query) {
            Ok(operations) => operations,
            Err(error) => return faults.add("query", error),
        };
        match &self.operation_name {
            Some(name) if !operations.iter().any(|operation| operation == name) => {
                faults.add("operation_name", format!("the query has no operation \"{name}\""));
            }
            None if operations.len() > 1 => {
                faults.add("operation_name", "operation_name is required, since the query has several operations");
            }
            _ => {}
        }
        if self.variables.as_ref().is_some_and(Vec::is_empty) {
            faults.add("variables", "expect array to have at least 1 items");
        }
        faults.range("max_req_body_size", self.max_req_body_size, 1, u64::MAX);
    }
}
