//! What somebody wants changed in the store, what became of it, and why it was refused. Values only.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::{State, Stored};
use crate::model::{Fault, Key, ResourceKind};
use crate::store::{Revision, StoreError};

/// What must hold for an intent to go ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Any,
    /// It exists and was last changed by this revision (`If-Match`).
    Modified(Revision),
    /// It does not exist (`If-None-Match: *`).
    Absent,
}

/// One wish of one transaction. A transaction is applied whole or not at all, in any order of its intents.
#[derive(Debug, Clone, PartialEq)]
pub enum Intent {
    /// Creates or replaces.
    Put {
        /// What.
        key: Key,
        /// The whole new value. `id`, `create_time` and `update_time` are filled in by the keeper.
        value: Value,
        /// Deleted by itself at this time (Unix milliseconds).
        expires_at_ms: Option<u64>,
        /// What must hold.
        expect: Expect,
    },
    /// Creates under a new id: the coming revision, in twenty digits.
    Create {
        /// What.
        kind: ResourceKind,
        /// The whole value.
        value: Value,
        /// Deleted by itself at this time (Unix milliseconds).
        expires_at_ms: Option<u64>,
    },
    /// Deletes; a consumer takes its credentials along.
    Delete {
        /// What.
        key: Key,
        /// What must hold. It must exist in any case.
        expect: Expect,
    },
}

impl Intent {
    /// Creates or replaces, whatever is there.
    pub fn put(key: Key, value: Value) -> Intent {
        Intent::Put { key, value, expires_at_ms: None, expect: Expect::Any }
    }

    /// Deletes, whatever is there.
    pub fn delete(key: Key) -> Intent {
        Intent::Delete { key, expect: Expect::Any }
    }
}

/// How a transaction is to be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Who: the name of the admin key, as the history will show it.
    pub author: Arc<str>,
    /// Do everything but storing and publishing.
    pub dry_run: bool,
    /// Delete even what others still refer to.
    pub force: bool,
    /// Write nothing for a `Put` that changes nothing.
    pub skip_unchanged: bool,
    /// Only when the store is at this revision.
    pub at_revision: Option<Revision>,
}

impl Options {
    /// A plain write by `author`.
    pub fn by(author: impl Into<Arc<str>>) -> Options {
        Options { author: author.into(), dry_run: false, force: false, skip_unchanged: false, at_revision: None }
    }
}

/// What an intent did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It did not exist before.
    Created,
    /// It did.
    Replaced,
    /// It was the same already (only with [`Options::skip_unchanged`]).
    Unchanged,
    /// It is gone.
    Deleted,
}

/// One resource after a transaction.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Which.
    pub key: Key,
    /// What happened.
    pub effect: Effect,
    /// What is believed now; for a deletion what was believed before.
    pub stored: Arc<Stored>,
}

/// A transaction that was carried out.
#[derive(Debug, Clone)]
pub struct Applied {
    /// The revision that holds it (for a dry run the one that it would have got).
    pub revision: Revision,
    /// One for each intent, in their order; deletions that follow from others at the end.
    pub outcomes: Vec<Outcome>,
    /// What is believed from now on (for a dry run: what would be).
    pub state: Arc<State>,
}

/// Why a transaction was refused. Nothing of it was stored.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The configuration would not be valid.
    #[error("{}", lines(.0))]
    Invalid(Vec<(Key, Fault)>),
    /// What is to be deleted does not exist.
    #[error("{0} does not exist")]
    NotFound(Key),
    /// Somebody else wrote in between, or it exists already.
    #[error("{key} is {}, expected {}", Seen(*found), Seen(*expected))]
    Conflict {
        /// What.
        key: Key,
        /// The revision that was expected, `None` for absence.
        expected: Option<Revision>,
        /// The revision that was found, `None` for absence.
        found: Option<Revision>,
    },
    /// The store has moved on since the configuration was read.
    #[error(
        "the store is at revision {found}, expected {expected}: somebody else wrote in between; look at what changed and try again"
    )]
    Moved {
        /// The revision that was expected.
        expected: Revision,
        /// The revision that it is at.
        found: Revision,
    },
    /// It came from a provider and can only be changed there.
    #[error(
        "{key} comes from the provider `{provider}` and can only be changed there; a resource of your own needs an id without `@`"
    )]
    ReadOnly {
        /// What.
        key: Key,
        /// Where it comes from.
        provider: String,
    },
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The process is going down.
    #[error("the control plane is shutting down; try again on another one or later")]
    Closed,
}

struct Seen(Option<Revision>);

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(revision) => write!(f, "at revision {revision}"),
            None => f.write_str("absent"),
        }
    }
}

fn lines(faults: &[(Key, Fault)]) -> String {
    let lines: Vec<String> = faults.iter().map(|(key, fault)| format!("{key}: {fault}")).collect();
    lines.join("\n")
}

/// Judges a configuration before it is stored. A function of its arguments.
pub trait Validator: Send + Sync {
    /// The faults of `changed` within `candidate`, which already holds the change. A key of `changed` that exists is
    /// checked completely, references included; one that does not exist was removed, and is a fault when something of
    /// `candidate` still refers to it.
    fn check(&self, candidate: &State, changed: &[Key]) -> Vec<(Key, Fault)>;
}
