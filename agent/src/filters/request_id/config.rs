//! Configuration of `request-id`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::check::{self, Faults};
use super::super::fields::is_name;

/// Configuration on a route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Field that carries the id, in requests and responses.
    #[serde(default = "header_name")]
    #[schemars(length(min = 1))]
    pub header_name: String,
    /// Whether the response carries the id too.
    #[serde(default = "yes")]
    pub include_in_response: bool,
    /// How an id is made.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// Form of the ids of `range_id`.
    #[serde(default)]
    pub range_id: RangeId,
}

/// How an id is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Algorithm {
    /// Random UUID, version 4 (RFC 9562 section 5.4).
    #[default]
    Uuid,
    /// 21 characters of the URL-safe alphabet.
    Nanoid,
    /// Characters of a set of one's own.
    RangeId,
    /// Time-ordered, 27 characters of base 62.
    Ksuid,
    /// Time-ordered UUID, version 7 (RFC 9562 section 5.7).
    Uuidv7,
}

/// Form of the ids of `range_id`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RangeId {
    /// Number of characters.
    #[serde(default = "length")]
    #[schemars(range(min = 6, max = 256))]
    pub length: u16,
    /// Characters to choose from.
    #[serde(default = "char_set")]
    #[schemars(length(min = 6))]
    pub char_set: String,
}

impl Default for RangeId {
    fn default() -> Self {
        RangeId { length: length(), char_set: char_set() }
    }
}

fn header_name() -> String {
    "X-Request-Id".to_owned()
}

fn yes() -> bool {
    true
}

fn length() -> u16 {
    16
}

fn char_set() -> String {
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789".to_owned()
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        if !is_name(&self.header_name) {
            faults.add("header_name", format!("expected the name of a header field, got \"{}\"", self.header_name));
        }
        faults.range("range_id.length", self.range_id.length, 6, 256);
        faults.range("range_id.char_set", self.range_id.char_set.len(), 6, 256);
        if !self.range_id.char_set.bytes().all(|byte| byte.is_ascii_graphic()) {
            faults.add("range_id.char_set", "expected printable ASCII characters");
        }
    }
}
