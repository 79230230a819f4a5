//! One key that verifies signatures, parsed once: from a secret, PEM or a JWK (RFC 7517). It knows no tokens.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::ParsedPublicKey;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::algorithm::{Family, Primitive};
use super::{Algorithm, JoseError, KeyError, pem};

/// Bytes of RSA keys of 2048 to 8192 bits as DER: modulus, exponent and what is around them. The library looks at the size only when it verifies.
const RSA_DER: std::ops::RangeInclusive<usize> = 2048 / 8..=8192 / 8 + 48;

/// A key, ready to verify with each algorithm that it is meant for.
#[derive(Debug)]
pub(crate) struct Key {
    kid: Option<Box<str>>,
    verifiers: Vec<(Algorithm, Verifier)>,
}

enum Verifier {
    Hmac(Box<hmac::Key>),
    Public(ParsedPublicKey),
}

/// Shows the kind only, never the key.
impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Verifier::Hmac(_) => "Hmac",
            Verifier::Public(_) => "Public",
        })
    }
}

impl Key {
    /// A shared secret for one algorithm.
    ///
    /// # Errors
    /// The algorithm takes no secret, or the secret is empty.
    pub(crate) fn secret(algorithm: Algorithm, secret: &[u8]) -> Result<Key, KeyError> {
        let Primitive::Hmac(primitive) = algorithm.primitive() else { return Err(KeyError::NeedsPublicKey(algorithm)) };
        if secret.is_empty() {
            return Err(KeyError::Empty);
        }
        Ok(Key { kid: None, verifiers: vec![(algorithm, Verifier::Hmac(Box::new(hmac::Key::new(primitive, secret))))] })
    }

    /// A public key, or the one of a certificate, as PEM, for one algorithm.
    ///
    /// # Errors
    /// It is no such PEM, or the key does not fit the algorithm.
    pub(crate) fn pem(algorithm: Algorithm, text: &str) -> Result<Key, KeyError> {
        let der = pem::public_key(text)?;
        Ok(Key { kid: None, verifiers: vec![(algorithm, public(algorithm, &der)?)] })
    }

    /// A public key as PEM for each algorithm that it fits, for those who take the algorithm from elsewhere.
    ///
    /// # Errors
    /// It is no such PEM, or the key fits none.
    pub(crate) fn pem_for_any(text: &str) -> Result<Key, KeyError> {
        let der = pem::public_key(text)?;
        let fitting = Algorithm::all().filter_map(|algorithm| Some((algorithm, public(algorithm, &der).ok()?)));
        let verifiers: Vec<_> = fitting.collect();
        if verifiers.is_empty() { Err(KeyError::Kind) } else { Ok(Key { kid: None, verifiers }) }
    }

    /// A public JSON Web Key (RFC 7517, RFC 7518 section 6, RFC 8037). Shared secrets (`oct`) are refused: what is published is no secret.
    ///
    /// # Errors
    /// It is no key that verifies signatures here.
    pub(crate) fn jwk(jwk: &Map<String, Value>) -> Result<Key, KeyError> {
        let text = |name: &'static str| jwk.get(name).and_then(Value::as_str);
        let bytes = |name: &'static str| {
            let decoded = text(name).and_then(|value| URL_SAFE_NO_PAD.decode(value.trim_end_matches('=')).ok());
            decoded.filter(|bytes| !bytes.is_empty()).ok_or(KeyError::Parameter(name))
        };
        let verifies = |operation: &Value| operation.as_str() == Some("verify");
        if text("use").is_some_and(|purpose| purpose != "sig")
            || jwk.get("key_ops").and_then(Value::as_array).is_some_and(|operations| !operations.iter().any(verifies))
        {
            return Err(KeyError::Kind);
        }
        let (family, material) = match (text("kty"), text("crv")) {
            (Some("RSA"), _) => (Family::Rsa, pem::rsa_der(&bytes("n")?, &bytes("e")?)),
            (Some("EC"), Some("P-256")) => (Family::P256, point(&bytes("x")?, &bytes("y")?, 32)?),
            (Some("EC"), Some("P-384")) => (Family::P384, point(&bytes("x")?, &bytes("y")?, 48)?),
            (Some("EC"), Some("P-521")) => (Family::P521, point(&bytes("x")?, &bytes("y")?, 66)?),
            (Some("OKP"), Some("Ed25519")) => (Family::Ed25519, bytes("x")?),
            _ => return Err(KeyError::Kind),
        };
        // `Ed25519` is what RFC 9864 calls it.
        let named = text("alg").map(|name| if name == "Ed25519" { "EdDSA" } else { name });
        let meant = |algorithm: &Algorithm| algorithm.family() == family && named.is_none_or(|name| name == algorithm.name());
        let verifiers = Algorithm::all().filter(meant).map(|algorithm| Ok((algorithm, public(algorithm, &material)?)));
        let verifiers = verifiers.collect::<Result<Vec<_>, KeyError>>()?;
        if verifiers.is_empty() {
            return Err(KeyError::Parameter("alg"));
        }
        Ok(Key { kid: text("kid").map(Into::into), verifiers })
    }

    /// The id that tokens name it by.
    pub(super) fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// Whether it may verify with this algorithm.
    pub(crate) fn fits(&self, algorithm: Algorithm) -> bool {
        self.verifiers.iter().any(|(known, _)| *known == algorithm)
    }

    /// Whether this is the signature of the message; in constant time where a secret is at stake.
    pub(super) fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> Result<(), JoseError> {
        let (_, verifier) = self.verifiers.iter().find(|(known, _)| *known == algorithm).ok_or(JoseError::NoKey)?;
        let verdict = match verifier {
            Verifier::Hmac(key) => hmac::verify(key, message, signature),
            Verifier::Public(key) => key.verify_sig(message, signature),
        };
        verdict.map_err(|_| JoseError::Signature)
    }
}

fn public(algorithm: Algorithm, material: &[u8]) -> Result<Verifier, KeyError> {
    let Primitive::Public(primitive) = algorithm.primitive() else { return Err(KeyError::NeedsSecret(algorithm)) };
    if algorithm.family() == Family::Rsa && !RSA_DER.contains(&material.len()) {
        return Err(KeyError::Mismatch(algorithm));
    }
    let key = ParsedPublicKey::new(primitive, material).map_err(|_| KeyError::Mismatch(algorithm))?;
    Ok(Verifier::Public(key))
}

/// An uncompressed point (SEC 1 section 2.3.3). Coordinates are padded to the size of the field, which some issuers forget.
fn point(x: &[u8], y: &[u8], size: usize) -> Result<Vec<u8>, KeyError> {
    let mut out = vec![4];
    for (coordinate, name) in [(x, "x"), (y, "y")] {
        let missing = size.checked_sub(coordinate.len()).ok_or(KeyError::Parameter(name))?;
        out.extend(std::iter::repeat_n(0, missing));
        out.extend_from_slice(coordinate);
    }
    Ok(out)
}
