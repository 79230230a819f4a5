//! Configuration of `referer-restriction`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::check::{self, Faults};

/// Configuration on a route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Only requests from pages of these hosts pass; `*.example.com` stands for all hosts below. Excludes `blacklist`.
    #[schemars(length(min = 1))]
    pub whitelist: Option<Vec<String>>,
    /// Requests from pages of these hosts do not pass; `*.example.com` stands for all hosts below. Excludes `whitelist`.
    #[schemars(length(min = 1))]
    pub blacklist: Option<Vec<String>>,
    /// Whether requests without `Referer`, or with a malformed one, pass.
    #[serde(default)]
    pub bypass_missing: bool,
    /// What a refused client reads.
    #[serde(default = "message")]
    #[schemars(length(min = 1, max = 1024))]
    pub message: String,
}

fn message() -> String {
    "Your referer host is not allowed".to_owned()
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        if self.whitelist.is_some() == self.blacklist.is_some() {
            faults.add("", "value should match only one schema: expected either whitelist or blacklist");
        }
        for (field, list) in [("whitelist", &self.whitelist), ("blacklist", &self.blacklist)] {
            let list = list.as_deref();
            if list.is_some_and(<[String]>::is_empty) {
                faults.add(field, "expect array to have at least 1 items");
            }
            for (index, host) in list.unwrap_or_default().iter().enumerate().filter(|(_, host)| !is_host(host)) {
                faults
                    .add(format!("{field}[{index}]"), format!("expected a host such as a.example or *.example, got \"{host}\""));
            }
        }
        faults.range("message", self.message.chars().count(), 1, 1024);
    }
}

/// Whether the text is a host, with one `*` in front where it stands for many.
fn is_host(text: &str) -> bool {
    let rest = text.strip_prefix('*').unwrap_or(text);
    !rest.is_empty() && rest.len() <= 256 && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte))
}
