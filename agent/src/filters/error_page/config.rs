//! Configuration of `error-page`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::check::{self, Faults};
use super::super::fields::is_name;
use super::statuses::Statuses;
use crate::http::chars::is_value;

/// Configuration on a route; empty for the pages of the metadata alone.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Pages by status, such as `404`, `500-599` or `502,504`, for the gateway's answers and the upstream's.
    #[serde(default)]
    pub pages: BTreeMap<String, Page>,
    /// Statuses, such as `404`, `500-599` or `502,504`, whose page is what this gateway itself answers to `query`.
    #[serde(default)]
    pub status: Vec<String>,
    /// Path and query of the page, asked for with GET: `{status}` is the new status, `{originalStatus}` the one that was, `{url}` the URL that failed.
    #[serde(default = "query")]
    pub query: String,
    /// Host that the page is asked for at; that of the request when absent.
    pub host: Option<String>,
    /// New statuses by statuses.
    #[serde(default)]
    pub status_rewrites: BTreeMap<String, u16>,
    /// Fields of the request that go with the question for the page; all when absent.
    pub error_request_headers: Option<Vec<String>>,
    /// Longest page in bytes; where one is longer, the error stays as it is.
    #[serde(default = "max_size")]
    #[schemars(range(min = 1))]
    pub max_page_size: u64,
}

/// A page.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    /// Its content.
    #[schemars(length(min = 1))]
    pub body: String,
    /// Its `Content-Type`.
    #[serde(default = "html")]
    pub content_type: String,
}

/// `plugin_metadata/error-page`: pages for the gateway's own answers.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Metadata {
    /// Whether these pages are shown.
    #[serde(default)]
    pub enable: bool,
    /// For status 404.
    pub error_404: Option<Page>,
    /// For status 500.
    pub error_500: Option<Page>,
    /// For status 502.
    pub error_502: Option<Page>,
    /// For status 503.
    pub error_503: Option<Page>,
}

fn query() -> String {
    "/{status}".to_owned()
}

fn html() -> String {
    "text/html".to_owned()
}

fn max_size() -> u64 {
    1024 * 1024
}

impl Metadata {
    /// The pages with their statuses and fields.
    pub(super) fn pages(&self) -> impl Iterator<Item = (u16, &'static str, &Page)> {
        let all = [
            (404, "error_404", &self.error_404),
            (500, "error_500", &self.error_500),
            (502, "error_502", &self.error_502),
            (503, "error_503", &self.error_503),
        ];
        all.into_iter().filter_map(|(status, field, page)| Some((status, field, page.as_ref()?)))
    }
}

fn check_page(path: &str, page: &Page, faults: &mut Faults) {
    if page.body.is_empty() {
        faults.add(format!("{path}.body"), "string too short, expected at least 1");
    }
    if page.content_type.is_empty() || !is_value(page.content_type.as_bytes()) {
        faults.add(format!("{path}.content_type"), "expected a media type");
    }
}

fn check_statuses(path: String, text: &str, faults: &mut Faults) {
    if let Err(error) = Statuses::default().add(text, &()) {
        faults.add(path, error);
    }
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        for (text, page) in &self.pages {
            check_statuses(format!("pages.{text}"), text, faults);
            check_page(&format!("pages.{text}"), page, faults);
        }
        for (index, text) in self.status.iter().enumerate() {
            check_statuses(format!("status[{index}]"), text, faults);
        }
        for (text, status) in &self.status_rewrites {
            check_statuses(format!("status_rewrites.{text}"), text, faults);
            faults.range(&format!("status_rewrites.{text}"), *status, 200, 599);
        }
        if !self.query.starts_with('/') || self.query.chars().any(|c| c.is_whitespace() || c.is_control() || c == '#') {
            faults.add("query", "expected a path that starts with /, with or without a query");
        }
        let bad = |c: char| c.is_whitespace() || c.is_control() || c == '/';
        if self.host.as_deref().is_some_and(|host| host.is_empty() || host.contains(bad)) {
            faults.add("host", "expected a host with an optional port");
        }
        for (index, name) in self.error_request_headers.iter().flatten().enumerate().filter(|(_, name)| !is_name(name)) {
            faults.add(format!("error_request_headers[{index}]"), format!("expected the name of a header field, got \"{name}\""));
        }
        faults.range("max_page_size", self.max_page_size, 1, u64::MAX);
    }
}

impl check::Config for Metadata {
    fn validate(&self, faults: &mut Faults) {
        for (_, field, page) in self.pages() {
            check_page(field, page, faults);
        }
    }
}
