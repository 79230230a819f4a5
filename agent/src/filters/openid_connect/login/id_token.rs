//! What is demanded of an ID token (OpenID Connect Core section 3.1.3.7). A function of values; it fetches no keys and reads no clock.

use aws_lc_rs::digest::{SHA256, SHA384, SHA512, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use subtle::ConstantTimeEq;

use crate::filters::jose::{Algorithm, ClaimRules, Claims, JoseError, KeySet, Unverified};

/// What an ID token must be.
pub(crate) struct Demands<'a> {
    /// Issuers that are believed.
    pub issuers: &'a [Box<str>],
    /// Whom it must be for.
    pub client_id: &'a str,
    /// How it may be signed.
    pub algorithms: &'a [Algorithm],
    /// Seconds by which clocks may differ.
    pub slack: u64,
    /// Nonce of the login.
    pub nonce: Option<&'a str>,
    /// Access token that came with it.
    pub access_token: Option<&'a str>,
    /// Who it must be about, when that is known already.
    pub subject: Option<&'a str>,
}

/// Why an ID token is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IdTokenError {
    /// Its form, its signature or one of the usual claims.
    #[error(transparent)]
    Jose(#[from] JoseError),
    /// It is for several, or was asked for by another.
    #[error("the ID token was issued to another client (azp)")]
    Party,
    /// The nonce is that of another login.
    #[error("the ID token belongs to another login (nonce)")]
    Nonce,
    /// The access token is not the one that was issued with it.
    #[error("the ID token does not belong to the access token (at_hash)")]
    AccessToken,
    /// It is about somebody else.
    #[error("the ID token is about somebody else (sub)")]
    Subject,
}

/// Verifies an ID token at `now`, in seconds since 1970, and gives its claims.
///
/// # Errors
/// The first thing that is not as demanded.
pub(crate) fn verify(token: &str, keys: &KeySet, demands: &Demands<'_>, now: u64) -> Result<Map<String, Value>, IdTokenError> {
    let unverified = Unverified::parse(token)?;
    let algorithm = unverified.algorithm();
    let claims = unverified.verify_with(keys, demands.algorithms)?;
    let rules = ClaimRules {
        skew: demands.slack,
        required: ["iss", "sub", "aud", "exp", "iat"].map(Box::from).to_vec(),
        check_iat: true,
        issuers: demands.issuers.to_vec(),
        audiences: vec![demands.client_id.into()],
        ..ClaimRules::default()
    };
    claims.check(&rules, now).map_err(JoseError::from)?;
    check_party(&claims, demands.client_id)?;
    if let Some(nonce) = demands.nonce
        && !same(claims.text("nonce").unwrap_or_default(), nonce)
    {
        return Err(IdTokenError::Nonce);
    }
    if let (Some(hash), Some(token)) = (claims.get("at_hash"), demands.access_token)
        && !same(hash.as_str().unwrap_or_default(), &half_hash(algorithm, token))
    {
        return Err(IdTokenError::AccessToken);
    }
    let subject = claims.text("sub").unwrap_or_default();
    if subject.is_empty() || demands.subject.is_some_and(|known| known != subject) {
        return Err(IdTokenError::Subject);
    }
    Ok(claims.into_map())
}

/// The claims of an ID token that was verified when it came.
pub(crate) fn claims_of_verified(token: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?).ok()
}

/// `azp` must be us where it stands, and must stand where there are several audiences.
fn check_party(claims: &Claims, client_id: &str) -> Result<(), IdTokenError> {
    let several = claims.get("aud").and_then(Value::as_array).is_some_and(|all| all.len() > 1);
    match claims.get("azp") {
        None if !several => Ok(()),
        Some(party) if party.as_str() == Some(client_id) => Ok(()),
        _ => Err(IdTokenError::Party),
    }
}

/// The left half of the hash of a token (OpenID Connect Core section 3.1.3.6), by the hash of the signature.
fn half_hash(algorithm: Algorithm, token: &str) -> String {
    let hash = match algorithm.name().get(2..) {
        Some("384") => &SHA384,
        Some("256") => &SHA256,
        _ => &SHA512,
    };
    let all = digest(hash, token.as_bytes());
    let all = all.as_ref();
    URL_SAFE_NO_PAD.encode(&all[..all.len() / 2])
}

