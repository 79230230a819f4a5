//! Configuration of `jwt-auth`.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::Proven;
use super::super::check::{self, Faults};
use super::super::fields::is_name;
use super::super::identity::{self, BASE64};
use super::super::jose::{Algorithm, Key, KeySet};
use crate::secrets::reference::is_reference;

/// Configuration on a route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Field that carries the token, with or without `Bearer` before it; looked at first. None when empty, as with those below.
    #[serde(default = "header")]
    pub header: String,
    /// Whether the field carries a token only with `Bearer` before it: other schemes are none then.
    #[serde(default)]
    pub bearer_only: bool,
    /// Query argument that carries the token; looked at before the cookie.
    #[serde(default = "jwt")]
    pub query: String,
    /// Cookie that carries the token.
    #[serde(default = "jwt")]
    pub cookie: String,
    /// Whether the token is taken out of the request before it goes upstream.
    #[serde(default)]
    pub hide_credentials: bool,
    /// Claim that names the consumer by its `key`.
    #[serde(default = "key_claim_name")]
    pub key_claim_name: String,
    /// Whether all claims are kept as JSON in the variable `jwt_auth_payload`; each claim is a variable `jwt_claim_<name>` in any case.
    #[serde(default)]
    pub store_in_ctx: bool,
    /// What `WWW-Authenticate` names.
    #[serde(default = "jwt")]
    pub realm: String,
    /// Consumer that those are who prove nothing.
    #[schemars(length(min = 1))]
    pub anonymous_consumer: Option<String>,
    /// Claims that must be there, `exp` or `nbf`; both are judged whenever they are there.
    #[schemars(length(min = 1))]
    pub claims_to_verify: Option<Vec<TimeClaim>>,
    /// Where the issuer publishes its keys (JWKS); tokens are then verified with these and not with keys of consumers.
    pub jwks_url: Option<String>,
    /// Keys of the issuer in place (JWKS), public ones, instead of `jwks_url`.
    pub jwks: Option<Map<String, Value>>,
    /// Whether requests without a token go on without a consumer.
    #[serde(default)]
    pub optional: bool,
    /// Field by which the upstream gets the claims as they stand in the token, in base64url.
    pub payload_header: Option<String>,
    /// Fields by which the upstream gets single claims: their names, and those of the claims, with dots for claims within claims.
    #[serde(default)]
    pub claim_headers: BTreeMap<String, String>,
    /// Algorithms that tokens of the issuer may be signed with; all that have public keys when absent.
    #[schemars(length(min = 1))]
    pub algorithms: Option<Vec<Algorithm>>,
    /// Whether a token of the issuer must name a consumer; with `false` others go on without one.
    #[serde(default = "yes")]
    pub consumer_required: bool,
    /// Issuers (`iss`) that are trusted; all when absent.
    #[schemars(length(min = 1))]
    pub issuers: Option<Vec<String>>,
    /// Audiences (`aud`) of which a token must have one; any when absent.
    #[schemars(length(min = 1))]
    pub audiences: Option<Vec<String>>,
    /// Seconds that the clocks of issuers and ours may differ.
    #[serde(default)]
    pub clock_skew: u32,
    /// Seconds after which published keys are fetched again.
    #[serde(default = "jwks_ttl")]
    #[schemars(range(min = 1))]
    pub jwks_ttl: u32,
    /// Milliseconds within which keys must be fetched.
    #[serde(default = "timeout")]
    #[schemars(range(min = 1, max = 60_000))]
    pub timeout: u32,
    /// Whether the certificate of the server that publishes keys is verified.
    #[serde(default = "yes")]
    pub ssl_verify: bool,
}

/// Claims about time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum TimeClaim {
    /// Until when the token is good.
    Exp,
    /// From when on it is.
    Nbf,
}

