//! The life of roots: which are trusted, which one signs, and when the next step may be taken. A machine of values and `now`; it knows neither keys nor
//! connections.
//!
//! A root is replaced in three steps, none of which lets a verified peer become unverified: the new root is added to all bundles; once everybody who is
//! connected holds it (and a minimum time has passed, for those that reconnect), it signs; once nothing that the old root signed is valid, the old
//! root goes. Everything is derived from what is stored, so a restart resumes where it was.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A root by what decides over it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootMeta {
    /// SHA-256 of the certificate, hex.
    pub fingerprint: String,
    /// Unix milliseconds.
    pub not_before_ms: u64,
    /// Unix milliseconds.
    pub not_after_ms: u64,
}

/// Where a rotation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// One root, which signs.
    Steady,
    /// The newest root is in the bundles; the one before it signs.
    Spreading {
        /// Since when, Unix milliseconds.
        since_ms: u64,
    },
    /// The newest root signs; older ones are trusted until nothing that they signed is valid.
    Retiring {
        /// Since when, Unix milliseconds.
        since_ms: u64,
    },
}

/// The roots and where they stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// Oldest first, never empty.
    pub roots: Vec<RootMeta>,
    /// What is under way.
    pub phase: Phase,
}

/// A node that verifies peers with bundles of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// Node id.
    pub node: String,
    /// Version of the bundles that it confirmed; `None`: it is connected but has not said.
    pub version: Option<String>,
}

/// What decides over the next step besides the roots.
#[derive(Debug)]
pub struct Seen<'a> {
    /// Unix milliseconds.
    pub now_ms: u64,
    /// The new root is in the bundles for at least this long before it signs.
    pub spread_ms: u64,
    /// Nobody is waited for longer than this once the new root is in the bundles: whatever a node holds has expired by then, or was renewed, and with a
    /// renewal come the bundles.
    pub patience_ms: u64,
    /// An old root is trusted this much longer than what it signed, for clocks that lag behind.
    pub grace_ms: u64,
    /// Version of the present bundles.
    pub version: &'a str,
    /// Nodes that are connected.
    pub holdings: &'a [Holding],
    /// Latest expiry of what each root has signed, by fingerprint, Unix milliseconds.
    pub last_expiry_ms: &'a BTreeMap<String, u64>,
}

/// Why the next step is not taken yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// The minimum time for spreading.
    Time {
        /// Until when, Unix milliseconds.
        until_ms: u64,
    },
    /// A node that does not hold the present bundles.
    Node {
        /// Which.
        holding: Holding,
        /// Until when it is waited for, Unix milliseconds.
        until_ms: u64,
    },
    /// Identities that an old root has signed.
    Expiry {
        /// The old root.
        fingerprint: String,
        /// When the last of them has expired, Unix milliseconds.
        until_ms: u64,
    },
}

/// A step that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The newest root signs from now on.
    Signs,
    /// These old roots are no longer trusted.
    Dropped(Vec<String>),
}

/// Why a rotation is not begun or not taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// One is under way.
    #[error("a rotation is under way already; `heddle ca show` tells what it waits for")]
    UnderWay,
    /// None is under way, or the new root signs already.
    #[error("no rotation is spreading a new root; one that has begun to sign with it cannot be taken back")]
    NotSpreading,
    /// The new root has been trusted before.
    #[error("this root is trusted already")]
    Known,
}

impl Rotation {
    /// One root that signs.
    pub fn steady(root: RootMeta) -> Rotation {
        Rotation { roots: vec![root], phase: Phase::Steady }
    }

    /// The root that signs; `None` never happens, as there is always a root.
    pub fn signing(&self) -> Option<&RootMeta> {
        match self.phase {
            Phase::Spreading { .. } => self.roots.iter().rev().nth(1).or(self.roots.last()),
            Phase::Steady | Phase::Retiring { .. } => self.roots.last(),
        }
    }

