//! How the store lies in etcd: its keys, and the forms of their values. It knows no connection.
//!
//! Revisions are ours, dense, and independent of etcd's own, so that its compaction takes nothing from our history. `head` names the newest revision;
//! whoever writes compares it, so that of two writers one has to look again. `log/<revision>` holds what a revision wrote. `base/<floor>/<n>` holds
//! what existed at the oldest revision that is still complete.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::model::{Key, ResourceKind};
use crate::store::{Revision, Ring, StoreError, Version};

/// The layout that this code reads and writes.
pub(super) const FORMAT: u32 = 1;
/// The format of a store that is being restored; no version of heddle begins with it.
pub(super) const RESTORING: u32 = u32::MAX;
/// Bytes of one value; larger ones lie in parts. Etcd takes 1.5 MiB in one request.
pub(super) const PART: usize = 512 << 10;
/// Parts of one revision.
pub(super) const MOST_PARTS: usize = 64;

/// Names of keys below a prefix.
#[derive(Debug, Clone)]
pub(super) struct Keys(pub(super) Arc<str>);

impl Keys {
    pub(super) fn head(&self) -> String {
        format!("{}head", self.0)
    }

    /// All entries of the log begin with this.
    pub(super) fn logs(&self) -> String {
        format!("{}log/", self.0)
    }

    pub(super) fn log(&self, revision: Revision) -> String {
        format!("{}log/{revision:016x}", self.0)
    }

    pub(super) fn part(&self, token: &str, revision: Revision, number: usize) -> String {
        format!("{}part/{token}/{revision:016x}/{number:04x}", self.0)
    }

    /// All parts of one revision begin with this.
    pub(super) fn parts(&self, token: &str, revision: Revision) -> String {
        format!("{}part/{token}/{revision:016x}/", self.0)
    }

    pub(super) fn floor(&self) -> String {
        format!("{}floor", self.0)
    }

    /// All parts of all bases begin with this.
    pub(super) fn bases(&self) -> String {
        format!("{}base/", self.0)
    }

    /// All parts of the base of one revision begin with this.
    pub(super) fn base(&self, floor: Revision) -> String {
        format!("{}base/{floor:016x}/", self.0)
    }

    /// What all keys of a store but `head` begin with.
    pub(super) fn all_but_head(&self) -> Vec<String> {
        ["log/", "part/", "floor", "base/", "rhead", "rec/", "jrn/", "jrr/", "jrp/"]
            .iter()
            .map(|name| format!("{}{name}", self.0))
            .collect()
    }

    pub(super) fn record_head(&self) -> String {
        format!("{}rhead", self.0)
    }

    /// All records begin with this.
    pub(super) fn records(&self) -> String {
        format!("{}rec/", self.0)
    }

    pub(super) fn record(&self, key: &str) -> String {
        format!("{}rec/{key}", self.0)
    }

    /// All entries of a journal begin with this.
    pub(super) fn journals(&self, ring: Ring) -> String {
        let name = match ring {
            Ring::Done => "jrn",
            Ring::Refused => "jrr",
            Ring::Reported => "jrp",
        };
        format!("{}{name}/", self.0)
    }

    pub(super) fn journal(&self, ring: Ring, number: u64) -> String {
        format!("{}{number:016x}", self.journals(ring))
    }

    pub(super) fn lease(&self, name: &str) -> String {
        format!("{}lease/{name}", self.0)
    }
}

/// The number at the end of a key.
pub(super) fn number(key: &[u8]) -> Option<u64> {
    let digits = key.rsplit(|byte| *byte == b'/').next()?;
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// The value of `head`.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) format: u32,
    pub(super) revision: Revision,
    /// Of the transaction that wrote it.
    pub(super) token: String,
}

/// The value of `floor`.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub(super) struct Floor {
    pub(super) revision: Revision,
    /// Parts of its base.
    pub(super) parts: usize,
}

