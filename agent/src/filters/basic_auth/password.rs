//! Passwords as they are kept: plain, or as the hashes of `htpasswd`. It knows no users.

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq;

use super::md5crypt;

/// Dearest bcrypt that is accepted: about a second of one core.
const MAX_BCRYPT_COST: u32 = 14;
/// Longest password that a client may send, so that hashing stays bounded.
pub(super) const MAX_PASSWORD: usize = 1024;

/// A password as it is kept.
#[derive(Debug)]
pub(super) enum Password {
    /// SHA-256 of a password that was given in plain: comparing says nothing about its length.
    Plain([u8; 32]),
    /// `{SHA}`: SHA-1 without salt.
    Sha1([u8; 20]),
    /// `$apr1$salt$hash`: MD5, a thousand times.
    Apr1(Box<str>),
    /// `$2y$cost$…`.
    Bcrypt(Box<str>, u32),
}

impl Password {
    /// Reads what the configuration says: a hash when it looks like one, else the password itself.
    ///
    /// # Errors
    /// It looks like a hash and is none, or is one that takes too long.
    pub(super) fn parse(text: &str) -> Result<Password, String> {
        if let Some(encoded) = text.strip_prefix("{SHA}") {
            let hash = STANDARD.decode(encoded).ok().and_then(|bytes| <[u8; 20]>::try_from(bytes).ok());
            return hash.map(Password::Sha1).ok_or_else(|| malformed("{SHA}", "base64 of 20 bytes"));
        }
        if text.starts_with("$apr1$") {
            return match md5crypt::parts(text) {
                Some(_) => Ok(Password::Apr1(text.into())),
                None => Err(malformed("$apr1$", "a salt of at most 8 characters, a dollar sign and 22 characters")),
            };
        }
        if ["$2a$", "$2b$", "$2x$", "$2y$"].iter().any(|prefix| text.starts_with(prefix)) {
            let parts: bcrypt::HashParts = text.parse().map_err(|_| malformed("bcrypt", "$2y$, a cost and 53 characters"))?;
            return match parts.get_cost() {
                cost @ ..=MAX_BCRYPT_COST => Ok(Password::Bcrypt(text.into(), cost)),
                cost => {
                    Err(format!("a bcrypt cost of {cost} takes too long for each request; expected at most {MAX_BCRYPT_COST}"))
                }
            };
        }
        Ok(Password::Plain(sha256(text.as_bytes())))
    }

    /// What a check costs, in steps that double; 0 when it is so quick that it is done at once.
    pub(super) fn cost(&self) -> u32 {
        match self {
            Password::Plain(_) | Password::Sha1(_) => 0,
            Password::Apr1(_) => 1,
            Password::Bcrypt(_, cost) => 1 + cost,
        }
    }

    /// Whether this is the password; compared in constant time.
    pub(super) fn is(&self, given: &[u8]) -> bool {
        match self {
            Password::Plain(kept) => bool::from(sha256(given).ct_eq(kept)),
            Password::Sha1(kept) => {
                let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, given);
                bool::from(hash.as_ref().ct_eq(kept))
            }
            Password::Apr1(kept) => md5crypt::parts(kept)
                .is_some_and(|(salt, hash)| bool::from(md5crypt::apr1(given, salt.as_bytes()).as_bytes().ct_eq(hash.as_bytes()))),
            Password::Bcrypt(kept, _) => bcrypt::verify(given, kept).unwrap_or(false),
        }
    }
}

fn malformed(kind: &str, expected: &str) -> String {
    format!("looks like a {kind} hash of htpasswd but is none; expected {expected}")
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    /// Made with `openssl passwd -apr1`, `crypt(3)` and SHA-1 of other libraries; the password is `open sesame`.
    const HASHES: [&str; 4] = [
        "open sesame",
        "{SHA}W8r/fyL/UzygmbNAjq2HbA67qac=",
        "$apr1$7fK2mQ1x$4vghRVLueL5tVu8FyyvyD0",
        "$2y$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW",
    ];

    #[test]
    fn every_kind_of_hash_knows_its_password_and_no_other() {
        for text in HASHES {
            let password = Password::parse(text).unwrap();
            assert!(password.is(b"open sesame"), "{text}");
            for other in ["", "open sesam", "open sesame ", text].iter().filter(|other| **other != "open sesame") {
                assert!(!password.is(other.as_bytes()), "{text} {other}");
            }
        }
        let costs: Vec<_> = HASHES.iter().map(|text| Password::parse(text).unwrap().cost()).collect();
        assert_eq!(costs, [0, 0, 1, 6]);
    }

    #[test]
    fn what_looks_like_a_hash_must_be_one() {
        for text in
            ["{SHA}abc", "{SHA}", "$apr1$", "$apr1$salt", "$apr1$toolongsalt$0123456789012345678901", "$2y$05$short", "$2y$"]
        {
            assert!(Password::parse(text).unwrap_err().contains("looks like"), "{text}");
        }
        let dear = HASHES[3].replace("$05$", "$15$");
        assert!(Password::parse(&dear).unwrap_err().contains("at most 14"));
        assert!(Password::parse("$5$plain").unwrap().is(b"$5$plain"));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_fall(text in ".{0,80}", prefix in 0usize..5, given in prop::collection::vec(any::<u8>(), 0..40)) {
            let prefix = ["", "{SHA}", "$apr1$", "$2y$", "$2y$04$"][prefix];
            if let Ok(password) = Password::parse(&format!("{prefix}{text}")) && password.cost() < 6 {
                prop_assert!(!password.is(&given) || prefix.is_empty());
            }
        }
    }
}
