//! Where slow hashes are verified: on other threads, few at once, and not again for a while once they were right. It knows no requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwapOption;
use aws_lc_rs::{hmac, rand};
use quick_cache::sync::Cache;
use tokio::sync::Semaphore;

use super::password::Password;

/// Hashes that are computed at once, on all workers together: a bcrypt of cost 10 keeps a core busy for some 60 ms, and guessing must not take all cores.
const SEATS: usize = 4;
/// Most checks that wait for a seat; more are turned away, since they would not get one before their client gives up.
const MAX_WAITING: usize = 256;
/// Most passwords that are remembered to be right.
const MAX_KNOWN: usize = 4_096;
/// Milliseconds for which one is remembered.
const KNOWN_FOR_MS: u64 = 60_000;

/// Verifies passwords; one for all routes and workers.
pub(super) struct Workshop {
    seats: Arc<Semaphore>,
    waiting: AtomicUsize,
    /// Until when (Unix milliseconds) a password is known to be right, by a fingerprint of it that is good for nothing elsewhere.
    known: Cache<[u8; 32], u64>,
    key: Option<hmac::Key>,
    /// The slowest hash that was met, which those are made to cost who do not exist.
    dearest: ArcSwapOption<Password>,
}

/// One check.
pub(super) struct Check {
    /// What is kept of the user; `None` for one who does not exist.
    pub kept: Option<Arc<Password>>,
    /// What else must be computed when the password is wrong.
    decoy: Option<Arc<Password>>,
    /// What the client says.
    pub given: Vec<u8>,
}

/// Too many checks wait already.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Busy;

impl Default for Workshop {
    fn default() -> Workshop {
        Workshop {
            seats: Arc::new(Semaphore::new(SEATS)),
            waiting: AtomicUsize::new(0),
            known: Cache::new(MAX_KNOWN),
            key: hmac::Key::generate(hmac::HMAC_SHA256, &rand::SystemRandom::new()).ok(),
            dearest: ArcSwapOption::empty(),
        }
    }
}

impl Workshop {
    /// Prepares a check.
    pub(super) fn check(&self, kept: Option<Arc<Password>>, given: Vec<u8>) -> Check {
        let cost = kept.as_deref().map_or(0, Password::cost);
        let dearest = self.dearest.load_full();
        match &dearest {
            Some(dearest) if dearest.cost() >= cost => {}
            _ if cost == 0 => {}
            _ => self.dearest.store(kept.clone()),
        }
        Check { decoy: dearest.filter(|dearest| dearest.cost() > cost), kept, given }
    }

    /// The fingerprint under which a password is remembered; it changes with what is kept of the user.
    pub(super) fn fingerprint(&self, check: &Check) -> Option<[u8; 32]> {
        let kept = match check.kept.as_deref()? {
            Password::Apr1(text) | Password::Bcrypt(text, _) => text,
            Password::Plain(_) | Password::Sha1(_) => return None,
        };
        let mut context = hmac::Context::with_key(self.key.as_ref()?);
        context.update(kept.as_bytes());
        context.update(&[0]);
        context.update(&check.given);
        context.sign().as_ref().try_into().ok()
    }

    /// Whether this password was right a moment ago.
    pub(super) fn knows(&self, fingerprint: &[u8; 32], now_ms: u64) -> bool {
        self.known.get(fingerprint).is_some_and(|until| now_ms < until)
    }

    /// Remembers a password that was right.
    pub(super) fn remember(&self, fingerprint: [u8; 32], now_ms: u64) {
        self.known.insert(fingerprint, now_ms.saturating_add(KNOWN_FOR_MS));
    }

    /// Does a check on another thread.
    pub(super) async fn run(&self, check: Check) -> Result<bool, Busy> {
        let _place = Place::take(&self.waiting)?;
        let seat = self.seats.clone().acquire_owned().await.map_err(|_| Busy)?;
        let work = tokio::task::spawn_blocking(move || {
            let verdict = check.verdict();
            // Not before: who goes away does not make room for more work.
            drop(seat);
            verdict
        });
        work.await.map_err(|_| Busy)
    }
}

