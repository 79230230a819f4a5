//! Nonces: sealed, so that nothing is kept of those that nobody uses, and counted, so that no answer counts twice. It knows no requests.

use std::collections::{BTreeMap, HashMap};

use aws_lc_rs::{hmac, rand};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;

/// Time, dice and seal.
const NONCE_LEN: usize = 8 + 8 + 16;
/// Most nonces in use whose counts are kept: some 4 MiB.
const MAX_COUNTED: usize = 32 * 1024;
/// How far behind the highest count one may come, as requests of one client overtake each other.
const WINDOW: u32 = 64;

/// Makes nonces and says which answers are fresh; one for all routes and workers.
pub(super) struct Nonces {
    key: hmac::Key,
    counted: Mutex<Counted>,
}

#[derive(Default)]
struct Counted {
    windows: HashMap<[u8; 16], (u64, Window)>,
    /// The same by the time at which they were made, oldest first.
    by_age: BTreeMap<(u64, [u8; 16]), ()>,
    /// Nonces that were made up to then and are not here any more were forgotten: they are not fresh.
    forgotten_ms: u64,
}

/// Which counts of a nonce have been.
#[derive(Debug, Default, Clone, Copy)]
struct Window {
    highest: u32,
    /// Bit `n` is the count `highest - n`.
    seen: u64,
}

impl Default for Nonces {
    fn default() -> Nonces {
        let mut secret = [0; 32];
        // Without randomness nothing of the process would be safe, TLS first; then no nonce is as good as another.
        let filled = rand::fill(&mut secret).is_ok();
        debug_assert!(filled);
        Nonces { key: hmac::Key::new(hmac::HMAC_SHA256, &secret), counted: Mutex::default() }
    }
}

impl Nonces {
    /// A new nonce for a realm.
    pub(super) fn make(&self, realm: &str, now_ms: u64, dice: u64) -> String {
        let mut bytes = [0; NONCE_LEN];
        bytes[..8].copy_from_slice(&now_ms.to_be_bytes());
        bytes[8..16].copy_from_slice(&dice.to_be_bytes());
        let seal = self.seal(realm, &bytes[..16]);
        bytes[16..].copy_from_slice(&seal.as_ref()[..16]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Whether this use of a nonce is fresh: it is ours, not too old, and this count of it has not been.
    pub(super) fn is_fresh(&self, realm: &str, nonce: &str, count: u32, now_ms: u64, ttl_ms: u64) -> bool {
        let Some(bytes) = URL_SAFE_NO_PAD.decode(nonce).ok().and_then(|bytes| <[u8; NONCE_LEN]>::try_from(bytes).ok()) else {
            return false;
        };
        let (told, sealed) = bytes.split_at(16);
        if !bool::from(subtle::ConstantTimeEq::ct_eq(&self.seal(realm, told).as_ref()[..16], sealed)) {
            return false;
        }
        let mut id = [0; 16];
        id.copy_from_slice(told);
        let made_ms = told[..8].iter().fold(0u64, |all, byte| all << 8 | u64::from(*byte));
        now_ms.saturating_sub(made_ms) < ttl_ms && self.counted.lock().take(id, made_ms, count)
    }

    fn seal(&self, realm: &str, told: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(told);
        context.update(realm.as_bytes());
        context.sign()
    }
}

impl Counted {
    fn take(&mut self, id: [u8; 16], made_ms: u64, count: u32) -> bool {
        if let Some((_, window)) = self.windows.get_mut(&id) {
            return window.take(count);
        }
        if made_ms <= self.forgotten_ms {
            return false;
        }
        while self.windows.len() >= MAX_COUNTED
            && let Some(((oldest_ms, oldest), ())) = self.by_age.pop_first()
        {
            self.windows.remove(&oldest);
            self.forgotten_ms = self.forgotten_ms.max(oldest_ms);
        }
        let mut window = Window::default();
        let fresh = window.take(count);
        self.windows.insert(id, (made_ms, window));
        self.by_age.insert((made_ms, id), ());
        fresh
    }
}

impl Window {
    fn take(&mut self, count: u32) -> bool {
        if count == 0 {
            return false;
        }
        if count > self.highest {
            self.seen = self.seen.checked_shl(count - self.highest).unwrap_or(0) | 1;
            self.highest = count;
            return true;
        }
        let behind = self.highest - count;
        if behind >= WINDOW || self.seen >> behind & 1 == 1 {
            return false;
        }
        self.seen |= 1 << behind;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_nonce_is_ours_for_a_realm_and_a_while() {
        let nonces = Nonces::default();
        let nonce = nonces.make("a", 1_000, 7);
        assert!(nonces.is_fresh("a", &nonce, 1, 1_999, 1_000));
        assert!(!nonces.is_fresh("a", &nonce, 2, 2_000, 1_000), "too old");
        assert!(!nonces.is_fresh("b", &nonce, 3, 1_000, 1_000), "another realm");
        assert!(!Nonces::default().is_fresh("a", &nonce, 1, 1_000, 1_000), "another gateway");
        for text in ["", "*", "AAAA", &nonce[1..], &format!("A{}", &nonce[1..]).replace("AA", "AB")] {
            assert!(!nonces.is_fresh("a", text, 1, 1_000, 1_000), "{text}");
        }
        assert_ne!(nonce, nonces.make("a", 1_000, 8));
    }

    #[test]
    fn memory_is_bounded_and_what_is_forgotten_is_not_fresh() {
        let mut counted = Counted::default();
        let id = |n: u64| {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&n.to_be_bytes());
            id
        };
        for n in 1..=MAX_COUNTED as u64 + 10 {
            assert!(counted.take(id(n), n, 1));
        }
        assert_eq!((counted.windows.len(), counted.by_age.len()), (MAX_COUNTED, MAX_COUNTED));
        assert!(!counted.take(id(1), 1, 2) && !counted.take(id(10), 10, 1));
        assert!(counted.take(id(11), 11, 2));
    }

    proptest! {
        #[test]
        fn no_count_is_taken_twice_and_new_ones_are(counts in prop::collection::vec(0u32..200, 1..100)) {
            let (mut window, mut taken, mut highest) = (Window::default(), HashSet::new(), 0);
            for count in counts {
                let new = count > 0 && !taken.contains(&count);
                let near = count > highest || highest - count < WINDOW;
                prop_assert_eq!(window.take(count), new && near);
                if new && near {
                    taken.insert(count);
                    highest = highest.max(count);
                }
            }
        }
    }
}
