//! Signature algorithms by their names (RFC 7518 section 3.1, RFC 8037) and the primitives behind them. `none` is not among them. It knows no keys.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{self, VerificationAlgorithm};
use schemars::JsonSchema;
use serde::Deserialize;

/// How a token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
pub(crate) enum Algorithm {
    /// HMAC with SHA-256.
    HS256,
    /// HMAC with SHA-384.
    HS384,
    /// HMAC with SHA-512.
    HS512,
    /// RSA PKCS#1 v1.5 with SHA-256.
    RS256,
    /// RSA PKCS#1 v1.5 with SHA-384.
    RS384,
    /// RSA PKCS#1 v1.5 with SHA-512.
    RS512,
    /// RSA PSS with SHA-256.
    PS256,
    /// RSA PSS with SHA-384.
    PS384,
    /// RSA PSS with SHA-512.
    PS512,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// ECDSA on P-384 with SHA-384.
    ES384,
    /// ECDSA on P-521 with SHA-512.
    ES512,
    /// Ed25519.
    EdDSA,
}

/// What kind of key an algorithm takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// A shared secret.
    Secret,
    /// An RSA key.
    Rsa,
    /// A key on P-256.
    P256,
    /// A key on P-384.
    P384,
    /// A key on P-521.
    P521,
    /// An Ed25519 key.
    Ed25519,
}

/// The primitive that verifies.
pub(super) enum Primitive {
    Hmac(hmac::Algorithm),
    Public(&'static dyn VerificationAlgorithm),
}

/// Names of algorithms.
static NAMES: [(&str, Algorithm); 13] = [
    ("HS256", Algorithm::HS256),
    ("HS384", Algorithm::HS384),
    ("HS512", Algorithm::HS512),
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("ES512", Algorithm::ES512),
    ("EdDSA", Algorithm::EdDSA),
];

impl Algorithm {
    /// All of them.
    pub(crate) fn all() -> impl Iterator<Item = Algorithm> {
        NAMES.iter().map(|(_, algorithm)| *algorithm)
    }

    /// The algorithm of this name; none for `none` and for what we do not know.
    pub(crate) fn of_name(name: &str) -> Option<Algorithm> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
    }

    /// As tokens and configurations write it.
    pub(crate) fn name(self) -> &'static str {
        NAMES.iter().find(|(_, known)| *known == self).map_or("", |(name, _)| name)
    }

    /// What kind of key it takes.
    pub(crate) fn family(self) -> Family {
        match self {
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => Family::Secret,
            Algorithm::ES256 => Family::P256,
            Algorithm::ES384 => Family::P384,
            Algorithm::ES512 => Family::P521,
            Algorithm::EdDSA => Family::Ed25519,
            _ => Family::Rsa,
        }
    }

    /// Whether signer and verifier share a secret, rather than the verifier having a public key.
    pub(crate) fn is_symmetric(self) -> bool {
        self.family() == Family::Secret
    }

    pub(super) fn primitive(self) -> Primitive {
        match self {
            Algorithm::HS256 => Primitive::Hmac(hmac::HMAC_SHA256),
            Algorithm::HS384 => Primitive::Hmac(hmac::HMAC_SHA384),
            Algorithm::HS512 => Primitive::Hmac(hmac::HMAC_SHA512),
            Algorithm::RS256 => Primitive::Public(&signature::RSA_PKCS1_2048_8192_SHA256),
            Algorithm::RS384 => Primitive::Public(&signature::RSA_PKCS1_2048_8192_SHA384),
            Algorithm::RS512 => Primitive::Public(&signature::RSA_PKCS1_2048_8192_SHA512),
            Algorithm::PS256 => Primitive::Public(&signature::RSA_PSS_2048_8192_SHA256),
            Algorithm::PS384 => Primitive::Public(&signature::RSA_PSS_2048_8192_SHA384),
            Algorithm::PS512 => Primitive::Public(&signature::RSA_PSS_2048_8192_SHA512),
            Algorithm::ES256 => Primitive::Public(&signature::ECDSA_P256_SHA256_FIXED),
            Algorithm::ES384 => Primitive::Public(&signature::ECDSA_P384_SHA384_FIXED),
            Algorithm::ES512 => Primitive::Public(&signature::ECDSA_P521_SHA512_FIXED),
            Algorithm::EdDSA => Primitive::Public(&signature::ED25519),
        }
    }
}

impl Family {
    /// For people.
    pub(super) fn describe(self) -> &'static str {
        match self {
            Family::Secret => "a shared secret",
            Family::Rsa => "an RSA key of 2048 to 8192 bits",
            Family::P256 => "a key on the curve P-256",
            Family::P384 => "a key on the curve P-384",
            Family::P521 => "a key on the curve P-521",
            Family::Ed25519 => "an Ed25519 key",
        }
    }
}
