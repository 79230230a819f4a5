//! What `heddle explain` asks and hears. Values only: who can answer (it takes both the translation and the agent's way of matching) is handed in.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value;

use crate::mesh::Directory;
use crate::state::State;

/// An imagined request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Request method.
    pub method: String,
    /// `http://host:port/path?query`, or a path alone.
    pub url: String,
    /// Header fields, in order.
    pub headers: Vec<(String, String)>,
    /// Where it comes from.
    pub remote: IpAddr,
    /// The consumer that it is taken to come from, `None` for what runs before one is known.
    pub consumer: Option<String>,
    /// Routes that did not match and are told with their reason, at most.
    pub max_reasons: usize,
}

/// What would become of it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Explanation {
    /// Id of the chosen route, `None` when none matches.
    pub route: Option<Arc<str>>,
    /// Why this one, or why none.
    pub why: String,
    /// Other routes, and why they were not chosen.
    pub others: Vec<(Arc<str>, String)>,
    /// Routes left out of `others`.
    pub left_out: u64,
    /// What runs, in order.
    pub plugins: Vec<ExplainedPlugin>,
    /// What is configured but does not run.
    pub silent: Vec<ExplainedPlugin>,
    /// What else is to be known about plugins, subsets and zones, one sentence each.
    pub notes: Vec<String>,
    /// Where the request would go, `None` when plugins answer it.
    pub upstream: Option<ExplainedUpstream>,
}

/// A plugin that would run, or one that would if nothing were in its way.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ExplainedPlugin {
    /// Plugin name.
    pub name: Arc<str>,
    /// The user resource that contributed it.
    pub origin: Arc<str>,
    /// Higher runs first.
    pub priority: i64,
    /// Its configuration.
    pub config: Value,
    /// It runs only for requests for which this expression holds.
    pub condition: Option<Value>,
    /// Only once the consumer is known: it brings this plugin, or hides it.
    pub after_authentication: bool,
    /// Switched off.
    pub disabled: bool,
    /// The user resource whose configuration of the same plugin counts instead.
    pub hidden_by: Option<Arc<str>>,
}

/// Where the request would go.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ExplainedUpstream {
    /// Name of the upstream.
    pub name: Arc<str>,
    /// How an endpoint is chosen.
    pub balancer: String,
    /// Protocol spoken with it.
    pub scheme: String,
    /// `host:port`, weight and priority (higher first) of its endpoints.
    pub endpoints: Vec<(String, u32, i32)>,
}

/// Answers questions about imagined requests.
pub trait Explainer: Send + Sync {
    /// What would become of `question` under `state`, with what `directory` knows of services; an error says what is wrong with the question.
    fn explain(&self, state: &State, directory: &Directory, question: &Question) -> Result<Explanation, String>;
}
