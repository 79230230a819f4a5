//! Configuration of `zstd`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::check::{self, Faults};
use super::super::compress::{HttpVersion, Types};

/// Configuration on a route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Media types of responses that are compressed, or `"*"` for all.
    #[serde(default)]
    pub types: Types,
    /// Media types that are not compressed although `types` holds them.
    #[serde(default)]
    pub excluded_types: Vec<String>,
    /// Shortest body in bytes that is compressed; one whose length is not known beforehand is always compressed.
    #[serde(default = "min_length")]
    #[schemars(range(min = 1))]
    pub min_length: u64,
    /// Effort, from 1 (fast) to 19 (small).
    #[serde(default = "comp_level")]
    #[schemars(range(min = 1, max = 19))]
    pub comp_level: u8,
    /// Size of the window as a power of two, 10 to 23 (8 MiB, the most that clients must take); it is most of the memory that a response needs.
    #[serde(default = "window_log")]
    #[schemars(range(min = 10, max = 23))]
    pub window_log: u8,
    /// Lowest version of the request, 1.0 or 1.1.
    #[serde(default)]
    pub http_version: HttpVersion,
    /// Whether `Vary: Accept-Encoding` is added, so that caches keep answers apart.
    #[serde(default)]
    pub vary: bool,
    /// Whether this coding is chosen where the client leaves the choice: it sends no `Accept-Encoding`, or `*`.
    #[serde(default)]
    pub default_encoding: bool,
    /// Place among the codings that the client likes equally; higher goes before.
    #[serde(default = "preference")]
    #[schemars(range(min = 0, max = 100))]
    pub preference: u8,
    /// Whether, of the codings that the client likes equally, the one that it names first counts, before `preference`. One without it goes before all that have it.
    #[serde(default)]
    pub client_order: bool,
}

fn min_length() -> u64 {
    20
}

fn comp_level() -> u8 {
    3
}

fn window_log() -> u8 {
    19
}

fn preference() -> u8 {
    30
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        self.types.check(&self.excluded_types, faults);
        faults.range("min_length", self.min_length, 1, u64::MAX);
        faults.range("comp_level", self.comp_level, 1, 19);
        faults.range("window_log", self.window_log, 10, 23);
        faults.range("preference", self.preference, 0, 100);
    }
}
