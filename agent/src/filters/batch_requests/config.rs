//! Configuration of `batch-requests`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::check::{self, Faults};

/// Configuration on a route or in a global rule.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Path that batches are sent to; `/apisix/batch-requests` when absent.
    pub uri: Option<String>,
    /// Longest batch in bytes; that of the metadata when absent.
    #[schemars(range(min = 1, max = 67108864))]
    pub max_body_size: Option<u64>,
    /// Most requests in a batch; that of the metadata when absent.
    #[schemars(range(min = 1, max = 10000))]
    pub max_pipeline_items: Option<usize>,
    /// Most bytes of all answers of a batch together; a request whose answer would be beyond them fails.
    #[serde(default = "ten_mebibytes")]
    #[schemars(range(min = 1, max = 268435456))]
    pub max_response_size: u64,
    /// Longest time in milliseconds that a batch may ask for.
    #[serde(default = "minute")]
    #[schemars(range(min = 1, max = 3600000))]
    pub max_timeout: u64,
}

/// `plugin_metadata/batch-requests`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Metadata {
    /// Longest batch in bytes.
    #[serde(default = "mebibyte")]
    #[schemars(range(min = 1, max = 67108864))]
    pub max_body_size: u64,
    /// Most requests in a batch.
    #[serde(default = "thousand")]
    #[schemars(range(min = 1, max = 10000))]
    pub max_pipeline_items: usize,
}

impl Default for Metadata {
    fn default() -> Metadata {
        Metadata { max_body_size: mebibyte(), max_pipeline_items: thousand() }
    }
}

fn mebibyte() -> u64 {
    1 << 20
}

fn ten_mebibytes() -> u64 {
    10 << 20
}

fn thousand() -> usize {
    1000
}

fn minute() -> u64 {
    60_000
}

fn check_sizes(body: u64, items: usize, faults: &mut Faults) {
    faults.range("max_body_size", body, 1, 64 << 20);
    faults.range("max_pipeline_items", items, 1, 10_000);
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        if self.uri.as_ref().is_some_and(|uri| !uri.starts_with('/')) {
            faults.add("uri", "expected a path that starts with /");
        }
        check_sizes(self.max_body_size.unwrap_or(1), self.max_pipeline_items.unwrap_or(1), faults);
        faults.range("max_response_size", self.max_response_size, 1, 256 << 20);
        faults.range("max_timeout", self.max_timeout, 1, 3_600_000);
    }
}

impl check::Config for Metadata {
    fn validate(&self, faults: &mut Faults) {
        check_sizes(self.max_body_size, self.max_pipeline_items, faults);
    }
}
