//! One service-account token (JWT, RFC 7519): read, verified, reduced to the account. It knows neither where keys come from nor what accounts are good for.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;

use super::keys::{Algorithm, Keys};

/// Bytes of a token; those of clusters have about 1 KiB.
const MAX_TOKEN: usize = 16 * 1024;
/// Seconds that the clocks of cluster and control plane may differ.
const LEEWAY: u64 = 60;
/// What `sub` of a service account starts with.
const SUBJECT: &str = "system:serviceaccount:";

/// A service account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::ca) struct Account {
    pub(in crate::ca) namespace: String,
    pub(in crate::ca) name: String,
}

/// A token that nobody has vouched for yet.
pub(super) struct Unverified<'a> {
    pub(super) algorithm: Algorithm,
    pub(super) key_id: Option<String>,
    signed: &'a str,
    claims: &'a str,
    signature: Vec<u8>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    crit: Option<Value>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Value,
    exp: f64,
    #[serde(default)]
    nbf: Option<f64>,
    #[serde(default, rename = "kubernetes.io")]
    kubernetes: Option<Bound>,
}

/// What the token is bound to.
#[derive(Deserialize)]
struct Bound {
    namespace: String,
    serviceaccount: Named,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

impl<'a> Unverified<'a> {
    /// Takes a token apart.
    pub(super) fn read(token: &'a str) -> Result<Unverified<'a>, String> {
        if token.len() > MAX_TOKEN {
            return Err(format!("the token has {} bytes, at most {MAX_TOKEN} are read", token.len()));
        }
        let no_jwt = || "it is no signed JWT".to_owned();
        let (signed, signature) = token.rsplit_once('.').ok_or_else(no_jwt)?;
        let (header, claims) = signed.split_once('.').filter(|(_, claims)| !claims.contains('.')).ok_or_else(no_jwt)?;
        let header: Header = parse(header, "header")?;
        if header.crit.is_some() {
            return Err("it has critical extensions".into());
        }
        let algorithm = match header.alg.as_str() {
            "RS256" => Algorithm::Rs256,
            "ES256" => Algorithm::Es256,
            _ => return Err("it is signed with an algorithm that is not taken; expected RS256 or ES256".into()),
        };
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| no_jwt())?;
        Ok(Unverified { algorithm, key_id: header.kid, signed, claims, signature })
    }

    /// The account, when a key of the cluster vouches for it, and the token is meant for us and valid now (Unix seconds).
    pub(super) fn verify(&self, keys: &Keys, issuer: &str, audience: &str, now: u64) -> Result<Account, String> {
        let candidates = keys.find(self.algorithm, self.key_id.as_deref());
        if !candidates.into_iter().any(|key| key.signed(self.signed.as_bytes(), &self.signature)) {
            return Err("no key of the cluster has signed it".into());
        }
        let claims: Claims = parse(self.claims, "claims")?;
        if claims.iss != issuer {
            return Err(format!("its issuer is {:?}, expected {issuer:?}", shown(&claims.iss)));
        }
        let for_us = match &claims.aud {
            Value::String(one) => one == audience,
            Value::Array(all) => all.iter().any(|one| one == audience),
            _ => false,
        };
        if !for_us {
            return Err(format!("it is not for the audience {audience:?}; project one with `serviceAccountToken.audience`"));
        }
        // Seconds since 1970 are exact in doubles for a long time.
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let (early, late) = (now.saturating_sub(LEEWAY) as f64, (now + LEEWAY) as f64);
        if claims.exp <= early || claims.nbf.is_some_and(|nbf| nbf > late) {
            return Err("it has expired, or is not valid yet".into());
        }
        account(&claims)
    }
}

fn account(claims: &Claims) -> Result<Account, String> {
    let parts = claims.sub.strip_prefix(SUBJECT).and_then(|rest| rest.split_once(':'));
    let (namespace, name) = parts.ok_or_else(|| format!("its subject {:?} is no service account", shown(&claims.sub)))?;
    if let Some(bound) = &claims.kubernetes
        && (bound.namespace != namespace || bound.serviceaccount.name != name)
    {
        return Err("its subject and what it is bound to differ".into());
    }
    Ok(Account { namespace: namespace.to_owned(), name: name.to_owned() })
}

fn parse<T: serde::de::DeserializeOwned>(part: &str, what: &str) -> Result<T, String> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| format!("its {what} is no base64url"))?;
    serde_json::from_slice(&bytes).map_err(|_| format!("its {what} is not what a service account's token has"))
}

fn shown(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(100).collect()
}
