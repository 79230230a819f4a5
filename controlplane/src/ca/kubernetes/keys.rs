//! The public keys of a cluster (JWKS, RFC 7517), and signatures by them. Only RS256 and ES256, which clusters use. It knows no claims.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

/// Keys of one set.
const MAX_KEYS: usize = 32;
/// Bytes of a coordinate on P-256.
const COORDINATE: usize = 32;
/// Bytes of an RSA modulus of 8192 bits.
const MAX_MODULUS: usize = 1_024;

/// How a token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
}

/// The keys of a cluster.
#[derive(Debug, Default)]
pub(super) struct Keys(Vec<Key>);

#[derive(Debug)]
pub(super) struct Key {
    id: Option<String>,
    public: Public,
}

#[derive(Debug)]
enum Public {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// Uncompressed point.
    P256(Vec<u8>),
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Wire>,
}

#[derive(Deserialize)]
struct Wire {
    kty: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default, rename = "use")]
    usage: Option<String>,
    #[serde(default)]
    alg: Option<String>,
    #[serde(default)]
    crv: String,
    #[serde(default)]
    n: String,
    #[serde(default)]
    e: String,
    #[serde(default)]
    x: String,
    #[serde(default)]
    y: String,
}

impl Keys {
    /// Reads a set; keys of other kinds and for other uses are skipped.
    pub(super) fn read(text: &str) -> Result<Keys, String> {
        let set: Set = serde_json::from_str(text).map_err(|error| format!("expected a JSON Web Key Set: {error}"))?;
        let keys: Vec<Key> = set.keys.into_iter().take(MAX_KEYS).filter_map(Key::read).collect();
        if keys.is_empty() {
            return Err("expected keys for RS256 or ES256, found none".into());
        }
        Ok(Keys(keys))
    }

    /// Keys that may have made a signature.
    pub(super) fn find<'a>(&'a self, algorithm: Algorithm, id: Option<&'a str>) -> impl Iterator<Item = &'a Key> {
        self.0.iter().filter(move |key| key.algorithm() == algorithm && id.is_none_or(|id| key.id.as_deref() == Some(id)))
    }
}

impl Key {
    fn read(wire: Wire) -> Option<Key> {
        if wire.usage.is_some_and(|usage| usage != "sig") {
            return None;
        }
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
        let public = match wire.kty.as_str() {
            "RSA" if wire.alg.is_none_or(|alg| alg == "RS256") => {
                let (n, e) = (decode(&wire.n)?, decode(&wire.e)?);
                ((256..=MAX_MODULUS).contains(&n.len()) && (1..=8).contains(&e.len())).then_some(Public::Rsa { n, e })?
            }
            "EC" if wire.crv == "P-256" => {
                let (x, y) = (decode(&wire.x)?, decode(&wire.y)?);
                (x.len() == COORDINATE && y.len() == COORDINATE).then(|| Public::P256([&[4], &x[..], &y[..]].concat()))?
            }
            _ => return None,
        };
        Some(Key { id: wire.kid, public })
    }

    fn algorithm(&self) -> Algorithm {
        match self.public {
            Public::Rsa { .. } => Algorithm::Rs256,
            Public::P256(_) => Algorithm::Es256,
        }
    }

    /// Whether it made this signature.
    pub(super) fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.public {
            Public::Rsa { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature).is_ok()
            }
            Public::P256(point) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature).is_ok(),
        }
    }
}