/// Configuration on a consumer or credential.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Credential {
    /// What tokens name the consumer by, unique over all consumers.
    #[schemars(length(min = 1))]
    pub key: String,
    /// The shared secret, for algorithms that begin with HS.
    pub secret: Option<String>,
    /// The public key or certificate as PEM, for all others.
    pub public_key: Option<String>,
    /// Where the consumer publishes its public keys (JWKS), instead of `public_key`.
    pub jwks_url: Option<String>,
    /// The algorithm that tokens must be signed with; HS256 when absent, with `jwks_url` all that have public keys.
    pub algorithm: Option<Algorithm>,
    /// Seconds that tokens live which tools sign for this consumer; the gateway itself signs none.
    #[serde(default = "exp")]
    #[schemars(range(min = 1))]
    pub exp: u32,
    /// Whether `secret` is base64.
    #[serde(default)]
    pub base64_secret: bool,
    /// Seconds that clocks may differ when `exp` and `nbf` are judged.
    #[serde(default)]
    pub lifetime_grace_period: u32,
}

/// What the tokens of a consumer are verified with.
#[derive(Debug)]
pub(super) struct Known {
    pub verifier: Verifier,
    /// Seconds that clocks may differ.
    pub grace: u32,
}

/// The key, or where there are some.
#[derive(Debug)]
pub(super) enum Verifier {
    Key(Key, Algorithm),
    Published {
        url: Box<str>,
        allowed: Box<[Algorithm]>,
    },
    /// What stands here was a reference to a secret that is not known: nothing verifies.
    Nothing,
}

/// Fields that are made of claims.
const MAX_CLAIM_HEADERS: usize = 32;

fn header() -> String {
    "authorization".to_owned()
}

fn jwt() -> String {
    "jwt".to_owned()
}

fn key_claim_name() -> String {
    "key".to_owned()
}

fn yes() -> bool {
    true
}

fn jwks_ttl() -> u32 {
    300
}

fn timeout() -> u32 {
    3_000
}

fn exp() -> u32 {
    86_400
}

/// All algorithms for which a key can be published.
pub(super) fn public_algorithms() -> Box<[Algorithm]> {
    Algorithm::all().filter(|algorithm| !algorithm.is_symmetric()).collect()
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        self.check_fields(faults);
        identity::check_present("key_claim_name", &self.key_claim_name, faults);
        identity::check_common(&self.realm, self.anonymous_consumer.as_deref(), faults);
        let lists = [
            ("claims_to_verify", self.claims_to_verify.as_ref().map(Vec::len)),
            ("algorithms", self.algorithms.as_ref().map(Vec::len)),
            ("issuers", self.issuers.as_ref().map(Vec::len)),
            ("audiences", self.audiences.as_ref().map(Vec::len)),
        ];
        for (path, _) in lists.iter().filter(|(_, len)| *len == Some(0)) {
            faults.add(*path, "expect array to have at least 1 items");
        }
        if self.algorithms.iter().flatten().any(|algorithm| algorithm.is_symmetric()) {
            faults.add("algorithms", "expected algorithms with public keys: what is published is no secret");
        }
        let has_issuer = self.jwks_url.is_some() || self.jwks.is_some();
        if !has_issuer && self.algorithms.is_some() {
            faults.add("algorithms", "only meant for tokens of an issuer; set jwks_url, or algorithm on the consumer");
        }
        if self.jwks_url.is_some() && self.jwks.is_some() {
            faults.add("jwks", "expected either jwks or jwks_url");
        }
        if let Some(Err(error)) = self.jwks.as_ref().map(KeySet::of_json) {
            faults.add("jwks", error.to_string());
        }
        if self.optional && self.anonymous_consumer.is_some() {
            faults.add("optional", "expected either optional or anonymous_consumer: both say who those are without a token");
        }
        if !has_issuer && !self.consumer_required {
            faults.add("consumer_required", "without jwks_url the consumer has the key, so there must be one");
        }
        check_url("jwks_url", self.jwks_url.as_deref(), faults);
        faults.range("jwks_ttl", self.jwks_ttl, 1, u32::MAX);
        faults.range("timeout", self.timeout, 1, 60_000);
    }
}