    /// Adds a root to the bundles; it signs later.
    pub fn begin(&mut self, root: RootMeta, now_ms: u64) -> Result<(), Refused> {
        if self.phase != Phase::Steady {
            return Err(Refused::UnderWay);
        }
        if self.roots.iter().any(|other| other.fingerprint == root.fingerprint) {
            return Err(Refused::Known);
        }
        self.roots.push(root);
        self.phase = Phase::Spreading { since_ms: now_ms };
        Ok(())
    }

    /// Takes a root into use at once, because the key of the one before it is gone.
    pub fn replace(&mut self, root: RootMeta, now_ms: u64) {
        self.roots.retain(|other| other.fingerprint != root.fingerprint);
        self.roots.push(root);
        self.phase = if self.roots.len() == 1 { Phase::Steady } else { Phase::Retiring { since_ms: now_ms } };
    }

    /// Forgets the new root, as long as it has not signed; gives its fingerprint.
    pub fn cancel(&mut self) -> Result<String, Refused> {
        match (self.phase, self.roots.len()) {
            (Phase::Spreading { .. }, 2..) => {
                self.phase = Phase::Steady;
                self.roots.pop().map(|root| root.fingerprint).ok_or(Refused::NotSpreading)
            }
            _ => Err(Refused::NotSpreading),
        }
    }

    /// Signs with the new root now, whoever has it.
    pub fn force(&mut self, now_ms: u64) -> Result<(), Refused> {
        match self.phase {
            Phase::Spreading { .. } => {
                self.phase = Phase::Retiring { since_ms: now_ms };
                Ok(())
            }
            _ => Err(Refused::NotSpreading),
        }
    }

    /// What the next step waits for; empty when it may be taken, and when nothing is under way.
    pub fn waits(&self, seen: &Seen<'_>) -> Vec<Wait> {
        match self.phase {
            Phase::Steady => Vec::new(),
            Phase::Spreading { since_ms } => {
                let until_ms = since_ms.saturating_add(seen.spread_ms);
                let time = (seen.now_ms < until_ms).then_some(Wait::Time { until_ms });
                let lacks = |holding: &&Holding| holding.version.as_deref() != Some(seen.version);
                let patience_ms = since_ms.saturating_add(seen.patience_ms.max(seen.spread_ms));
                let waited = seen.holdings.iter().filter(|_| seen.now_ms < patience_ms).filter(lacks).cloned();
                let nodes = waited.map(|holding| Wait::Node { holding, until_ms: patience_ms });
                time.into_iter().chain(nodes).collect()
            }
            Phase::Retiring { .. } => {
                let old = self.old().filter_map(|root| {
                    let until_ms = expiry(root, seen)?;
                    (seen.now_ms <= until_ms).then(|| Wait::Expiry { fingerprint: root.fingerprint.clone(), until_ms })
                });
                old.collect()
            }
        }
    }

    /// Takes the next step when nothing is in its way. Of several old roots each goes as soon as it may.
    pub fn advance(&mut self, seen: &Seen<'_>) -> Option<Step> {
        match self.phase {
            Phase::Steady => None,
            Phase::Spreading { .. } => {
                if !self.waits(seen).is_empty() {
                    return None;
                }
                self.phase = Phase::Retiring { since_ms: seen.now_ms };
                Some(Step::Signs)
            }
            Phase::Retiring { .. } => {
                let live = |root: &RootMeta| expiry(root, seen).is_some_and(|until_ms| seen.now_ms <= until_ms);
                let gone: Vec<String> = self.old().filter(|root| !live(root)).map(|root| root.fingerprint.clone()).collect();
                self.roots.retain(|root| !gone.contains(&root.fingerprint));
                if self.roots.len() == 1 {
                    self.phase = Phase::Steady;
                }
                (!gone.is_empty()).then_some(Step::Dropped(gone))
            }
        }
    }

    /// All roots but the newest.
    fn old(&self) -> impl Iterator<Item = &RootMeta> {
        self.roots.iter().take(self.roots.len().saturating_sub(1))
    }
}

/// Until when a root has to be trusted, as far as it has signed anything.
fn expiry(root: &RootMeta, seen: &Seen<'_>) -> Option<u64> {
    seen.last_expiry_ms.get(&root.fingerprint).map(|last| last.saturating_add(seen.grace_ms))
}
