//! Configuration of `failover`.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::super::check::{self, Faults};
use super::super::retry::repeat::{self, GrpcStatus, MAX_BODY_SIZE, StatusRange};

/// Configuration on a route: `upstream_id` or `upstream`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Id of the other upstream.
    #[schemars(with = "Option<String>")]
    pub upstream_id: Option<Value>,
    /// The other upstream, written here with the fields of any upstream.
    pub upstream: Option<Value>,
    /// Answers of the route's upstream after which the request goes to the other one: statuses (`503`) and ranges (`"500-504"`).
    #[serde(default)]
    pub statuses: Vec<StatusRange>,
    /// Statuses of gRPC by name (`UNAVAILABLE`) after which a call goes to the other one that brought nothing else.
    #[serde(default)]
    pub grpc_statuses: Vec<GrpcStatus>,
    /// Sends a request to the other upstream when no answer came; otherwise only where no endpoint stands beforehand.
    #[serde(default = "yes")]
    pub on_network_error: bool,
    /// Methods of requests that may be sent twice; the idempotent ones when empty. A request of which no endpoint has seen a byte always may.
    #[serde(default)]
    pub methods: Vec<String>,
    /// Longest request body in bytes that is kept to be sent again; requests with a longer one stay with what they met.
    #[serde(default = "repeat::max_body_size")]
    #[schemars(range(max = 67108864))]
    pub max_body_size: u64,
}

fn yes() -> bool {
    true
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        if self.upstream_id.is_some() == self.upstream.is_some() {
            faults.add("", "expected either upstream_id or upstream");
        }
        if self.upstream_id.as_ref().is_some_and(|id| !id.is_string() && !id.is_u64()) {
            faults.add("upstream_id", "wrong type: expected string or integer");
        }
        if self.upstream.as_ref().is_some_and(|upstream| !upstream.is_object()) {
            faults.add("upstream", "wrong type: expected object");
        }
        faults.range("max_body_size", self.max_body_size, 0, MAX_BODY_SIZE);
        repeat::check_statuses(&self.statuses, faults);
        repeat::check_methods(&self.methods, faults);
    }
}
