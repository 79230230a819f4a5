//! What was found for each ask, how fresh it is, and what of it is to be written down. A function of what happens and of the time that it is told.

use std::collections::{BTreeMap, BTreeSet};

use heddle_xds::model::Endpoint;
use serde_json::{Value, json};

use super::{Ask, News, record};
use crate::store::RecordWrite;

/// What is known of one ask. Times are Unix milliseconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Found {
    /// Where its instances are.
    pub endpoints: Vec<Endpoint>,
    /// When Consul said so last; 0: it is known from before a restart.
    pub seen_ms: u64,
    /// Since when Consul does not answer, and why; or that an answer is doubted.
    pub fault: Option<(u64, String)>,
    /// How many instances were left out, and why.
    pub left_out: Option<String>,
    /// Whether it has been answered, now or before a restart.
    pub answered: bool,
    /// Failures so far.
    pub failures: u64,
}

/// What was found for each ask.
#[derive(Debug, Clone, Default)]
pub struct Discovered {
    found: BTreeMap<Ask, Found>,
    unwritten: BTreeSet<Ask>,
}

impl Discovered {
    /// Takes over what was written down before a restart.
    pub fn restore(&mut self, records: &[(String, Vec<u8>)]) {
        for (ask, endpoints) in records.iter().filter_map(|(key, body)| record::read(key, body)) {
            self.found.insert(ask, Found { endpoints, answered: true, ..Found::default() });
        }
    }

    /// What is known of an ask.
    pub fn get(&self, ask: &Ask) -> Option<&Found> {
        self.found.get(ask)
    }

    /// All of it.
    pub fn all(&self) -> impl Iterator<Item = (&Ask, &Found)> {
        self.found.iter()
    }

    /// Keeps what is asked for and forgets the rest.
    pub fn keep(&mut self, asked: &BTreeSet<Ask>) {
        let gone: Vec<Ask> = self.found.keys().filter(|ask| !asked.contains(*ask)).cloned().collect();
        for ask in gone {
            self.found.remove(&ask);
            self.unwritten.insert(ask);
        }
        for ask in asked {
            self.found.entry(ask.clone()).or_default();
        }
    }

    /// Takes note of what happened to an ask. Whether its endpoints are others than before; an ask that nobody has does not matter.
    pub fn note(&mut self, ask: &Ask, news: News, now_ms: u64) -> bool {
        let Some(found) = self.found.get_mut(ask) else { return false };
        match news {
            News::Answer(endpoints, left_out) => {
                let differs = found.endpoints != endpoints;
                if differs || !found.answered {
                    self.unwritten.insert(ask.clone());
                }
                *found = Found { endpoints, left_out, seen_ms: now_ms, fault: None, answered: true, failures: found.failures };
                differs
            }
            News::Doubt(why) => {
                let since = found.fault.take().map_or(now_ms, |(since, _)| since);
                found.fault = Some((since, why));
                false
            }
            News::Away(why) => {
                let since = found.fault.take().map_or(now_ms, |(since, _)| since);
                (found.fault, found.failures) = (Some((since, why)), found.failures.saturating_add(1));
                false
            }
        }
    }

    /// What is to be written down since this was asked last.
    pub fn writes(&mut self) -> Vec<RecordWrite> {
        let write = |ask: Ask| match self.found.get(&ask) {
            Some(found) => RecordWrite::Set(record::key(&ask), record::body(&found.endpoints)),
            None => RecordWrite::Remove(record::key(&ask)),
        };
        std::mem::take(&mut self.unwritten).into_iter().map(write).collect()
    }

    /// What was to be written down was not: all of it is to be written again.
    pub fn unwritten(&mut self) {
        self.unwritten.extend(self.found.iter().filter(|(_, found)| found.answered).map(|(ask, _)| ask.clone()));
    }

    /// It all, for people.
    pub fn shown(&self, now_ms: u64) -> Value {
        let one = |(ask, found): (&Ask, &Found)| {
            json!({
                "type": "consul",
                "service": ask.service,
                "asked": ask,
                "endpoints": found.endpoints,
                "left_out": found.left_out,
                "answered": found.answered,
                "written": !self.unwritten.contains(ask),
                "seen_ms": found.seen_ms,
                "stale_seconds": found.fault.as_ref().map_or(0, |(since, _)| now_ms.saturating_sub(*since) / 1_000),
                "fault": found.fault.as_ref().map(|(_, why)| why),
            })
        };
        self.found.iter().map(one).collect()
    }
}
