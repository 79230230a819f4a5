//! What providers report, and what became of it. Values only.

use std::sync::Arc;

use serde_json::Value;

use crate::model::Key;

/// What one source of a provider (for example one file) holds now.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    /// The provider's name, the part behind `@`.
    pub provider: Arc<str>,
    /// Which of its sources: a path, a catalog name. The last good content is kept per source.
    pub source: Arc<str>,
    /// What it holds.
    pub content: Content,
}

/// The content of a source.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// Everything that it holds now; what it held before and is not here is removed. Keys are as written, without `@`.
    Whole(Vec<(Key, Value)>),
    /// It exists no more.
    Gone,
    /// It cannot be read or parsed, for these reasons (one a line, each with its place); its last good content stays.
    Broken(Vec<String>),
}

/// How a source stands, for `GET /admin/status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceStatus {
    /// The provider's name.
    pub provider: Arc<str>,
    /// Which of its sources.
    pub source: Arc<str>,
    /// How many resources of it are believed.
    pub resources: usize,
    /// When its present content was taken over (Unix milliseconds), `None` when none ever was.
    pub accepted_ms: Option<u64>,
    /// When something newer was refused (Unix milliseconds), `None` when nothing newer waits.
    pub refused_ms: Option<u64>,
    /// Why, one fault each.
    pub errors: Vec<String>,
}
