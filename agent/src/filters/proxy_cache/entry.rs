//! A stored answer, or what stands in its place. It knows no store and no request.

use std::sync::Arc;

use bytes::Bytes;

use super::rules::Terms;
use crate::http::{FieldName, Fields};

/// What is stored under a key.
#[derive(Debug)]
pub(super) enum Stored {
    /// An answer.
    Answer(Entry),
    /// Answers differ by these fields of requests; each lies under a key of its own. The nonce keeps those of a marker that is gone out of reach.
    Varies {
        /// The fields.
        names: Box<[FieldName]>,
        /// Different for each marker.
        nonce: u64,
    },
    /// The answer was not to be stored, so nobody waits for one until this moment, in Unix milliseconds.
    Pass(u64),
}

/// A stored answer.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub status: u16,
    /// Fields, laid out to be copied.
    pub fields: Arc<Fields>,
    pub body: Bytes,
    /// When it came, in Unix milliseconds.
    pub stored_ms: u64,
    pub terms: Terms,
}

/// What an entry takes beside its text.
const BESIDE: u64 = 512;

impl Entry {
    /// Its age in seconds.
    pub(super) fn age(&self, now_ms: u64) -> u64 {
        self.terms.initial_age.saturating_add(now_ms.saturating_sub(self.stored_ms) / 1000)
    }
}

impl Stored {
    /// Bytes that it takes, about.
    pub(super) fn weight(&self) -> u64 {
        match self {
            Stored::Answer(entry) => entry.body.len() as u64 + entry.fields.capacity() as u64 + BESIDE,
            Stored::Varies { names, .. } => names.iter().map(|name| name.as_str().len() as u64 + 48).sum::<u64>() + BESIDE,
            Stored::Pass(_) => BESIDE,
        }
    }
}
