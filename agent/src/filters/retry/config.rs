//! Configuration of `retry`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::check::{self, Faults};
use super::super::fields::is_name;
use super::repeat::{self, GrpcStatus, MAX_BODY_SIZE, StatusRange};
use crate::http::Name;

/// Configuration on a route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Most tries of one request, the first one included.
    #[schemars(range(min = 1, max = 20))]
    pub attempts: u32,
    /// Seconds of rest before the second try, with fractions; it doubles from try to try and varies by half.
    #[serde(default)]
    #[schemars(range(min = 0, max = 60))]
    pub initial_interval: f64,
    /// Longest rest in seconds; twice `initial_interval` when absent.
    #[schemars(range(min = 0, max = 60))]
    pub max_interval: Option<f64>,
    /// No try begins later than this many seconds after the first one; 0 is no limit.
    #[serde(default)]
    #[schemars(range(min = 0, max = 3600))]
    pub timeout: f64,
    /// Seconds from the end of the request in which an answer must begin, whatever try it comes from; then the try under way is given up, the client gets 504, and
    /// nothing is sent again. 0 is no limit.
    #[serde(default)]
    #[schemars(range(min = 0, max = 86400))]
    pub total_timeout: f64,
    /// Answers after which the request is sent again: statuses (`503`) and ranges (`"500-504"`).
    #[serde(default)]
    pub statuses: Vec<StatusRange>,
    /// Statuses of gRPC by name (`UNAVAILABLE`) after which a call is sent again that brought nothing else.
    #[serde(default)]
    pub grpc_statuses: Vec<GrpcStatus>,
    /// Sends a request again when no answer came.
    #[serde(default = "yes")]
    pub on_network_error: bool,
    /// Sends a request again that no endpoint has seen (no connection, a refused stream), also where `on_network_error` is `false`.
    #[serde(default)]
    pub on_unseen: bool,
    /// Methods of requests that may be sent twice; the idempotent ones when empty. A request of which no endpoint has seen a byte always may.
    #[serde(default)]
    pub methods: Vec<String>,
    /// Longest request body in bytes that is kept to be sent again; requests with a longer one are sent once.
    #[serde(default = "repeat::max_body_size")]
    #[schemars(range(max = 67108864))]
    pub max_body_size: u64,
    /// Retries in percent of the requests of this configuration, over all workers.
    #[serde(default = "ten")]
    #[schemars(range(max = 1000))]
    pub budget_percent: u32,
    /// Retries that may be saved up while there are few, and are there from the start.
    #[serde(default = "ten")]
    #[schemars(range(max = 10000))]
    pub budget_burst: u32,
    /// Request field that tells the upstream which try this is, 1 for the first; what clients say in it is taken off. No field when absent.
    pub attempt_header: Option<String>,
}

fn yes() -> bool {
    true
}

fn ten() -> u32 {
    10
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        faults.range("attempts", self.attempts, 1, 20);
        faults.range("initial_interval", self.initial_interval, 0.0, 60.0);
        faults.range("max_interval", self.max_interval.unwrap_or_default(), 0.0, 60.0);
        faults.range("timeout", self.timeout, 0.0, 3600.0);
        faults.range("total_timeout", self.total_timeout, 0.0, 86_400.0);
        faults.range("max_body_size", self.max_body_size, 0, MAX_BODY_SIZE);
        faults.range("budget_percent", self.budget_percent, 0, 1000);
        faults.range("budget_burst", self.budget_burst, 0, 10_000);
        repeat::check_statuses(&self.statuses, faults);
        repeat::check_methods(&self.methods, faults);
        // A field that the request itself needs would lead it elsewhere, or end it elsewhere.
        let is_taken =
            |name: &str| matches!(Name::find(name.as_bytes()), Name::Host | Name::ContentLength | Name::Expect | Name::Trailer);
        let is_free = |name: &str| is_name(name) && !is_taken(name) && !Name::find(name.as_bytes()).is_hop_by_hop();
        if self.attempt_header.as_ref().is_some_and(|name| !is_free(name)) {
            faults.add("attempt_header", "is not a field name that may be set; expected one of its own, such as X-Attempt");
        }
    }
}
