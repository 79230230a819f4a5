//! Keys that issuers publish: fetched when they are needed, by one request at a time, and used on while the issuer does not answer. It knows no tokens.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::jose::KeySet;
use crate::http::Fields;
use crate::outbound::{Call, Outbound, Remote, RemoteOptions};

/// Most bytes of a set; 64 RSA keys with certificates have half of it.
const MAX_SET: u64 = 512 * 1024;
/// Milliseconds between two attempts: after a failure, and when tokens name keys that are not in the set, which anybody may let them do.
const PAUSE_MS: u64 = 10_000;
/// Most issuers that are remembered; more are those of configurations that are gone.
const MAX_SOURCES: usize = 1_024;

/// How keys are fetched.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Fetching {
    pub url: Box<str>,
    pub ttl_s: u32,
    pub timeout_ms: u32,
    pub verify: bool,
}

/// The keys of all issuers; one for all routes and workers.
#[derive(Default)]
pub(super) struct Library {
    sources: Mutex<HashMap<Fetching, Arc<Source>>>,
}

/// The keys of one issuer.
pub(super) struct Source {
    remote: Remote,
    ttl_ms: u64,
    held: ArcSwapOption<Held>,
    /// Before this time (Unix milliseconds) no new attempt is made.
    not_before: AtomicU64,
    /// Held while keys are fetched.
    flight: Arc<tokio::sync::Mutex<()>>,
}

struct Held {
    keys: Arc<KeySet>,
    since_ms: u64,
}

/// What to do about keys at some moment.
enum Plan {
    Use(Arc<KeySet>),
    /// Fetch; meanwhile, or when that fails, these are better than none.
    Fetch(Option<Arc<KeySet>>),
    /// There are none, and it is too early to ask again.
    GiveUp,
}

/// There are no keys, and none can be had.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unavailable;

impl Library {
    /// The issuer of this URL.
    ///
    /// # Errors
    /// What is wrong with the URL.
    pub(super) fn source(&self, fetching: &Fetching, outbound: &Outbound) -> Result<Arc<Source>, String> {
        let mut sources = self.sources.lock();
        if let Some(source) = sources.get(fetching) {
            return Ok(source.clone());
        }
        let source = Arc::new(Source::new(fetching, outbound)?);
        if sources.len() >= MAX_SOURCES {
            sources.retain(|_, source| Arc::strong_count(source) > 1);
        }
        if sources.len() >= MAX_SOURCES {
            sources.clear();
        }
        sources.insert(fetching.clone(), source.clone());
        Ok(source)
    }
}

impl Source {
    fn new(fetching: &Fetching, outbound: &Outbound) -> Result<Source, String> {
        let options = RemoteOptions {
            timeout: Duration::from_millis(fetching.timeout_ms.into()),
            verify: fetching.verify,
            max_body: MAX_SET,
            max_in_flight: 4,
            ..RemoteOptions::default()
        };
        Ok(Source {
            remote: outbound.remote(&fetching.url, &options)?,
            ttl_ms: u64::from(fetching.ttl_s) * 1_000,
            held: ArcSwapOption::empty(),
            not_before: AtomicU64::new(0),
            flight: Arc::default(),
        })
    }

    /// The keys, when nothing has to be fetched for that.
    pub(super) fn at_hand(&self, now_ms: u64, suits: impl Fn(&KeySet) -> bool) -> Option<Arc<KeySet>> {
        match self.plan(now_ms, suits) {
            Plan::Use(keys) => Some(keys),
            Plan::Fetch(_) | Plan::GiveUp => None,
        }
    }

    /// The keys, fetched when there are none, when they are old, or when none suits the token.
    pub(super) async fn keys(self: &Arc<Self>, now_ms: u64, suits: impl Fn(&KeySet) -> bool) -> Result<Arc<KeySet>, Unavailable> {
        let fallback = match self.plan(now_ms, &suits) {
            Plan::Use(keys) => return Ok(keys),
            Plan::GiveUp => return Err(Unavailable),
            Plan::Fetch(fallback) => fallback,
        };
        let flight = match (self.flight.clone().try_lock_owned(), fallback) {
            (Ok(flight), _) => flight,
            // Somebody fetches: old keys that suit will do until then.
            (Err(_), Some(old)) if suits(&old) => return Ok(old),
            (Err(_), _) => self.flight.clone().lock_owned().await,
        };
        // Who was in flight before may have brought them, or met a failure.
        match self.plan(now_ms, &suits) {
            Plan::Use(keys) => return Ok(keys),
            Plan::GiveUp => return Err(Unavailable),
            Plan::Fetch(_) => {}
        }
        let this = self.clone();
        // It goes on when its client goes away: else who comes and goes again and again would have the issuer asked each time.
        let fetching = tokio::spawn(async move {
            let keys = this.renew(now_ms).await;
            drop(flight);
            keys
        });
        fetching.await.unwrap_or(Err(Unavailable))
    }

    async fn renew(&self, now_ms: u64) -> Result<Arc<KeySet>, Unavailable> {
        let fetched = self.fetch().await;
        // Only now: while a fetch is under way, who has no keys waits for it.
        self.not_before.store(now_ms.saturating_add(PAUSE_MS), Ordering::Relaxed);
        match fetched {
            Ok(keys) => {
                let keys = Arc::new(keys);
                self.held.store(Some(Arc::new(Held { keys: keys.clone(), since_ms: now_ms })));
                Ok(keys)
            }
            Err(message) => {
                tracing::warn!(server = self.remote.authority(), %message, "the keys of an issuer of tokens cannot be fetched; those it published before are used on");
                self.held.load().as_ref().map(|held| held.keys.clone()).ok_or(Unavailable)
            }
        }
    }

    fn plan(&self, now_ms: u64, suits: impl Fn(&KeySet) -> bool) -> Plan {
        let may_fetch = now_ms >= self.not_before.load(Ordering::Relaxed);
        match &*self.held.load() {
            Some(held) if !may_fetch => Plan::Use(held.keys.clone()),
            Some(held) if now_ms.saturating_sub(held.since_ms) < self.ttl_ms && suits(&held.keys) => Plan::Use(held.keys.clone()),
            Some(held) => Plan::Fetch(Some(held.keys.clone())),
            None if may_fetch => Plan::Fetch(None),
            None => Plan::GiveUp,
        }
    }

    async fn fetch(&self) -> Result<KeySet, String> {
        let mut fields = Fields::new();
        fields.append("Accept", "application/jwk-set+json, application/json");
        let reply = self.remote.send(Call { fields, ..Call::default() }).await.map_err(|error| error.to_string())?;
        if reply.head.status != 200 {
            return Err(format!("expected status 200, got {}", reply.head.status));
        }
        KeySet::parse(&reply.body).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn who_goes_away_keeps_nobody_from_asking() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/jwks", silent.local_addr().unwrap());
        let fetching = Fetching { url: url.into(), ttl_s: 60, timeout_ms: 50, verify: true };
        let source = Arc::new(Source::new(&fetching, &Outbound::default()).unwrap());
        assert!(source.keys(1_000, |_| true).now_or_never().is_none(), "under way, and given up");
        assert!(matches!(source.plan(1_000, |_| true), Plan::Fetch(None)));
        assert!(source.flight.try_lock().is_err(), "the fetch goes on");
        assert!(source.keys(1_000, |_| true).await.is_err(), "and ends in any case");
        assert!(source.flight.try_lock().is_ok());
    }
}