/// The value of `rhead`, which every write of records compares and replaces.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq, Eq)]
pub(super) struct RecordHead {
    /// Of the newest entry of all journals.
    pub(super) journal: u64,
    /// Entries of the journal of what was done.
    pub(super) done: u64,
    /// Entries of the journal of what was refused.
    pub(super) refused: u64,
    /// Entries of the journal of what others said that they have refused. An older Heddle leaves it out: then they are counted anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reported: Option<u64>,
    pub(super) token: String,
    /// Beginnings of the tokens of the writes before it, the newest last: whoever got no answer finds here whether its write was carried out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) recent: Vec<String>,
}

/// What one revision wrote.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) token: String,
    pub(super) author: Arc<str>,
    pub(super) time_ms: u64,
    /// Empty when it lies in parts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) writes: Vec<Written>,
    /// In how many parts the whole entry lies elsewhere.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) parts: usize,
}

fn is_zero(parts: &usize) -> bool {
    *parts == 0
}

/// One resource that a revision wrote.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Written {
    pub(super) key: String,
    pub(super) created: Revision,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) expires_at_ms: Option<u64>,
    /// Absent when it was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub(super) value: Option<Value>,
}

/// A value that is there, `null` included.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(from).map(Some)
}

/// One version in a base.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::store) struct Kept {
    pub(super) revision: Revision,
    pub(super) author: Arc<str>,
    pub(super) time_ms: u64,
    pub(super) written: Written,
}

impl Kept {
    pub(in crate::store) fn of(version: &Version) -> Kept {
        let Version { key, revision, created, value, expires_at_ms, author, time_ms } = version.clone();
        let written = Written { key: name(&key), created, expires_at_ms, value };
        Kept { revision, author, time_ms, written }
    }

    /// The version; or itself, when its kind is not known here.
    pub(in crate::store) fn into_version(self) -> Result<Version, Box<Kept>> {
        let Some(key) = parse(&self.written.key) else { return Err(Box::new(self)) };
        let Kept { revision, author, time_ms, written: Written { created, expires_at_ms, value, .. } } = self;
        Ok(Version { key, revision, created, value, expires_at_ms, author, time_ms })
    }

    /// What the store on etcd calls the resource.
    pub(in crate::store) fn name(&self) -> &str {
        &self.written.key
    }

    /// Whether the resource exists by it.
    pub(super) fn exists(&self) -> bool {
        self.written.value.is_some()
    }
}

/// Versions by what is known of them.
#[derive(Debug, Default)]
pub(super) struct Versions {
    /// Of resources of kinds that this heddle knows.
    pub(super) known: Vec<Version>,
    /// Of others: a newer heddle wrote them while both share the store. They are kept as they are.
    pub(super) foreign: Vec<Kept>,
}

impl Versions {
    /// One more.
    pub(super) fn take(&mut self, kept: Kept) {
        match kept.into_version() {
            Ok(version) => self.known.push(version),
            Err(kept) => self.foreign.push(*kept),
        }
    }
}

impl Entry {
    /// Its versions, in the order of their keys.
    pub(super) fn sorted(self, revision: Revision) -> Versions {
        let Entry { author, time_ms, writes, .. } = self;
        let mut versions = Versions::default();
        writes.into_iter().for_each(|written| versions.take(Kept { revision, author: author.clone(), time_ms, written }));
        versions
    }

    /// Those of resources of kinds that this heddle knows.
    pub(super) fn versions(self, revision: Revision) -> Vec<Version> {
        self.sorted(revision).known
    }
}

/// The name of a resource in the store: `routes/r1`, `credentials/jack/credentials/c1`.
pub(super) fn name(key: &Key) -> String {
    format!("{}/{}", key.kind.plural(), key.id)
}

/// The key of a resource, from its name; `None`: no kind of resource that this version of heddle knows.
fn parse(name: &str) -> Option<Key> {
    name.split_once('/').and_then(|(kind, id)| Some(Key::new(ResourceKind::from_plural(kind)?, id)))
}

/// Writes a form.
pub(super) fn json(form: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(form).map_err(|error| StoreError::Io(format!("a value has no form in JSON: {error}")))
}

/// Reads a form.
pub(super) fn form<T: for<'de> Deserialize<'de>>(key: &[u8], value: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(value).map_err(|error| {
        let key = String::from_utf8_lossy(key);
        StoreError::Unusable(format!("the key {key} of the store on etcd is damaged ({error}); restore the store from a backup"))
    })
}