fn same(a: &str, b: &str) -> bool {
    a.as_bytes().ct_eq(b.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use aws_lc_rs::hmac;
    use serde_json::json;

    use super::*;
    use crate::filters::jose::{ClaimError, Key};

    const SECRET: &[u8] = b"a secret of thirty-two characters";

    fn signed(header: Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(&header), part(claims));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))
    }

    fn claims(change: Value) -> Value {
        let mut claims = json!({"iss": "https://p", "sub": "u1", "aud": "app", "exp": 2_000, "iat": 1_000, "nonce": "n", "email": "u@example"});
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        claims
    }

    fn judge(token: &str, now: u64) -> Result<Map<String, Value>, IdTokenError> {
        let keys = KeySet::of(Key::secret(Algorithm::HS256, SECRET).unwrap());
        let demands = Demands {
            issuers: &["https://p".into()],
            client_id: "app",
            algorithms: &[Algorithm::HS256],
            slack: 120,
            nonce: Some("n"),
            access_token: Some("token"),
            subject: Some("u1"),
        };
        verify(token, &keys, &demands, now)
    }

    fn with(change: Value) -> Result<Map<String, Value>, IdTokenError> {
        judge(&signed(json!({"alg": "HS256"}), &claims(change)), 1_000)
    }

    #[test]
    fn a_good_one_gives_its_claims() {
        let half = half_hash(Algorithm::HS256, "token");
        for good in [
            json!({}),
            json!({"aud": ["app"]}),
            json!({"aud": ["x", "app"], "azp": "app"}),
            json!({"at_hash": half}),
            json!({"iat": 1_120}),
            json!({"exp": 881}),
        ] {
            assert_eq!(with(good).unwrap()["email"], "u@example");
        }
        let token = signed(json!({"alg": "HS256"}), &claims(json!({})));
        assert_eq!(claims_of_verified(&token).unwrap()["sub"], "u1");
        assert!(claims_of_verified("x").is_none() && claims_of_verified("a.%.c").is_none());
    }

    #[test]
    fn each_claim_that_lies_is_found() {
        let claim = |error: ClaimError| IdTokenError::Jose(JoseError::Claim(error));
        for (change, error) in [
            (json!({"iss": "https://evil"}), claim(ClaimError::Issuer)),
            (json!({"iss": null}), claim(ClaimError::Missing("iss".into()))),
            (json!({"aud": "other"}), claim(ClaimError::Audience)),
            (json!({"aud": null}), claim(ClaimError::Missing("aud".into()))),
            (json!({"exp": 880}), claim(ClaimError::Expired(880))),
            (json!({"exp": null}), claim(ClaimError::Missing("exp".into()))),
            (json!({"exp": "soon"}), claim(ClaimError::NotATime("exp"))),
            (json!({"iat": 1_121}), claim(ClaimError::IssuedLater(1_121))),
            (json!({"iat": null}), claim(ClaimError::Missing("iat".into()))),
            (json!({"aud": ["app", "x"]}), IdTokenError::Party),
            (json!({"aud": ["app", "x"], "azp": "x"}), IdTokenError::Party),
            (json!({"azp": "x"}), IdTokenError::Party),
            (json!({"azp": 1}), IdTokenError::Party),
            (json!({"nonce": "m"}), IdTokenError::Nonce),
            (json!({"nonce": null}), IdTokenError::Nonce),
            (json!({"at_hash": "x"}), IdTokenError::AccessToken),
            (json!({"at_hash": 1}), IdTokenError::AccessToken),
            (json!({"sub": "u2"}), IdTokenError::Subject),
            (json!({"sub": ""}), IdTokenError::Subject),
        ] {
            assert_eq!(with(change.clone()).unwrap_err(), error, "{change}");
        }
    }

    #[test]
    fn unsigned_and_otherwise_signed_ones_are_refused() {
        let claims = claims(json!({}));
        for (alg, error) in [
            ("none", JoseError::Unsigned),
            ("None", JoseError::Unsigned),
            ("HS512", JoseError::Algorithm(Algorithm::HS512)),
            ("XX", JoseError::UnknownAlgorithm),
        ] {
            assert_eq!(judge(&signed(json!({"alg": alg}), &claims), 1_000).unwrap_err(), IdTokenError::Jose(error));
        }
        let token = signed(json!({"alg": "HS256"}), &claims);
        let (message, _) = token.rsplit_once('.').unwrap();
        assert_eq!(judge(&format!("{message}."), 1_000).unwrap_err(), IdTokenError::Jose(JoseError::Signature));
        assert_eq!(judge(&token, 2_120).unwrap_err(), IdTokenError::Jose(JoseError::Claim(ClaimError::Expired(2_000))));
    }

    #[test]
    fn the_half_hash_is_that_of_the_specification() {
        // OpenID Connect Core, appendix A.3.
        let token = "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y";
        assert_eq!(half_hash(Algorithm::RS256, token), "77QmUPtjPfzWtF2AnpK9RQ");
        assert_eq!(half_hash(Algorithm::ES384, token).len(), 32);
        assert_eq!(half_hash(Algorithm::EdDSA, token).len(), 43);
    }
}
