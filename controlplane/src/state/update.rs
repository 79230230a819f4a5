//! What providers report, and what became of it. Values only.

use std::fmt;
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
    /// Where its resources stand, so that faults can be told with their place.
    pub places: Places,
}

/// Tells where something of a source stands, for example in which line of a file.
pub trait Locate: Send + Sync {
    /// The place of `path` (as in a fault) of the resource `key` (without `@`), for example `routes.yaml:3:7`. `None` when it is not known.
    fn place(&self, key: &Key, path: &str) -> Option<String>;
}

/// The places of a source, kept while its content is being judged. Two updates that differ only in places are equal.
#[derive(Clone, Default)]
pub struct Places(Option<Arc<dyn Locate>>);

impl Places {
    /// Places as `locate` knows them.
    pub fn new(locate: Arc<dyn Locate>) -> Places {
        Places(Some(locate))
    }

    /// `place: message`, or the message alone when the place is not known.
    pub(super) fn tell(&self, key: &Key, path: &str, message: &str) -> String {
        match self.0.as_ref().and_then(|locate| locate.place(&key.local(), path)) {
            Some(place) => format!("{place}: {message}"),
            None => message.to_owned(),
        }
    }
}

impl PartialEq for Places {
    fn eq(&self, _: &Places) -> bool {
        true
    }
}

impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Places(known)" } else { "Places(unknown)" })
    }
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
