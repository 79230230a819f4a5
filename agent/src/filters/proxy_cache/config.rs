//! Configuration of `proxy-cache`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::check::{self, Faults};

/// Configuration on a route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Where answers are kept: `memory`, or `disk`, which outlives a restart and has a memory before it.
    #[serde(default)]
    pub cache_strategy: Strategy,
    /// Zone whose room is used; zones are described in `plugin_metadata/proxy-cache`, one that is not has the defaults.
    #[serde(default = "cache_zone")]
    #[schemars(length(min = 1, max = 100))]
    pub cache_zone: String,
    /// Texts with variables that tell answers of this route apart.
    #[serde(default = "cache_key")]
    #[schemars(length(min = 1))]
    pub cache_key: Vec<String>,
    /// Texts with variables; when one is neither empty nor `0`, nothing kept is used for the request.
    #[serde(default)]
    pub cache_bypass: Vec<String>,
    /// Texts with variables; when one is neither empty nor `0`, the answer is not kept.
    #[serde(default)]
    pub no_cache: Vec<String>,
    /// Methods that are cached; HEAD is answered from what GET has kept.
    #[serde(default = "cache_method")]
    #[schemars(length(min = 1))]
    pub cache_method: Vec<CacheMethod>,
    /// Statuses that are kept.
    #[serde(default = "cache_http_status")]
    #[schemars(length(min = 1))]
    pub cache_http_status: Vec<u16>,
    /// Whether the client is not told `Cache-Control` and `Expires` of the upstream.
    #[serde(default)]
    pub hide_cache_headers: bool,
    /// Whether RFC 9111 is heeded in full: `Cache-Control` of requests, and with `memory` that of answers too. With `disk` that of answers always is.
    #[serde(default)]
    pub cache_control: bool,
    /// Seconds that an answer in `memory` is fresh which does not say so itself; with `disk` it is `cache_ttl` of the zone.
    #[serde(default = "cache_ttl")]
    #[schemars(range(min = 1))]
    pub cache_ttl: u64,
    /// Whether each consumer has answers of its own, and each user whom `openid-connect` lets in.
    #[serde(default = "yes")]
    pub consumer_isolation: bool,
    /// Whether answers that set cookies are kept, cookies and all.
    #[serde(default)]
    pub cache_set_cookie: bool,
    /// Longest body in bytes that is kept.
    #[serde(default = "max_resp_body_size")]
    #[schemars(range(min = 1))]
    pub max_resp_body_size: u64,
    /// Seconds that a stale answer is served while it is fetched anew, where it does not say so itself (RFC 5861).
    #[serde(default)]
    pub stale_while_revalidate: u64,
    /// Seconds that a stale answer is served when the upstream fails, where it does not say so itself (RFC 5861).
    #[serde(default)]
    pub stale_if_error: u64,
}

/// Where answers are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Strategy {
    /// Below the data directory, with a memory before it.
    #[default]
    Disk,
    /// In memory.
    Memory,
}

/// A method that may be cached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum CacheMethod {
    /// GET.
    Get,
    /// HEAD.
    Head,
    /// POST; what tells its answers apart must stand in `cache_key`.
    Post,
}

/// `plugin_metadata/proxy-cache`: how much room there is.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Metadata {
    /// Zones by name.
    #[serde(default)]
    pub zones: Vec<ZoneConfig>,
}

/// Room for answers.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ZoneConfig {
    /// Name.
    #[schemars(length(min = 1, max = 100))]
    pub name: String,
    /// Bytes in memory.
    #[serde(default = "memory_size")]
    #[schemars(range(min = 1024))]
    pub memory_size: u64,
    /// Bytes on disk.
    #[serde(default = "disk_size")]
    #[schemars(range(min = 1024))]
    pub disk_size: u64,
    /// Folder on disk; below the data directory when absent. No other process may use it.
    #[schemars(length(min = 1))]
    pub disk_path: Option<String>,
    /// Seconds that an answer on disk is fresh which does not say so itself.
    #[serde(default = "zone_ttl")]
    pub cache_ttl: u64,
}

impl ZoneConfig {
    /// The zone of this name where nobody has described one.
    pub(super) fn usual(name: &str) -> ZoneConfig {
        ZoneConfig {
            name: name.to_owned(),
            memory_size: memory_size(),
            disk_size: disk_size(),
            disk_path: None,
            cache_ttl: zone_ttl(),
        }
    }
}

fn cache_zone() -> String {
    "disk_cache_one".to_owned()
}

fn cache_key() -> Vec<String> {
    vec!["$host".to_owned(), "$request_uri".to_owned()]
}

fn cache_method() -> Vec<CacheMethod> {
    vec![CacheMethod::Get, CacheMethod::Head]
}

fn cache_http_status() -> Vec<u16> {
    vec![200, 301, 404]
}

fn cache_ttl() -> u64 {
    300
}

fn yes() -> bool {
    true
}

fn max_resp_body_size() -> u64 {
    67_108_864
}

/// 50 MiB, as zones of APISIX.
fn memory_size() -> u64 {
    52_428_800
}

/// 1 GiB, as zones of APISIX.
fn disk_size() -> u64 {
    1_073_741_824
}

fn zone_ttl() -> u64 {
    10
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        zone_name("cache_zone", &self.cache_zone, faults);
        for (field, list) in [("cache_key", &self.cache_key), ("cache_bypass", &self.cache_bypass), ("no_cache", &self.no_cache)]
        {
            for (index, text) in list.iter().enumerate() {
                if text.is_empty() {
                    faults.add(format!("{field}[{index}]"), "string too short, expected at least 1, got 0");
                }
            }
        }
        let lists = [
            ("cache_key", self.cache_key.is_empty()),
            ("cache_method", self.cache_method.is_empty()),
            ("cache_http_status", self.cache_http_status.is_empty()),
        ];
        for (field, _) in lists.into_iter().filter(|(_, empty)| *empty) {
            faults.add(field, "expect array to have at least 1 items");
        }
        for (index, status) in self.cache_http_status.iter().enumerate() {
            faults.range(&format!("cache_http_status[{index}]"), *status, 200, 599);
        }
        faults.range("cache_ttl", self.cache_ttl, 1, u64::MAX);
        faults.range("max_resp_body_size", self.max_resp_body_size, 1, u64::MAX);
    }
}

impl check::Config for Metadata {
    fn validate(&self, faults: &mut Faults) {
        for (index, zone) in self.zones.iter().enumerate() {
            zone_name(&format!("zones[{index}].name"), &zone.name, faults);
            if self.zones[..index].iter().any(|other| other.name == zone.name) {
                faults.add(format!("zones[{index}].name"), "expected a name that no other zone has");
            }
            faults.range(&format!("zones[{index}].memory_size"), zone.memory_size, 1024, u64::MAX);
            faults.range(&format!("zones[{index}].disk_size"), zone.disk_size, 1024, u64::MAX);
            if zone.disk_path.as_deref() == Some("") {
                faults.add(format!("zones[{index}].disk_path"), "string too short, expected at least 1, got 0");
            }
        }
    }
}

/// The name becomes that of a folder.
fn zone_name(path: &str, name: &str, faults: &mut Faults) {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if name.is_empty() || name.len() > 100 || !plain {
        faults.add(path, "expected 1 to 100 letters, digits, - and _");
    }
}
