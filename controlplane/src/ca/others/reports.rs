//! What control planes tell the leader of the nodes that they serve, so that a root signs only once all nodes hold it, wherever they are connected. It knows
//! no stream.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::ca::authority::Authority;
use crate::ca::error::CaError;
use crate::ca::holders::Holder;
use crate::ca::rotation::{Holding, Phase};
use crate::ca::stored;

/// Nodes that a report names; behind more than these nothing else is decided.
const NAMED: usize = 50;
/// Guests that a report names: nodes whose two streams lie at different control planes, which are few and soon none.
const GUESTS: usize = 2_000;
/// How long a control plane that is not there any more is waited for, in milliseconds: its nodes have that long to connect elsewhere.
const ABSENCE: u64 = 60_000;

/// The control planes beside one store.
#[derive(Debug, Clone)]
pub struct Fellows {
    /// The name of this one.
    pub name: Arc<str>,
    /// The names of all that are there, as they change; `None`: nobody has looked yet.
    pub present: watch::Receiver<Option<BTreeSet<String>>>,
}

/// What one control plane says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::ca) struct Report {
    /// Fingerprints of the roots that its nodes are told of.
    roots: BTreeSet<String>,
    /// Nodes of its own that have not confirmed that.
    behind: BTreeSet<String>,
    /// Nodes that have confirmed it to this one although their configuration comes from another: it is that one's to know.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    guests: BTreeSet<String>,
}

/// What the others say, and since when some of them are not there.
#[derive(Debug, Default)]
pub(in crate::ca) struct Reports {
    of: BTreeMap<String, Report>,
    absent: BTreeMap<String, u64>,
    /// What this one has said.
    own: Option<Report>,
}

impl Reports {
    pub(in crate::ca) fn new(of: BTreeMap<String, Report>) -> Reports {
        Reports { of, ..Reports::default() }
    }

    /// A control plane says something, or (`None`) what it said is forgotten.
    pub(in crate::ca) fn heard(&mut self, name: String, report: Option<Report>) {
        match report {
            Some(report) => drop(self.of.insert(name, report)),
            None => {
                self.of.remove(&name);
                self.absent.remove(&name);
            }
        }
    }

    /// Nodes that have confirmed these roots to other control planes.
    fn confirmed(&self, roots: &BTreeSet<String>) -> BTreeSet<&str> {
        let same = self.of.values().filter(|report| report.roots == *roots);
        same.flat_map(|report| &report.guests).map(String::as_str).collect()
    }

    /// Nodes of others that do not hold these roots, and others of which that is not known.
    fn holdings(&self, fellows: &Fellows, roots: &BTreeSet<String>, now_ms: u64) -> Vec<Holding> {
        let of_plane = |name: &str| Holding { node: format!("control plane {name}"), version: None };
        let present = fellows.present.borrow();
        let Some(present) = &*present else { return vec![of_plane("that was not looked for yet")] };
        let mut holdings = Vec::new();
        for name in present.iter().filter(|name| **name != *fellows.name) {
            match self.of.get(name) {
                Some(report) if report.roots == *roots => {
                    holdings.extend(report.behind.iter().map(|node| Holding { node: node.clone(), version: None }));
                }
                _ => holdings.push(of_plane(name)),
            }
        }
        let fresh = |since: &u64| now_ms < since.saturating_add(ABSENCE);
        holdings.extend(self.absent.iter().filter(|(_, since)| fresh(since)).map(|(name, _)| of_plane(name)));
        holdings
    }

    /// Notes who is not there; gives those that are waited for no longer.
    fn look(&mut self, fellows: &Fellows, now_ms: u64) -> Vec<String> {
        let present = fellows.present.borrow();
        let Some(present) = &*present else { return Vec::new() };
        let is_there = |name: &String| present.contains(name) || **name == *fellows.name;
        self.absent.retain(|name, _| !is_there(name));
        for name in self.of.keys().filter(|name| !is_there(name)) {
            self.absent.entry(name.clone()).or_insert(now_ms);
        }
        let over = |(name, since): (&String, &u64)| (now_ms >= since.saturating_add(ABSENCE)).then(|| name.clone());
        self.absent.iter().filter_map(over).collect()
    }
}

impl Authority {
    /// Tells that there are other control planes.
    pub fn among(&self, fellows: Fellows) {
        *self.0.fellows.lock() = Some(fellows);
    }

    /// Says for the leader which nodes of this control plane hold the present roots, when that is something else than it said before, and a rotation is
    /// under way. `expected` are nodes that are connected, by id.
    ///
    /// # Errors
    /// It could not be written down; it is said again the next time.
    pub async fn report(&self, expected: &[String]) -> Result<(), CaError> {
        let Some(fellows) = self.0.fellows.lock().clone() else { return Ok(()) };
        let version = self.0.trusted.borrow().version.to_string();
        let lacks = |holding: &Holding| holding.version.as_deref() != Some(version.as_str());
        let behind = self.own_holdings(expected).into_iter().filter(lacks).map(|holding| holding.node).take(NAMED).collect();
        let expected: BTreeSet<&str> = expected.iter().map(String::as_str).collect();
        let guest = |holder: &Holder| holder.version == version && !expected.contains(holder.node.as_str());
        let guests = self.holders().list().into_iter().filter(guest).map(|holder| holder.node).take(GUESTS).collect();
        let report = {
            let book = self.0.book.lock();
            if book.rotation.phase == Phase::Steady {
                return Ok(());
            }
            let roots = book.rotation.roots.iter().map(|root| root.fingerprint.clone()).collect();
            let report = Report { roots, behind, guests };
            if book.reports.own.as_ref() == Some(&report) {
                return Ok(());
            }
            report
        };
        let write = stored::report(&fellows.name, &report).map_err(|error| CaError::Damaged(error.to_string()))?;
        self.write(vec![write], None).await?;
        self.0.book.lock().reports.own = Some(report);
        Ok(())
    }

    /// Of nodes that are connected here without being told bundles here, those that have not confirmed the present roots to another control plane either.
    pub(in crate::ca) fn without_guests_of_others(&self, mut absent: Vec<String>) -> Vec<String> {
        let book = self.0.book.lock();
        let roots = book.rotation.roots.iter().map(|root| root.fingerprint.clone()).collect();
        let confirmed = book.reports.confirmed(&roots);
        absent.retain(|node| !confirmed.contains(node.as_str()));
        absent
    }

    /// Nodes of other control planes that have to be waited for.
    pub(in crate::ca) fn holdings_of_others(&self) -> Vec<Holding> {
        let Some(fellows) = self.0.fellows.lock().clone() else { return Vec::new() };
        let book = self.0.book.lock();
        let roots = book.rotation.roots.iter().map(|root| root.fingerprint.clone()).collect();
        book.reports.holdings(&fellows, &roots, self.now_ms())
    }

    /// Looks which control planes are gone, and forgets what those said that are gone for long.
    ///
    /// # Errors
    /// It could not be written down.
    pub async fn look_for_others(&self) -> Result<(), CaError> {
        let Some(fellows) = self.0.fellows.lock().clone() else { return Ok(()) };
        let gone = self.0.book.lock().reports.look(&fellows, self.now_ms());
        if !gone.is_empty() {
            self.write(gone.iter().map(|name| stored::no_report(name)).collect(), None).await?;
            let mut book = self.0.book.lock();
            gone.into_iter().for_each(|name| book.reports.heard(name, None));
        }
        Ok(())
    }
}
