//! Paths and parameters of requests, safely written. It sends nothing.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::consul::settings::Consistency;

/// What stays as it is in a segment of a path and in a value.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Where in Consul, when it is not where the settings say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope {
    /// Datacenter.
    pub datacenter: Option<String>,
    /// Namespace; sent only when it is set, as only Consul Enterprise has them.
    pub namespace: Option<String>,
}

/// A path with its parameters.
#[derive(Debug, Clone)]
pub(in crate::consul) struct Query {
    text: String,
    begun: bool,
}

impl Query {
    /// A path whose segments need no encoding.
    pub(in crate::consul) fn new(path: &str) -> Query {
        Query { text: path.to_owned(), begun: false }
    }

    /// Adds one segment.
    pub(in crate::consul) fn segment(mut self, segment: &str) -> Query {
        self.text.push('/');
        self.text.extend(utf8_percent_encode(segment, PLAIN));
        self
    }

    /// Adds segments that are divided by slashes, as keys are.
    pub(in crate::consul) fn segments(self, path: &str) -> Query {
        path.split('/').fold(self, |query, segment| query.segment(segment))
    }

    /// Adds a parameter.
    pub(in crate::consul) fn with(mut self, name: &str, value: &str) -> Query {
        self.push(name);
        self.text.push('=');
        self.text.extend(utf8_percent_encode(value, PLAIN));
        self
    }

    /// Adds a parameter without value.
    pub(in crate::consul) fn flag(mut self, name: &str) -> Query {
        self.push(name);
        self
    }

    /// Adds a parameter that may be missing.
    pub(in crate::consul) fn option(self, name: &str, value: Option<&str>) -> Query {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// Adds where in Consul it is asked.
    pub(in crate::consul) fn scope(self, scope: &Scope) -> Query {
        self.option("dc", scope.datacenter.as_deref()).option("ns", scope.namespace.as_deref())
    }

    /// Adds how fresh the answer must be.
    pub(in crate::consul) fn consistency(self, consistency: Consistency) -> Query {
        match consistency {
            Consistency::Default => self,
            Consistency::Stale => self.flag("stale"),
            Consistency::Consistent => self.flag("consistent"),
        }
    }

    /// The whole target.
    pub(in crate::consul) fn text(&self) -> &str {
        &self.text
    }

    fn push(&mut self, name: &str) {
        self.text.push(if self.begun { '&' } else { '?' });
        self.text.push_str(name);
        self.begun = true;
    }
}
