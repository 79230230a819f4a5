//! Join tokens: each proves one identity once. What is stored does not let anybody make one. A book of values and `now`; it knows no store.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use heddle_node::hex;
use heddle_node::identity::SpiffeId;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use super::issuer::{IssuerError, random};
use super::sign::{Reason, Refusal};

/// What a token starts with.
const PREFIX: &str = "hj1.";
/// Random bytes of a token.
const SECRET_BYTES: usize = 32;
/// Random bytes of its id.
const ID_BYTES: usize = 6;
/// Bytes of a token that is looked at.
const MAX_TOKEN: usize = 256;
/// Tokens that are remembered.
pub const MAX_TOKENS: usize = 10_000;
/// How long a token is remembered after it has expired, for those who look for it.
const REMEMBERED_MS: u64 = 24 * 3_600 * 1_000;
/// How long a used token is good for the same key again: the answer to its first use may have been lost on the way.
const SAME_KEY_MS: u64 = 60 * 1_000;

/// A token as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Its name, to revoke it by.
    pub id: String,
    /// SHA-256 of the whole token, hex.
    pub hash: String,
    /// The identity that it proves.
    pub spiffe_id: String,
    /// When it was made, Unix milliseconds.
    pub created_ms: u64,
    /// Until when it can be used.
    pub expires_ms: u64,
    /// When it was used.
    pub used_ms: Option<u64>,
    /// SHA-256 of the public key that it was used for, hex.
    pub used_for: Option<String>,
    /// Who made it.
    pub author: String,
}

/// All tokens by id.
#[derive(Debug, Default)]
pub struct Tokens {
    by_id: BTreeMap<String, Token>,
    /// How often each was taken since the start.
    taken: BTreeMap<String, u64>,
}

/// A use of a token that is not written down yet.
#[derive(Debug)]
pub struct Use {
    /// As it is now.
    pub token: Token,
    before: Token,
    /// Which use of the token this is.
    number: u64,
}

impl Use {
    /// The token as it was before this use.
    pub fn before(&self) -> &Token {
        &self.before
    }
}

impl Tokens {
    /// Those that were stored.
    pub fn new(tokens: impl IntoIterator<Item = Token>) -> Tokens {
        Tokens { by_id: tokens.into_iter().map(|token| (token.id.clone(), token)).collect(), taken: BTreeMap::new() }
    }

    /// A new token, which is not in the book yet, and what proves it.
    pub fn make(id: &SpiffeId, author: &str, now_ms: u64, ttl_ms: u64) -> Result<(Token, String), IssuerError> {
        let (mut name, mut secret) = ([0; ID_BYTES], [0; SECRET_BYTES]);
        random(&mut name)?;
        random(&mut secret)?;
        let name = hex::encode(&name);
        let text = format!("{PREFIX}{name}.{}", URL_SAFE_NO_PAD.encode(secret));
        let token = Token {
            id: name,
            hash: sha256(text.as_bytes()),
            spiffe_id: id.to_string(),
            created_ms: now_ms,
            expires_ms: now_ms.saturating_add(ttl_ms),
            used_ms: None,
            used_for: None,
            author: author.to_owned(),
        };
        Ok((token, text))
    }

    /// Whether there is no room for another one.
    pub fn full(&self) -> bool {
        self.by_id.len() >= MAX_TOKENS
    }

    /// Puts a token into the book, in the place of the one of its id.
    pub fn put(&mut self, token: Token) {
        self.by_id.insert(token.id.clone(), token);
    }

    /// Forgets a token.
    pub fn remove(&mut self, id: &str) -> Option<Token> {
        self.taken.remove(id);
        self.by_id.remove(id)
    }

    /// All tokens, newest first.
    pub fn list(&self) -> Vec<Token> {
        let mut tokens: Vec<Token> = self.by_id.values().cloned().collect();
        tokens.sort_by(|a, b| (b.created_ms, &b.id).cmp(&(a.created_ms, &a.id)));
        tokens
    }

    /// What a token proves, when it is good for this key now.
    pub fn check(&self, text: &str, key: &[u8], now_ms: u64) -> Result<&Token, Refusal> {
        let unknown = || Refusal::new(Reason::TokenUnknown, "no such join token was made here, or it was revoked");
        let name = text.strip_prefix(PREFIX).filter(|rest| rest.len() <= MAX_TOKEN).and_then(|rest| rest.split_once('.'));
        let token = name.and_then(|(id, _)| self.by_id.get(id)).ok_or_else(unknown)?;
        if !bool::from(token.hash.as_bytes().ct_eq(sha256(text.as_bytes()).as_bytes())) {
            return Err(unknown());
        }
        if now_ms >= token.expires_ms {
            return Err(Refusal::new(Reason::TokenExpired, format!("the join token {} has expired", token.id)));
        }
        let again =
            |used_ms: u64| now_ms.saturating_sub(used_ms) <= SAME_KEY_MS && token.used_for.as_deref() == Some(&*sha256(key));
        match token.used_ms {
            Some(used_ms) if !again(used_ms) => Err(Refusal::new(
                Reason::TokenUsed,
                format!("the join token {} was used with another key or too long ago", token.id),
            )),
            _ => Ok(token),
        }
    }

