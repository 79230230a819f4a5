//! Tokens that come with a request: verified by key, or asked about at the provider, and remembered for a while. It knows no sessions and no requests.

use std::future::Future;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use quick_cache::sync::Cache;
use serde_json::{Map, Value};

use super::config::AuthMethod;
use super::flights::Flights;
use super::form::Form;
use super::provider::{Client, Provider, Trouble, introspected};
use crate::filters::jose::{Algorithm, ClaimRules, JoseError, KeySet, Unverified};

/// Most tokens that are remembered.
const MAX_KNOWN: usize = 4_096;
/// Most bytes of an introspection's answer that is remembered.
const MAX_REMEMBERED: usize = 16 * 1024;
/// Seconds for which a signature is remembered to be good; a key that is withdrawn counts no longer than that.
const REMEMBER_SIGNATURE: u64 = 60;

/// How tokens are verified.
pub(crate) enum Way {
    /// With one key.
    Key(KeySet),
    /// With the keys of the provider.
    Jwks,
    /// The provider says so.
    Introspection {
        /// URL, where it is not the provider's own.
        endpoint: Option<String>,
        /// How we prove ourselves to it.
        method: AuthMethod,
        /// Seconds for which an answer is remembered at most, 0 for as long as the token lasts.
        interval: u64,
    },
}

/// Verifies tokens.
pub(crate) struct Bearer {
    pub(crate) way: Way,
    pub(crate) provider: Arc<Provider>,
    pub(crate) client: Arc<Client>,
    /// How tokens may be signed.
    pub(crate) algorithms: Vec<Algorithm>,
    /// Issuers that are believed instead of the provider alone.
    pub(crate) issuers: Option<Vec<Box<str>>>,
    /// Seconds by which clocks may differ.
    pub(crate) slack: u64,
    pub(crate) memory: Arc<Memory>,
}

/// Tokens that were found to be good, and those being looked at; shared by all workers.
pub(crate) struct Memory {
    known: Cache<Fingerprint, Arc<Verified>>,
    looks: Flights<Fingerprint, Verdict>,
}

type Fingerprint = [u8; 32];

/// A good token.
pub(crate) struct Verified {
    /// What it claims.
    pub claims: Map<String, Value>,
    /// What its introspection said, JSON.
    pub introspected: Option<String>,
    /// Until when it counts as good without another look, in seconds since 1970.
    until: u64,
}

/// What is to be said of a token.
#[derive(Clone)]
pub(crate) enum Verdict {
    /// It is good.
    Good(Arc<Verified>),
    /// It is not, and why.
    Bad(Arc<str>),
    /// Nobody can say.
    Unknown(Trouble),
}

impl Default for Memory {
    fn default() -> Memory {
        let memory = |verdict: &Verdict| match verdict {
            Verdict::Good(_) => 0,
            Verdict::Bad(_) | Verdict::Unknown(_) => 1,
        };
        Memory { known: Cache::new(MAX_KNOWN), looks: Flights::new(memory) }
    }
}

impl Bearer {
    /// What is remembered of a token.
    pub(crate) fn remembered(&self, token: &str, now: u64) -> Option<Arc<Verified>> {
        self.memory.known.get(&fingerprint(token)).filter(|verified| now < verified.until)
    }

