//! Peers that this process has refused, kept until somebody is told of them. It knows neither connections nor who is told.
//!
//! Strangers can be refused as often as they like: those that are alike are one entry with a count, an entry is told at most once a minute, and the number of
//! entries is bounded.

use std::collections::BTreeMap;
use std::net::IpAddr;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Entries that are kept; refusals of further kinds are only counted.
const MAX_ENTRIES: usize = 64;
/// Entries that are told at once.
const MAX_TOLD: usize = 20;
/// An entry that was told is told again after this long, in milliseconds, if it was added to.
const QUIET: u64 = 60_000;
/// Bytes of a text that came from a peer.
const MAX_TEXT: usize = 300;

/// What is alike: why, who, and as whom.
type Kind = (&'static str, Option<IpAddr>, String);

/// Refusals that are alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// When the last of them was, Unix milliseconds.
    pub at_ms: u64,
    /// Why, as a short name: `plaintext`, or one of [`super::Rejection::label`].
    pub reason: &'static str,
    /// Where the peer is, when that is known.
    pub peer: Option<IpAddr>,
    /// The SPIFFE id that it has shown; empty when none.
    pub subject: String,
    /// Why, for people.
    pub detail: String,
    /// How many there were since the last time that they were told.
    pub count: u64,
}

/// What somebody is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// Refusals.
    pub entries: Vec<Refused>,
    /// Refusals that are in no entry.
    pub left_out: u64,
}

impl Told {
    /// Whether there is nothing to tell.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.left_out == 0
    }
}

/// Peers that this process has refused.
#[derive(Debug, Default)]
pub struct Refusals {
    kept: Mutex<Kept>,
    noted: Notify,
}

#[derive(Debug, Default)]
struct Kept {
    /// With when they were last told.
    entries: BTreeMap<Kind, (Refused, Option<u64>)>,
    left_out: u64,
}

impl Refusals {
    /// Notes one.
    pub fn note(&self, refused: Refused) {
        let mut kept = self.kept.lock();
        let kind = (refused.reason, refused.peer, refused.subject.chars().take(MAX_TEXT).collect::<String>());
        if !kept.entries.contains_key(&kind) && kept.entries.len() >= MAX_ENTRIES {
            // Whoever was told of has room to give.
            kept.entries.retain(|_, (entry, _)| entry.count > 0);
            if kept.entries.len() >= MAX_ENTRIES {
                kept.left_out += refused.count;
                return;
            }
        }
        let subject = kind.2.clone();
        let (entry, _) = kept.entries.entry(kind).or_insert_with(|| (Refused { subject, count: 0, ..refused.clone() }, None));
        entry.at_ms = refused.at_ms;
        entry.count += refused.count;
        entry.detail = refused.detail.chars().take(MAX_TEXT).collect();
        drop(kept);
        self.noted.notify_one();
    }

    /// What is to be told now.
    pub fn take(&self, now_ms: u64) -> Told {
        let mut kept = self.kept.lock();
        let is_due = |(entry, told): &&mut (Refused, Option<u64>)| {
            entry.count > 0 && told.is_none_or(|told| now_ms >= told.saturating_add(QUIET))
        };
        let due = kept.entries.values_mut().filter(is_due).take(MAX_TOLD);
        let entries: Vec<Refused> = due
            .map(|(entry, told)| {
                *told = Some(now_ms);
                Refused { count: std::mem::take(&mut entry.count), ..entry.clone() }
            })
            .collect();
        let left_out = if entries.is_empty() { 0 } else { std::mem::take(&mut kept.left_out) };
        Told { entries, left_out }
    }

    /// Takes back what may not have been heard: it is told again as soon as somebody listens.
    pub fn give_back(&self, told: Told) {
        for refused in told.entries {
            let kind = (refused.reason, refused.peer, refused.subject.clone());
            self.note(refused);
            if let Some((_, told)) = self.kept.lock().entries.get_mut(&kind) {
                *told = None;
            }
        }
        self.kept.lock().left_out += told.left_out;
    }

    /// Ready when there may be something to tell.
    pub async fn noted(&self) {
        self.noted.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(peer: u8, at_ms: u64) -> Refused {
        let peer = Some(IpAddr::from([10, 0, 0, peer]));
        Refused { at_ms, reason: "expired", peer, subject: "spiffe://d/x".into(), detail: "a".repeat(1_000), count: 1 }
    }

    #[test]
    fn what_is_alike_is_told_once_a_minute_with_how_many_there_were() {
        let refusals = Refusals::default();
        (0..5).for_each(|at| refusals.note(refused(1, at)));
        let told = refusals.take(10);
        assert_eq!(
            told.entries.iter().map(|entry| (entry.count, entry.at_ms, entry.detail.len())).collect::<Vec<_>>(),
            [(5, 4, MAX_TEXT)]
        );
        refusals.note(refused(1, 20));
        assert!(refusals.take(20).is_empty(), "not again at once");
        assert_eq!(refusals.take(10 + QUIET).entries.first().map(|entry| entry.count), Some(1));
        assert!(refusals.take(20 + 2 * QUIET).is_empty(), "nothing new");
    }

    #[test]
    fn what_was_not_heard_is_told_again_at_once() {
        let refusals = Refusals::default();
        (0..70).for_each(|peer| refusals.note(refused(peer, 0)));
        let told = refusals.take(1);
        assert_eq!((told.entries.len(), told.left_out), (MAX_TOLD, 6));
        refusals.note(refused(0, 2));
        refusals.give_back(told);
        let again = refusals.take(3);
        assert_eq!((again.entries.len(), again.left_out), (MAX_TOLD, 6));
        assert_eq!(again.entries.iter().map(|entry| entry.count).sum::<u64>(), 21, "with what came meanwhile");
    }

    #[test]
    fn strangers_fill_no_memory_and_are_counted() {
        let refusals = Refusals::default();
        (0..200).for_each(|peer| refusals.note(refused(peer, 0)));
        let told = refusals.take(1);
        assert_eq!((told.entries.len(), told.left_out), (MAX_TOLD, 200 - MAX_ENTRIES as u64));
        (100..200).for_each(|peer| refusals.note(refused(peer, 2)));
        assert_eq!(refusals.take(3).left_out, 100 - MAX_TOLD as u64, "those that were told have made room");
    }
}