impl Check {
    /// Whether it is done so quickly that it need not go elsewhere.
    pub(super) fn is_quick(&self) -> bool {
        self.decoy.is_none() && self.kept.as_deref().is_none_or(|kept| kept.cost() == 0)
    }

    /// Whether the password is right. It takes as long for every user who gives a wrong one, existing or not.
    pub(super) fn verdict(&self) -> bool {
        let right = match &self.kept {
            Some(kept) => kept.is(&self.given),
            None => Password::Plain([0; 32]).is(&self.given),
        };
        if let Some(decoy) = self.decoy.as_deref().filter(|_| !right) {
            std::hint::black_box(decoy.is(&self.given));
        }
        right
    }
}

/// A place among those that wait.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize) -> Result<Place<'a>, Busy> {
        let place = Place(waiting);
        // Given back when dropped, in any case.
        if waiting.fetch_add(1, Ordering::Relaxed) < MAX_WAITING { Ok(place) } else { Err(Busy) }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const BCRYPT: &str = "$2y$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW";
    const APR1: &str = "$apr1$7fK2mQ1x$4vghRVLueL5tVu8FyyvyD0";

    fn kept(text: &str) -> Option<Arc<Password>> {
        Some(Arc::new(Password::parse(text).unwrap()))
    }

    #[test]
    fn those_who_do_not_exist_cost_what_the_dearest_costs() {
        let shop = Workshop::default();
        assert!(shop.check(None, vec![]).is_quick() && shop.check(kept("plain"), vec![]).is_quick());
        assert!(!shop.check(kept(APR1), vec![]).is_quick());
        assert_eq!(shop.check(None, vec![]).decoy.unwrap().cost(), 1);
        assert!(shop.check(kept(BCRYPT), vec![]).decoy.is_none());
        for other in [None, kept("plain"), kept(APR1)] {
            let check = shop.check(other, b"wrong".to_vec());
            assert!(!check.is_quick() && !check.verdict());
            assert_eq!(check.decoy.unwrap().cost(), 6);
        }
        assert!(shop.check(kept(BCRYPT), vec![]).decoy.is_none());
    }

    #[test]
    fn what_was_right_is_remembered_for_a_while_and_for_that_hash_alone() {
        let shop = Workshop::default();
        let print = |text, given: &[u8]| shop.fingerprint(&shop.check(kept(text), given.to_vec()));
        let known = print(BCRYPT, b"open sesame").unwrap();
        shop.remember(known, 1_000);
        assert!(shop.knows(&known, 1_000 + KNOWN_FOR_MS - 1) && !shop.knows(&known, 1_000 + KNOWN_FOR_MS));
        for other in [print(BCRYPT, b"open sesamE"), print(APR1, b"open sesame")] {
            assert!(!shop.knows(&other.unwrap(), 1_000));
        }
        assert_eq!((print("plain", b"plain"), shop.fingerprint(&shop.check(None, vec![]))), (None, None));
    }

    #[tokio::test]
    async fn a_bounded_number_waits() {
        let shop = Workshop::default();
        let check = |text| shop.check(kept(text), b"open sesame".to_vec());
        assert_eq!(shop.run(check(BCRYPT)).await, Ok(true));
        assert_eq!(shop.run(check(APR1)).await, Ok(true));
        let places: Vec<_> = (0..MAX_WAITING).map(|_| Place::take(&shop.waiting).ok().unwrap()).collect();
        assert_eq!(shop.run(check(BCRYPT)).await, Err(Busy));
        drop(places);
        assert_eq!(shop.run(check(BCRYPT)).await, Ok(true));
        assert_eq!(shop.waiting.load(Ordering::Relaxed), 0);
    }
}
