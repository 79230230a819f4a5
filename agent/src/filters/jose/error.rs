//! What can be wrong with tokens and keys, in words that people understand and that give no secret away. It knows no plugin.

use super::Algorithm;

/// Why a token is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JoseError {
    /// Longer than [`super::MAX_TOKEN`].
    #[error("the token is longer than {} bytes", super::MAX_TOKEN)]
    TooLong,
    /// Not three parts with dots between.
    #[error("expected three parts with dots between them: header.claims.signature")]
    Parts,
    /// A part is not base64url without padding.
    #[error("the {0} is not base64url without padding")]
    Base64(&'static str),
    /// A part is no JSON object.
    #[error("the {0} is not a JSON object")]
    Json(&'static str),
    /// A header parameter has the wrong type.
    #[error("the header parameter \"{0}\" is missing or no string")]
    Parameter(&'static str),
    /// `alg` is `none`.
    #[error("the token is not signed (alg is none)")]
    Unsigned,
    /// `alg` is not known.
    #[error("the algorithm of the token is not supported")]
    UnknownAlgorithm,
    /// The header demands something that we do not do (RFC 7515 section 4.1.11).
    #[error("the token has critical header parameters (crit), which are not supported")]
    Critical,
    /// `alg` is another one than the configuration allows.
    #[error("the algorithm {} is not the one that is configured", .0.name())]
    Algorithm(Algorithm),
    /// No key of the set has the token's `kid`, or none fits its algorithm.
    #[error("no key fits the token (kid and alg)")]
    NoKey,
    /// The signature is wrong.
    #[error("signature mismatch")]
    Signature,
    /// A claim is not as it must be.
    #[error(transparent)]
    Claim(#[from] ClaimError),
}

/// What is wrong with a claim.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ClaimError {
    /// A claim that must be there is not.
    #[error("the claim \"{0}\" is missing")]
    Missing(Box<str>),
    /// A time that is no number.
    #[error("the claim \"{0}\" is not a number of seconds")]
    NotATime(&'static str),
    /// `exp` is over.
    #[error("the token expired at {0} (seconds since 1970)")]
    Expired(i64),
    /// `nbf` is to come.
    #[error("the token is not valid before {0} (seconds since 1970)")]
    NotYetValid(i64),
    /// `iat` is to come.
    #[error("the token says that it was issued in the future, at {0} (seconds since 1970)")]
    IssuedLater(i64),
    /// `iss` is not among those that are trusted.
    #[error("the issuer of the token (iss) is not trusted")]
    Issuer,
    /// `aud` names nobody of those we are.
    #[error("the token is meant for somebody else (aud)")]
    Audience,
}

/// Why a key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyError {
    /// No PEM of a kind that holds a public key.
    #[error("expected PEM: -----BEGIN PUBLIC KEY-----, -----BEGIN RSA PUBLIC KEY----- or -----BEGIN CERTIFICATE-----")]
    Pem,
    /// A private key where a public one is expected.
    #[error("expected a public key, got a private one; give the gateway the public key only")]
    Private,
    /// The certificate cannot be read.
    #[error("the certificate cannot be read")]
    Certificate,
    /// The key is not one for the algorithm.
    #[error("the key does not fit {}: expected {}", .0.name(), .0.family().describe())]
    Mismatch(Algorithm),
    /// A shared secret is needed.
    #[error("{} needs a shared secret", .0.name())]
    NeedsSecret(Algorithm),
    /// A public key is needed.
    #[error("{} needs a public key", .0.name())]
    NeedsPublicKey(Algorithm),
    /// The secret is empty.
    #[error("the secret is empty")]
    Empty,
    /// A JWK of a kind that we do not use.
    #[error("the JWK is of no kind that verifies signatures here: expected kty RSA, EC (P-256, P-384, P-521) or OKP (Ed25519)")]
    Kind,
    /// A JWK lacks a parameter or it is malformed.
    #[error("the parameter \"{0}\" of the JWK is missing or malformed")]
    Parameter(&'static str),
    /// A set of keys is no JSON of this form.
    #[error("expected a JSON object with an array \"keys\"")]
    Set,
    /// A set has too many keys.
    #[error("the set holds more than {0} keys")]
    TooMany(usize),
    /// A set has no key that can be used.
    #[error("the set holds no key that can verify signatures")]
    NoneUsable,
}
