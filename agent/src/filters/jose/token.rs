//! Compact tokens: taken apart, bounded, and nothing believed before the signature holds. It knows no keys beyond asking one.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::claims::Claims;
use super::{Algorithm, JoseError, Key, KeySet};

/// Longest token in bytes; what most servers take as a whole request head.
pub(crate) const MAX_TOKEN: usize = 16 * 1024;

/// A token that has been taken apart and that nobody has vouched for yet.
#[derive(Debug)]
pub(crate) struct Unverified<'a> {
    algorithm: Algorithm,
    kid: Option<String>,
    claims: Map<String, Value>,
    /// Header and claims as they were signed.
    message: &'a str,
    signature: Vec<u8>,
}

impl<'a> Unverified<'a> {
    /// Takes a compact JWS (RFC 7515 section 7.1) apart.
    ///
    /// # Errors
    /// What is wrong with its form.
    pub(crate) fn parse(token: &'a str) -> Result<Unverified<'a>, JoseError> {
        if token.len() > MAX_TOKEN {
            return Err(JoseError::TooLong);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(JoseError::Parts)?;
        let (header, claims) = message.split_once('.').filter(|(_, claims)| !claims.contains('.')).ok_or(JoseError::Parts)?;
        let header = object(header, "header")?;
        let algorithm = algorithm(&header)?;
        if header.contains_key("crit") {
            return Err(JoseError::Critical);
        }
        let kid = match header.get("kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid.clone()),
            Some(_) => return Err(JoseError::Parameter("kid")),
        };
        let claims = object(claims, "claims")?;
        Ok(Unverified { algorithm, kid, claims, message, signature: decoded(signature, "signature")? })
    }

    /// What the token says it is signed with.
    pub(crate) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Which key the token says it is signed with.
    pub(crate) fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// What the token claims, not verified: good for finding the key that must verify it, and for nothing else.
    pub(crate) fn peek(&self, claim: &str) -> Option<&Value> {
        self.claims.get(claim)
    }

    /// The claims, once this key has verified the token with this algorithm and no other.
    ///
    /// # Errors
    /// The algorithm is another one, or the signature is wrong.
    pub(crate) fn verify(self, key: &Key, algorithm: Algorithm) -> Result<Claims, JoseError> {
        if self.algorithm != algorithm {
            return Err(JoseError::Algorithm(self.algorithm));
        }
        key.verify(algorithm, self.message.as_bytes(), &self.signature)?;
        Ok(Claims::new(self.claims))
    }

    /// The claims, once a key of the set has verified the token with one of these algorithms. The set decides which keys are asked.
    ///
    /// # Errors
    /// The algorithm is none of these, no key fits, or the signature is wrong.
    pub(crate) fn verify_with(self, keys: &KeySet, allowed: &[Algorithm]) -> Result<Claims, JoseError> {
        if !allowed.contains(&self.algorithm) {
            return Err(JoseError::Algorithm(self.algorithm));
        }
        let mut verdict = Err(JoseError::NoKey);
        for key in keys.candidates(self.kid(), self.algorithm) {
            verdict = key.verify(self.algorithm, self.message.as_bytes(), &self.signature);
            if verdict.is_ok() {
                break;
            }
        }
        verdict.map(|()| Claims::new(self.claims))
    }
}

fn algorithm(header: &Map<String, Value>) -> Result<Algorithm, JoseError> {
    let Some(Value::String(name)) = header.get("alg") else { return Err(JoseError::Parameter("alg")) };
    match Algorithm::of_name(name) {
        Some(algorithm) => Ok(algorithm),
        None if name.eq_ignore_ascii_case("none") => Err(JoseError::Unsigned),
        None => Err(JoseError::UnknownAlgorithm),
    }
}

fn decoded(part: &str, what: &'static str) -> Result<Vec<u8>, JoseError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| JoseError::Base64(what))
}

fn object(part: &str, what: &'static str) -> Result<Map<String, Value>, JoseError> {
    serde_json::from_slice(&decoded(part, what)?).map_err(|_| JoseError::Json(what))
}
