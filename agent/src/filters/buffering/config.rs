//! Configuration of `buffering`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::check::{self, Faults};

/// Configuration on a route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Whether a request goes on only once its whole body is here.
    #[serde(default = "yes")]
    pub request: bool,
    /// Most bytes of a request body that are held, at most 1 GiB; 413 above.
    #[serde(default = "limit")]
    #[schemars(range(min = 1, max = 1073741824))]
    pub max_request_body_bytes: u64,
    /// Whether an answer goes on only once its whole body is here.
    #[serde(default = "yes")]
    pub response: bool,
    /// Most bytes of an answer that are held, at most 1 GiB; 500 above.
    #[serde(default = "limit")]
    #[schemars(range(min = 1, max = 1073741824))]
    pub max_response_body_bytes: u64,
}

fn yes() -> bool {
    true
}

/// 64 MiB, as plugins of APISIX that hold bodies.
fn limit() -> u64 {
    67_108_864
}

/// 1 GiB: what is held lies in memory.
const MOST: u64 = 1_073_741_824;

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        faults.range("max_request_body_bytes", self.max_request_body_bytes, 1, MOST);
        faults.range("max_response_body_bytes", self.max_response_body_bytes, 1, MOST);
        if !self.request && !self.response {
            faults.add("", "expected request, response or both");
        }
    }
}
