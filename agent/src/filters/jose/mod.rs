//! Signed tokens (JOSE): compact JWS (RFC 7515), keys (RFC 7517), algorithms (RFC 7518), claims (RFC 7519). It knows no plugin, no consumer and no network.
//!
//! The order of things is kept by types: a token is [`Unverified`] until a key has verified it with an algorithm that the configuration
//! allows, and only then gives its [`Claims`] away. What the token says of itself (`alg`, `kid`) picks among what is allowed, never more.

mod algorithm;
mod claims;
mod error;
mod key;
mod pem;
mod set;
#[cfg(test)]
mod tests;
mod token;

pub(crate) use algorithm::Algorithm;
pub(crate) use claims::{ClaimRules, Claims};
pub(crate) use error::{ClaimError, JoseError, KeyError};
pub(crate) use key::Key;
pub(crate) use set::KeySet;
pub(crate) use token::{MAX_TOKEN, Unverified};