    /// Notes that a token was used for a key.
    pub fn take(&mut self, id: &str, key: &[u8], now_ms: u64) -> Option<Use> {
        let token = self.by_id.get_mut(id)?;
        let before = token.clone();
        token.used_ms = token.used_ms.or(Some(now_ms));
        token.used_for = Some(sha256(key));
        let taken = self.taken.entry(id.to_owned()).or_default();
        *taken += 1;
        Some(Use { token: token.clone(), before, number: *taken })
    }

    /// Takes a use back that could not be written down, unless somebody has used or revoked the token since: who came later may have got what it proves.
    pub fn give_back(&mut self, lost: &Use) {
        let id = &lost.token.id;
        if self.taken.get(id) == Some(&lost.number)
            && let Some(token) = self.by_id.get_mut(id)
        {
            token.clone_from(&lost.before);
        }
    }

    /// The ids of tokens that have expired long ago.
    pub fn old(&self, now_ms: u64) -> Vec<String> {
        let old = |token: &&Token| now_ms.saturating_sub(token.expires_ms) > REMEMBERED_MS && token.expires_ms < now_ms;
        self.by_id.values().filter(old).map(|token| token.id.clone()).collect()
    }
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(digest(&SHA256, bytes).as_ref())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn made() -> (Tokens, String, Token) {
        let id = SpiffeId::parse("spiffe://td/ns/default/svc/web").unwrap();
        let (token, text) = Tokens::make(&id, "ops", 1_000, 600_000).unwrap();
        let mut tokens = Tokens::default();
        tokens.put(token.clone());
        (tokens, text, token)
    }

    #[test]
    fn a_token_is_good_once_and_only_as_it_was_told() {
        let (mut tokens, text, token) = made();
        assert!(!serde_json::to_string(&token).unwrap().contains(text.rsplit_once('.').unwrap().1));
        assert_eq!(tokens.check(&text, b"key", 2_000).unwrap().spiffe_id, "spiffe://td/ns/default/svc/web");
        for wrong in ["", "hj1.", &text[..text.len() - 1], &format!("{text}a"), &text.to_uppercase(), &"x".repeat(100_000)] {
            assert_eq!(tokens.check(wrong, b"key", 2_000).unwrap_err().reason, Reason::TokenUnknown);
        }
        let first = tokens.take(&token.id, b"key", 2_000).unwrap();
        assert_eq!(tokens.check(&text, b"other", 2_001).unwrap_err().reason, Reason::TokenUsed);
        assert!(tokens.check(&text, b"key", 2_001).is_ok(), "the answer may have been lost");
        assert_eq!(tokens.check(&text, b"key", 2_001 + SAME_KEY_MS).unwrap_err().reason, Reason::TokenUsed);
        tokens.give_back(&first);
        assert!(tokens.check(&text, b"other", 2_001).is_ok(), "what could not be stored did not happen");
    }

    #[test]
    fn a_use_that_failed_revives_no_token_that_another_one_has_used_or_that_was_revoked() {
        let (mut tokens, text, token) = made();
        let failing = tokens.take(&token.id, b"key", 2_000).unwrap();
        // The same key again, as its answer seemed lost: this one is written down.
        tokens.take(&token.id, b"key", 2_001).unwrap();
        tokens.give_back(&failing);
        assert_eq!(tokens.check(&text, b"other", 2_002).unwrap_err().reason, Reason::TokenUsed);

        let (mut tokens, text, token) = made();
        let failing = tokens.take(&token.id, b"key", 2_000).unwrap();
        assert!(tokens.remove(&token.id).is_some());
        tokens.give_back(&failing);
        assert_eq!(tokens.check(&text, b"key", 2_001).unwrap_err().reason, Reason::TokenUnknown);
    }

    #[test]
    fn tokens_expire_and_can_be_revoked() {
        let (tokens, text, token) = made();
        assert!(tokens.check(&text, b"key", 600_999).is_ok());
        assert_eq!(tokens.check(&text, b"key", 601_000).unwrap_err().reason, Reason::TokenExpired);
        assert_eq!(tokens.old(601_000 + REMEMBERED_MS), Vec::<String>::new());
        assert_eq!(tokens.old(601_001 + REMEMBERED_MS), [token.id]);
        let (mut tokens, text, token) = made();
        assert!(tokens.remove(&token.id).is_some());
        assert_eq!(tokens.check(&text, b"key", 2_000).unwrap_err().reason, Reason::TokenUnknown);
    }
}
