//! Claims of a verified token (RFC 7519 section 4) and what is demanded of them. It knows no signatures and reads no clock.

use serde_json::{Map, Value};

use super::ClaimError;

/// What a token says, after its signature was verified.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Claims(Map<String, Value>);

/// What is demanded of claims. The default demands nothing but that times, where they are given, are right to the second.
#[derive(Debug, Clone, Default)]
pub(crate) struct ClaimRules {
    /// Seconds that the clocks of the issuer and ours may differ.
    pub skew: u64,
    /// Claims that must be there.
    pub required: Vec<Box<str>>,
    /// Whether `exp` is looked at.
    pub ignore_exp: bool,
    /// Whether `nbf` is looked at.
    pub ignore_nbf: bool,
    /// Whether a token from the future (`iat`) is refused.
    pub check_iat: bool,
    /// Issuers that are trusted; all when empty.
    pub issuers: Vec<Box<str>>,
    /// Whom the token must be meant for, one of them; anybody when empty.
    pub audiences: Vec<Box<str>>,
}

impl Claims {
    /// Those of a token whose signature holds.
    pub(super) fn new(claims: Map<String, Value>) -> Claims {
        Claims(claims)
    }

    /// A claim.
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// A claim that is text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_str()
    }

    /// All of them.
    pub(crate) fn into_map(self) -> Map<String, Value> {
        self.0
    }

    /// A time in seconds since 1970, rounded down.
    ///
    /// # Errors
    /// It is there and no number.
    pub(crate) fn time(&self, name: &'static str) -> Result<Option<i64>, ClaimError> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => match value.as_i64().or_else(|| value.as_f64().map(|seconds| seconds.floor() as i64)) {
                Some(seconds) => Ok(Some(seconds)),
                None => Err(ClaimError::NotATime(name)),
            },
        }
    }

    /// Whether the token is meant for `audience` (RFC 7519 section 4.1.3).
    pub(crate) fn is_for(&self, audience: &str) -> bool {
        match self.get("aud") {
            Some(Value::String(one)) => one == audience,
            Some(Value::Array(all)) => all.iter().any(|one| one.as_str() == Some(audience)),
            _ => false,
        }
    }

    /// Judges the claims at `now`, in seconds since 1970.
    ///
    /// # Errors
    /// The first that is not as demanded.
    pub(crate) fn check(&self, rules: &ClaimRules, now: u64) -> Result<(), ClaimError> {
        if let Some(name) = rules.required.iter().find(|name| self.get(name).is_none_or(Value::is_null)) {
            return Err(ClaimError::Missing(name.clone()));
        }
        let (now, skew) = (i64::try_from(now).unwrap_or(i64::MAX), i64::try_from(rules.skew).unwrap_or(i64::MAX));
        let (latest, earliest) = (now.saturating_add(skew), now.saturating_sub(skew));
        // Times are read even where they are not judged: one that is no time is wrong in any case.
        if let Some(exp) = self.time("exp")?.filter(|exp| !rules.ignore_exp && *exp <= earliest) {
            return Err(ClaimError::Expired(exp));
        }
        if let Some(nbf) = self.time("nbf")?.filter(|nbf| !rules.ignore_nbf && *nbf > latest) {
            return Err(ClaimError::NotYetValid(nbf));
        }
        if let Some(iat) = self.time("iat")?.filter(|iat| rules.check_iat && *iat > latest) {
            return Err(ClaimError::IssuedLater(iat));
        }
        if !rules.issuers.is_empty() && !self.text("iss").is_some_and(|iss| rules.issuers.iter().any(|known| **known == *iss)) {
            return Err(ClaimError::Issuer);
        }
        if !rules.audiences.is_empty() && !rules.audiences.iter().any(|audience| self.is_for(audience)) {
            return Err(ClaimError::Audience);
        }
        Ok(())
    }
}
