//! Passwords that were proven a moment ago, as keyed hashes. It keeps neither passwords nor failures.

use std::collections::HashMap;
use std::time::Duration;

use aws_lc_rs::hmac;
use heddle_node::clock::Instant;
use parking_lot::Mutex;

/// Most proofs that are kept.
const MAX_PROOFS: usize = 10_000;

/// Proofs with their end. The key is made anew in each process, so that what is kept is worth nothing elsewhere.
pub(super) struct Cache {
    key: hmac::Key,
    proofs: Mutex<HashMap<[u8; 32], Instant>>,
}

impl Cache {
    /// An empty one; the dice make its key.
    pub(super) fn new(dice: &mut impl FnMut() -> u8) -> Cache {
        let key: [u8; 32] = std::array::from_fn(|_| dice());
        Cache { key: hmac::Key::new(hmac::HMAC_SHA256, &key), proofs: Mutex::default() }
    }

    /// Whether this was proven and the proof still holds.
    pub(super) fn holds(&self, dn: &str, password: &str, now: Instant) -> bool {
        self.proofs.lock().get(&self.hash(dn, password)).is_some_and(|end| *end > now)
    }

    /// Keeps a proof.
    pub(super) fn keep(&self, dn: &str, password: &str, ttl: Duration, now: Instant) {
        let mut proofs = self.proofs.lock();
        if proofs.len() >= MAX_PROOFS {
            proofs.retain(|_, end| *end > now);
        }
        if proofs.len() >= MAX_PROOFS
            && let Some(first) = proofs.iter().min_by_key(|(_, end)| **end).map(|(hash, _)| *hash)
        {
            proofs.remove(&first);
        }
        proofs.insert(self.hash(dn, password), now + ttl);
    }

    fn hash(&self, dn: &str, password: &str) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&(dn.len() as u64).to_be_bytes());
        context.update(dn.as_bytes());
        context.update(password.as_bytes());
        let mut hash = [0; 32];
        hash.copy_from_slice(context.sign().as_ref());
        hash
    }
}

#[cfg(test)]
mod tests {
    use heddle_node::clock;

    use super::*;

    #[test]
    fn proofs_hold_for_their_time_and_are_bounded() {
        let mut dice = fastrand::Rng::with_seed(1);
        let cache = Cache::new(&mut || dice.u8(..));
        let (now, second) = (clock::now(), Duration::from_secs(1));
        cache.keep("cn=a", "x", second, now);
        assert!(cache.holds("cn=a", "x", now));
        assert!(!cache.holds("cn=a", "y", now) && !cache.holds("cn=ax", "", now) && !cache.holds("cn=a", "x", now + second));
        for n in 0..MAX_PROOFS + 5 {
            cache.keep("cn=b", &n.to_string(), second * 2, now);
        }
        assert_eq!(cache.proofs.lock().len(), MAX_PROOFS);
        assert!(!cache.holds("cn=a", "x", now), "the one that ends first goes");
    }
}
