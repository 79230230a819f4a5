//! Sets of public keys (JWKS, RFC 7517 section 5). It knows not where they come from.

use serde_json::{Map, Value};

use super::{Algorithm, Key, KeyError};

/// Most keys in a set; issuers publish two or three.
const MAX_KEYS: usize = 64;
/// Most keys that are tried for one token, when it does not say which: a check costs some 50 µs.
const MAX_TRIES: usize = 4;

/// Public keys of one issuer.
#[derive(Debug)]
pub(crate) struct KeySet {
    keys: Vec<Key>,
}

impl KeySet {
    /// Reads a set. Keys that are of no use here (for encryption, of unknown kinds, malformed) are passed over, as RFC 7517 section 5 has it.
    ///
    /// # Errors
    /// It is no set, has too many keys, or none of use.
    pub(crate) fn parse(json: &[u8]) -> Result<KeySet, KeyError> {
        let set: Map<String, Value> = serde_json::from_slice(json).map_err(|_| KeyError::Set)?;
        KeySet::of_json(&set)
    }

    /// The same of JSON that has been read.
    ///
    /// # Errors
    /// As [`KeySet::parse`].
    pub(crate) fn of_json(set: &Map<String, Value>) -> Result<KeySet, KeyError> {
        let listed = set.get("keys").and_then(Value::as_array).ok_or(KeyError::Set)?;
        if listed.len() > MAX_KEYS {
            return Err(KeyError::TooMany(MAX_KEYS));
        }
        let keys: Vec<_> = listed.iter().filter_map(Value::as_object).filter_map(|jwk| Key::jwk(jwk).ok()).collect();
        if keys.is_empty() { Err(KeyError::NoneUsable) } else { Ok(KeySet { keys }) }
    }

    /// A set of one key.
    pub(crate) fn of(key: Key) -> KeySet {
        KeySet { keys: vec![key] }
    }

    /// Whether some key would be asked about such a token. When not, a newer set may have one.
    pub(crate) fn has(&self, kid: Option<&str>, algorithm: Algorithm) -> bool {
        self.candidates(kid, algorithm).next().is_some()
    }

    /// The keys that may have signed such a token: those of its `kid`, or a few that fit when it names none.
    pub(super) fn candidates<'a>(&'a self, kid: Option<&'a str>, algorithm: Algorithm) -> impl Iterator<Item = &'a Key> {
        let named = move |key: &&Key| match kid {
            // A single key without a name is meant whatever the token says.
            Some(kid) => key.kid().map_or(self.keys.len() == 1, |known| known == kid),
            None => true,
        };
        self.keys.iter().filter(named).filter(move |key| key.fits(algorithm)).take(MAX_TRIES)
    }
}
