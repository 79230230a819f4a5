//! What operators see of the authority: its roots, how far a rotation is and what it waits for. It changes nothing.

use std::collections::BTreeSet;

use heddle_node::identity::TrustDomain;

use super::authority::{Authority, Book};
use super::holders::Holder;
use super::rotation::{Holding, Phase, RootMeta, Seen, Wait};
use super::sign::Decision;
use crate::store::{Ring, StoreError};

/// One root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootView {
    /// Which.
    pub meta: RootMeta,
    /// It signs.
    pub signing: bool,
    /// Identities that it has signed and that are valid.
    pub live: usize,
    /// When the last of them expires, Unix milliseconds.
    pub last_expiry_ms: Option<u64>,
}

/// Another trust domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Federated {
    /// Its name.
    pub domain: TrustDomain,
    /// Number of its roots.
    pub roots: usize,
    /// What is wrong with its file; empty when nothing is.
    pub trouble: String,
}

/// The whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overview {
    /// Oldest first.
    pub roots: Vec<RootView>,
    /// How far a rotation is.
    pub phase: Phase,
    /// What it waits for.
    pub waits: Vec<Wait>,
    /// Who is told bundles.
    pub holders: Vec<Holder>,
    /// Other trust domains.
    pub federated: Vec<Federated>,
    /// Version of the present bundles.
    pub version: String,
    /// Seconds that an identity is valid.
    pub svid_ttl_seconds: u64,
    /// The authority comes from the operator's files.
    pub external: bool,
}

impl Authority {
    /// All of it, as it is now. `expected` are nodes that are connected, by id.
    pub fn overview(&self, expected: &[String]) -> Overview {
        let trusted = self.0.trusted.borrow().clone();
        let holdings = self.holdings(expected);
        let book = self.0.book.lock();
        let now_ms = self.now_ms();
        let signing = book.rotation.signing().map(|root| root.fingerprint.clone());
        let view = |root: &RootMeta| RootView {
            signing: signing.as_ref() == Some(&root.fingerprint),
            live: book.live.get(&root.fingerprint).map_or(0, |live| live.values().filter(|until| **until >= now_ms).count()),
            last_expiry_ms: book.last_expiry_ms.get(&root.fingerprint).copied().filter(|until| *until >= now_ms),
            meta: root.clone(),
        };
        let federated = |(domain, roots, trouble): (&TrustDomain, usize, &str)| Federated {
            domain: domain.clone(),
            roots,
            trouble: trouble.to_owned(),
        };
        Overview {
            roots: book.rotation.roots.iter().map(view).collect(),
            phase: book.rotation.phase,
            waits: book.rotation.waits(&self.seen(&book, &holdings, &trusted.version)),
            holders: self.0.holders.list(),
            federated: book.federation.list().map(federated).collect(),
            version: trusted.version.to_string(),
            svid_ttl_seconds: self.0.settings.svid_ttl.as_secs(),
            external: self.0.settings.ca.files.is_some(),
        }
    }

    /// Decisions, newest first, each with its number.
    pub async fn journal(
        &self,
        before: Option<u64>,
        limit: usize,
        refused_only: bool,
    ) -> Result<Vec<(u64, Decision)>, StoreError> {
        let mut entries = Vec::new();
        for ring in Ring::ALL.into_iter().filter(|ring| !refused_only || *ring != Ring::Done) {
            entries.extend(self.0.records.journal(ring, before, limit).await?);
        }
        entries.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.number));
        entries.truncate(limit);
        Ok(entries.into_iter().filter_map(|entry| Some((entry.number, Decision::decode(&entry.body)?))).collect())
    }

    /// What connected nodes hold, wherever they are connected.
    pub(super) fn holdings(&self, expected: &[String]) -> Vec<Holding> {
        let mut holdings = self.own_holdings(expected);
        holdings.extend(self.holdings_of_others());
        holdings
    }

    /// What nodes hold that are connected here: those that are told bundles, and those that should be but are not.
    pub(super) fn own_holdings(&self, expected: &[String]) -> Vec<Holding> {
        let holders = self.0.holders.list();
        let told: BTreeSet<&str> = holders.iter().map(|holder| holder.node.as_str()).collect();
        let absent = expected.iter().filter(|node| !told.contains(node.as_str())).cloned().collect();
        let absent = self.without_guests_of_others(absent).into_iter().map(|node| Holding { node, version: None });
        let version = |holder: &Holder| Some(holder.version.clone()).filter(|version| !version.is_empty());
        let held = holders.iter().map(|holder| Holding { node: holder.node.clone(), version: version(holder) });
        held.chain(absent).collect()
    }

    pub(super) fn seen<'a>(&self, book: &'a Book, holdings: &'a [Holding], version: &'a str) -> Seen<'a> {
        let settings = &self.0.settings;
        let ms = |span: std::time::Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Seen {
            now_ms: self.now_ms(),
            spread_ms: ms(settings.ca.spread),
            patience_ms: ms(settings.svid_ttl + settings.clock_skew),
            grace_ms: ms(settings.clock_skew.min(settings.svid_ttl)),
            version,
            holdings,
            last_expiry_ms: &book.last_expiry_ms,
        }
    }
}
