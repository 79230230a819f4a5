//! Sealing what a browser keeps for us: AES-256-GCM-SIV under a key that belongs to one configuration and one purpose. It knows no cookies.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{self, HKDF_SHA256, Salt};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Separates these keys from all others that are made of the same secret.
const SALT: &[u8] = b"heddle openid-connect cookies 1";

/// Seals and opens texts of one purpose.
pub(crate) struct Sealer {
    key: LessSafeKey,
}

/// Random bytes that one sealing needs. The cipher resists their repetition (RFC 8452).
pub(crate) type SealNonce = [u8; NONCE_LEN];

struct KeyLength;

impl hkdf::KeyType for KeyLength {
    fn len(&self) -> usize {
        32
    }
}

impl Sealer {
    /// The sealer whose key is derived (HKDF, RFC 5869) from a secret for these facts, in this order. `None` only when the facts are
    /// absurdly many.
    pub(crate) fn new(secret: &str, facts: &[&str]) -> Option<Sealer> {
        let mut info = Vec::new();
        for fact in facts {
            info.extend_from_slice(&(fact.len() as u64).to_be_bytes());
            info.extend_from_slice(fact.as_bytes());
        }
        let mut key = [0; 32];
        let parts = [info.as_slice()];
        Salt::new(HKDF_SHA256, SALT).extract(secret.as_bytes()).expand(&parts, KeyLength).ok()?.fill(&mut key).ok()?;
        Some(Sealer { key: LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, &key).ok()?) })
    }

    /// Seals a text; what comes out may stand in a cookie. `None` only for texts of gigabytes.
    pub(crate) fn seal(&self, nonce: SealNonce, plain: &[u8]) -> Option<String> {
        let mut sealed = plain.to_vec();
        self.key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut sealed).ok()?;
        Some(URL_SAFE_NO_PAD.encode([nonce.as_slice(), &sealed].concat()))
    }

    /// Opens what was sealed; `None` when it was sealed by others, or changed.
    pub(crate) fn open(&self, text: &str) -> Option<Vec<u8>> {
        let mut sealed = URL_SAFE_NO_PAD.decode(text).ok()?;
        let nonce: SealNonce = sealed.get(..NONCE_LEN)?.try_into().ok()?;
        sealed.drain(..NONCE_LEN);
        let length = self.key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut sealed).ok()?.len();
        sealed.truncate(length);
        Some(sealed)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn sealer(facts: &[&str]) -> Sealer {
        Sealer::new("0123456789abcdef", facts).unwrap()
    }

    #[test]
    fn only_the_same_facts_open() {
        let sealed = sealer(&["session", "ab", "c"]).seal([7; 12], b"hello").unwrap();
        assert_eq!(sealer(&["session", "ab", "c"]).open(&sealed).unwrap(), b"hello");
        for facts in [&["login", "ab", "c"][..], &["session", "a", "bc"], &["session", "ab"]] {
            assert!(sealer(facts).open(&sealed).is_none());
        }
        assert!(Sealer::new("0123456789abcdeF", &["session", "ab", "c"]).unwrap().open(&sealed).is_none());
        assert!(!sealed.contains(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_'));
    }

    proptest! {
        #[test]
        fn what_is_changed_anywhere_does_not_open(plain in proptest::collection::vec(any::<u8>(), 0..64), at: usize, bit in 0u8..8) {
            let sealer = sealer(&["session"]);
            let sealed = sealer.seal([1; 12], &plain).unwrap();
            prop_assert_eq!(sealer.open(&sealed).unwrap(), plain);
            let mut bytes = URL_SAFE_NO_PAD.decode(&sealed).unwrap();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert!(sealer.open(&URL_SAFE_NO_PAD.encode(&bytes)).is_none());
            prop_assert!(sealer.open(&sealed[..sealed.len() - 2]).is_none());
        }

        #[test]
        fn garbage_does_not_open(text in ".{0,80}") {
            prop_assert!(sealer(&["session"]).open(&text).is_none());
        }
    }
}
