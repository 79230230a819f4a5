//! Configuration of `request-validation`.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::check::{self, Faults};
use super::schema::Schema;

/// Configuration on a route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// JSON Schema of the header: an object of texts by field name, in any case.
    pub header_schema: Option<Map<String, Value>>,
    /// JSON Schema of the body, which is JSON or `application/x-www-form-urlencoded`.
    pub body_schema: Option<Map<String, Value>>,
    /// Status that a refused client gets.
    #[serde(default = "rejected_code")]
    #[schemars(range(min = 200, max = 599))]
    pub rejected_code: u16,
    /// What a refused client reads; what is wrong when absent.
    #[schemars(length(min = 1, max = 256))]
    pub rejected_msg: Option<String>,
    /// Most bytes of a body that is validated (413 above).
    #[serde(default = "max_req_body_size")]
    #[schemars(range(min = 1))]
    pub max_req_body_size: u64,
}

fn rejected_code() -> u16 {
    400
}

fn max_req_body_size() -> u64 {
    64 * 1024 * 1024
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        if self.header_schema.is_none() && self.body_schema.is_none() {
            faults.add("", "object matches none of the required: expected header_schema or body_schema");
        }
        for (field, schema) in [("header_schema", &self.header_schema), ("body_schema", &self.body_schema)] {
            if let Some(Err(error)) = schema.as_ref().map(Schema::compile) {
                faults.add(field, error);
            }
        }
        faults.range("rejected_code", self.rejected_code, 200, 599);
        if let Some(message) = &self.rejected_msg {
            faults.range("rejected_msg", message.chars().count(), 1, 256);
        }
        faults.range("max_req_body_size", self.max_req_body_size, 1, u64::MAX);
    }
}