impl Config {
    /// The places of tokens, and the fields that are made of them.
    fn check_fields(&self, faults: &mut Faults) {
        let mut named = |path: String, name: &str| {
            if !is_name(name) {
                faults.add(path, format!("expected the name of a header field, got \"{name}\""));
            }
        };
        if !self.header.is_empty() {
            named("header".to_owned(), &self.header);
        }
        if let Some(name) = &self.payload_header {
            named("payload_header".to_owned(), name);
        }
        self.claim_headers.keys().for_each(|name| named(format!("claim_headers.{name}"), name));
        if self.claim_headers.len() > MAX_CLAIM_HEADERS {
            faults.add("claim_headers", format!("expected at most {MAX_CLAIM_HEADERS} fields"));
        }
        if self.header.is_empty() && self.query.is_empty() && self.cookie.is_empty() {
            faults.add("header", "expected a place where tokens are looked for: header, query or cookie");
        }
    }
}

fn check_url(path: &str, url: Option<&str>, faults: &mut Faults) {
    if let Some(url) = url.filter(|url| !is_reference(url))
        && let Err(message) = crate::outbound::Url::parse(url)
    {
        faults.add(path, message);
    }
}

impl check::Config for Credential {
    fn validate(&self, faults: &mut Faults) {
        identity::check_present("key", &self.key, faults);
        check_url("jwks_url", self.jwks_url.as_deref(), faults);
        faults.range("exp", self.exp, 1, u32::MAX);
        if let Err((path, message)) = self.verifier() {
            faults.add(path, message);
        }
    }
}

impl Credential {
    /// What its tokens are verified with, or what is wrong with it.
    fn verifier(&self) -> Result<Verifier, (&'static str, String)> {
        let written = [&self.secret, &self.public_key, &self.jwks_url];
        if written.into_iter().flatten().any(|text| is_reference(text)) {
            return Ok(Verifier::Nothing);
        }
        if let Some(url) = &self.jwks_url {
            return match self.algorithm {
                Some(algorithm) if algorithm.is_symmetric() => {
                    Err(("algorithm", "expected an algorithm with a public key: what is published is no secret".to_owned()))
                }
                Some(algorithm) => Ok(Verifier::Published { url: url.as_str().into(), allowed: Box::new([algorithm]) }),
                None => Ok(Verifier::Published { url: url.as_str().into(), allowed: public_algorithms() }),
            };
        }
        let algorithm = self.algorithm.unwrap_or(Algorithm::HS256);
        if !algorithm.is_symmetric() {
            let pem = self.public_key.as_deref().ok_or_else(|| ("", format!("{} needs a public_key", algorithm.name())))?;
            let key = Key::pem(algorithm, pem).map_err(|error| ("public_key", error.to_string()))?;
            return Ok(Verifier::Key(key, algorithm));
        }
        let secret = self.secret.as_deref().ok_or_else(|| ("", format!("{} needs a secret", algorithm.name())))?;
        let decoded = || BASE64.decode(secret).map_err(|_| ("secret", "expected base64".to_owned()));
        let bytes = if self.base64_secret { decoded()? } else { secret.as_bytes().to_vec() };
        let key = Key::secret(algorithm, &bytes).map_err(|error| ("secret", error.to_string()))?;
        Ok(Verifier::Key(key, algorithm))
    }
}

/// Compiles what a consumer's tokens are verified with.
pub(super) fn credential(value: &Value) -> Proven {
    let config: Credential = check::read(value)?;
    let verifier = config.verifier().map_err(|(path, message)| vec![check::fault_at(path, message)])?;
    Ok(Arc::new(Known { verifier, grace: config.lifetime_grace_period }))
}
