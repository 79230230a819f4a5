//! What a client holds: encoded resources that were accepted, with their versions. It knows no stream and no file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::{SetResource, TypedUpdate};
use crate::codec::{InvalidResource, decode_body};
use crate::model::{Kind, Resource};
use crate::protocol::RawResource;

/// Resources of one kind that are held. Bounds what a control plane can make an agent remember.
const MAX_HELD: usize = 500_000;

/// A resource that is held.
#[derive(Clone, PartialEq, Eq)]
pub struct Held {
    /// Its version.
    pub version: Arc<str>,
    /// The encoded resource.
    pub body: Bytes,
}

impl fmt::Debug for Held {
    /// Without the body: key material never reaches a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Held({:?}, {} bytes)", self.version, self.body.len())
    }
}

/// What a client holds, by kind and name. Cloning shares all of it until one side changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holdings {
    kinds: [Arc<BTreeMap<Arc<str>, Held>>; Kind::ALL.len()],
}

impl Holdings {
    /// One resource.
    pub fn get(&self, kind: Kind, name: &str) -> Option<&Held> {
        self.kinds[kind.index()].get(name)
    }

    /// All of a kind, by name.
    pub fn list(&self, kind: Kind) -> impl Iterator<Item = (&Arc<str>, &Held)> {
        self.kinds[kind.index()].iter()
    }

    /// Number of resources of a kind.
    pub fn count(&self, kind: Kind) -> usize {
        self.kinds[kind.index()].len()
    }

    /// Adds or replaces a resource.
    pub fn insert(&mut self, kind: Kind, name: Arc<str>, held: Held) {
        Arc::make_mut(&mut self.kinds[kind.index()]).insert(name, held);
    }

    /// Removes a resource.
    pub fn remove(&mut self, kind: Kind, name: &str) -> Option<Held> {
        Arc::make_mut(&mut self.kinds[kind.index()]).remove(name)
    }

    /// Removes everything of a kind.
    pub fn clear(&mut self, kind: Kind) {
        self.kinds[kind.index()] = Arc::default();
    }

    /// Everything as updates, as if it came anew. What cannot be decoded (written by another release) is rejected in them.
    pub fn updates(&self) -> Vec<TypedUpdate> {
        let update = |kind: Kind| {
            let mut update = TypedUpdate { kind, set: Vec::new(), removed: Vec::new(), rejected: Vec::new() };
            for (name, held) in self.list(kind) {
                match decode_body(kind, &held.body) {
                    Ok(resource) => update.set.push(SetResource { name: name.clone(), version: held.version.clone(), resource }),
                    Err(fault) => update.rejected.push(InvalidResource { name: name.clone(), ..fault }),
                }
            }
            update
        };
        Kind::ALL.into_iter().map(update).filter(|update| !update.set.is_empty() || !update.rejected.is_empty()).collect()
    }

    /// Forgets what was rejected, so that it is asked for again.
    pub fn forget(&mut self, rejected: &[InvalidResource]) {
        for fault in rejected {
            self.remove(fault.kind, &fault.name);
        }
    }

    /// Whether one more resource of this name may be held.
    fn room(&self, kind: Kind, name: &str) -> bool {
        let held = &self.kinds[kind.index()];
        held.len() < MAX_HELD || held.contains_key(name)
    }
}

/// Resources of a response that decoded, on their way to become holdings.
#[derive(Debug)]
pub(super) struct Candidates {
    pub(super) kind: Kind,
    pub(super) set: BTreeMap<Arc<str>, Held>,
    pub(super) removed: Vec<Arc<str>>,
    pub(super) rejected: Vec<InvalidResource>,
}

impl Candidates {
    pub(super) fn new(kind: Kind) -> Candidates {
        Candidates { kind, set: BTreeMap::new(), removed: Vec::new(), rejected: Vec::new() }
    }

    /// Decodes one resource; a fault is noted under the name that the response or the resource itself says.
    pub(super) fn decode(&mut self, raw: &RawResource, holdings: &Holdings) -> Option<(Arc<str>, Resource)> {
        let kind = self.kind;
        let fault = |name: &Arc<str>, field: &str, reason: String| InvalidResource {
            kind,
            name: name.clone(),
            field: field.to_string(),
            reason,
        };
        let checked = if *raw.type_url == *kind.type_url() {
            decode_body(kind, &raw.body)
        } else {
            Err(fault(&raw.name, "@type", format!("expected {}, found {:.200?}", kind.type_url(), raw.type_url)))
        };
        let outcome = match checked {
            Ok(resource) if !raw.name.is_empty() && resource.name() != &raw.name => {
                Err(fault(&raw.name, "name", format!("the resource calls itself {:.200?}", resource.name())))
            }
            Ok(resource) if !holdings.room(kind, resource.name()) => {
                Err(fault(resource.name(), "", format!("more than {MAX_HELD} resources of a kind are not held")))
            }
            Ok(resource) => Ok(resource),
            Err(found) if raw.name.is_empty() => Err(found),
            Err(found) => Err(InvalidResource { name: raw.name.clone(), ..found }),
        };
        match outcome {
            Ok(resource) => Some((resource.name().clone(), resource)),
            Err(fault) => {
                self.rejected.push(fault);
                None
            }
        }
    }

    /// The names that a consumer may refuse.
    pub(super) fn touches(&self, name: &str) -> bool {
        self.set.contains_key(name) || self.removed.iter().any(|removed| &**removed == name)
    }

    /// Records what the consumer accepted; what is returned is refused.
    pub(super) fn settle(self, rejected: &[InvalidResource], holdings: &mut Holdings) -> Vec<InvalidResource> {
        let mut refused = self.rejected;
        refused.extend(rejected.iter().filter(|fault| fault.kind == self.kind && self.set.contains_key(&fault.name)).cloned());
        let bad: BTreeSet<&str> = refused.iter().map(|fault| &*fault.name).collect();
        for (name, held) in self.set {
            if !bad.contains(&*name) {
                holdings.insert(self.kind, name, held);
            }
        }
        for name in &self.removed {
            holdings.remove(self.kind, name);
        }
        refused
    }
}