    /// Looks at a token, once for all who bring it at the same time.
    pub(crate) fn verdict(self: &Arc<Self>, token: String, now: u64) -> impl Future<Output = Verdict> + 'static {
        let this = self.clone();
        let key = fingerprint(&token);
        let shared = self.memory.looks.share(key, now, async move { this.look(token, now).await });
        async move {
            let stopped = || Verdict::Unknown(Trouble::down("the worker that asked was stopped".to_owned()));
            shared.await.unwrap_or_else(stopped)
        }
    }

    async fn look(&self, token: String, now: u64) -> Verdict {
        let verdict = match &self.way {
            Way::Introspection { endpoint, method, interval } => {
                self.introspect(&token, endpoint.as_deref(), *method, *interval, now).await
            }
            Way::Key(keys) => self.verify_by_key(&token, keys, now).await,
            Way::Jwks => self.verify_by_jwks(&token, now).await,
        };
        if let Verdict::Good(verified) = &verdict
            && verified.until > now
            && verified.introspected.as_ref().is_none_or(|text| text.len() <= MAX_REMEMBERED)
        {
            self.memory.known.insert(fingerprint(&token), verified.clone());
        }
        verdict
    }

    async fn verify_by_key(&self, token: &str, keys: &KeySet, now: u64) -> Verdict {
        // The key says enough; who issues is known besides only where the provider can be asked, or the configuration says so.
        let issuers = match &self.issuers {
            Some(issuers) => issuers.clone(),
            None => self.provider.metadata(now).await.map(|metadata| vec![metadata.issuer.as_str().into()]).unwrap_or_default(),
        };
        match Unverified::parse(token) {
            Ok(unverified) => self.judge(unverified, keys, issuers, now),
            Err(error) => Verdict::bad(&error),
        }
    }

    async fn verify_by_jwks(&self, token: &str, now: u64) -> Verdict {
        let unverified = match Unverified::parse(token) {
            Ok(unverified) if self.algorithms.contains(&unverified.algorithm()) => unverified,
            Ok(unverified) => return Verdict::bad(&JoseError::Algorithm(unverified.algorithm())),
            Err(error) => return Verdict::bad(&error),
        };
        let issuers = match &self.issuers {
            Some(issuers) => issuers.clone(),
            None => match self.provider.metadata(now).await {
                Ok(metadata) => vec![metadata.issuer.as_str().into()],
                Err(trouble) => return Verdict::Unknown(trouble),
            },
        };
        match self.provider.clone().keys(unverified.kid().map(str::to_owned), unverified.algorithm(), now).await {
            Ok(keys) => self.judge(unverified, &keys, issuers, now),
            Err(trouble) => Verdict::Unknown(trouble),
        }
    }

    fn judge(&self, unverified: Unverified<'_>, keys: &KeySet, issuers: Vec<Box<str>>, now: u64) -> Verdict {
        let rules = ClaimRules { skew: self.slack, required: vec!["exp".into()], issuers, ..ClaimRules::default() };
        let verified = unverified.verify_with(keys, &self.algorithms).and_then(|claims| {
            claims.check(&rules, now)?;
            Ok(claims)
        });
        match verified {
            Ok(claims) => {
                let claims = claims.into_map();
                let until = expiry(&claims).unwrap_or(0).min(now + REMEMBER_SIGNATURE);
                Verdict::Good(Arc::new(Verified { claims, introspected: None, until }))
            }
            Err(error) => Verdict::bad(&error),
        }
    }

    async fn introspect(&self, token: &str, endpoint: Option<&str>, method: AuthMethod, interval: u64, now: u64) -> Verdict {
        let answer = async {
            let url = match endpoint {
                Some(url) => url.to_owned(),
                None => {
                    let url = self.provider.metadata(now).await?.introspection_endpoint.clone();
                    url.ok_or_else(|| Trouble::down("its discovery document names no introspection_endpoint".to_owned()))?
                }
            };
            let mut form = Form::default().with([("token", token), ("token_type_hint", "access_token")]);
            let authorization = self.client.prove(method, &mut form, &url, now)?;
            introspected(&self.provider.post(&url, form.into_text(), authorization).await?)
        };
        match answer.await {
            Ok(Some(claims)) => self.judge_introspected(claims, interval, now),
            Ok(None) => Verdict::Bad("the token is not active".into()),
            Err(trouble) => Verdict::Unknown(trouble),
        }
    }

    fn judge_introspected(&self, claims: Map<String, Value>, interval: u64, now: u64) -> Verdict {
        let end = expiry(&claims);
        if end.is_some_and(|end| end <= now) {
            return Verdict::Bad("the token is expired".into());
        }
        if let (Some(issuers), Some(issuer)) = (&self.issuers, claims.get("iss"))
            && !issuers.iter().any(|known| issuer.as_str() == Some(known))
        {
            return Verdict::Bad("the issuer of the token (iss) is not trusted".into());
        }
        let until = match (end, interval) {
            (Some(end), 0) => end,
            (None, 0) => 0,
            (end, interval) => end.unwrap_or(u64::MAX).min(now.saturating_add(interval)),
        };
        let introspected = serde_json::to_string(&claims).ok();
        Verdict::Good(Arc::new(Verified { claims, introspected, until }))
    }
}

impl Verdict {
    fn bad(error: &JoseError) -> Verdict {
        Verdict::Bad(error.to_string().into())
    }
}

fn fingerprint(token: &str) -> Fingerprint {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    bytes
}

/// When a token ends, in seconds since 1970.
fn expiry(claims: &Map<String, Value>) -> Option<u64> {
    let exp = claims.get("exp")?;
    exp.as_u64().or_else(|| exp.as_f64().map(|seconds| seconds as u64))
}
