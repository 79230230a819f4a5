//! A document of a provider, fetched once for all workers, used while it is fresh and, when the provider is down, afterwards too. It knows no documents.

use std::future::Future;
use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::super::flights::Flights;

/// Seconds after a fetch before which nobody fetches again, so that tokens with made-up key ids make no load.
const PAUSE: u64 = 10;
/// The same after a fetch that failed and while there is nothing to go on with.
const PAUSE_AFTER_FAILURE: u64 = 1;

/// A document, fetched on demand.
pub(crate) struct Slot<T> {
    held: Arc<ArcSwapOption<Held<T>>>,
    fetches: Flights<(), Result<Arc<T>, Arc<str>>>,
    /// Seconds for which it is fresh.
    lifetime: u64,
}

struct Held<T> {
    document: Arc<T>,
    fetched: u64,
}

impl<T: Send + Sync + 'static> Slot<T> {
    /// An empty one.
    pub(crate) fn new(lifetime: u64) -> Slot<T> {
        let memory = |end: &Result<Arc<T>, Arc<str>>| if end.is_ok() { PAUSE } else { PAUSE_AFTER_FAILURE };
        Slot { held: Arc::default(), fetches: Flights::new(memory), lifetime }
    }

    /// The document at hand. One that is not fresh any more is still given, and fetched again beside.
    pub(crate) fn at_hand<F>(&self, now: u64, fetch: impl FnOnce() -> F) -> Option<Arc<T>>
    where
        F: Future<Output = Result<T, String>> + 'static,
    {
        let held = self.held.load_full()?;
        if now.saturating_sub(held.fetched) >= self.lifetime {
            drop(self.fetch(now, fetch()));
        }
        Some(held.document.clone())
    }

    /// The document as it is now at the provider, or as it was fetched a moment ago.
    ///
    /// # Errors
    /// In words, why there is none.
    pub(crate) fn fetch(
        &self,
        now: u64,
        fetch: impl Future<Output = Result<T, String>> + 'static,
    ) -> impl Future<Output = Result<Arc<T>, Arc<str>>> + 'static {
        let held = self.held.clone();
        let task = async move {
            let document = Arc::new(fetch.await.map_err(Arc::from)?);
            held.store(Some(Arc::new(Held { document: document.clone(), fetched: now })));
            Ok(document)
        };
        let shared = self.fetches.share((), now, task);
        async move { shared.await.unwrap_or_else(|| Err("the worker that asked was stopped".into())) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn what_is_stale_is_used_and_renewed_beside() {
        let story = async {
            let slot: Slot<u32> = Slot::new(100);
            let never = || async { Err("not asked".to_owned()) };
            assert!(slot.at_hand(0, never).is_none());
            assert_eq!(&*slot.fetch(0, async { Err("down".to_owned()) }).await.unwrap_err(), "down");
            assert_eq!(&*slot.fetch(0, async { Ok(1) }).await.unwrap_err(), "down", "a moment ago");
            assert_eq!(slot.fetch(1, async { Ok(1) }).await.as_deref(), Ok(&1));
            assert_eq!(slot.fetch(10, async { Ok(2) }).await.as_deref(), Ok(&1), "not so often");
            assert_eq!(slot.at_hand(100, never).as_deref(), Some(&1));
            let asked = Arc::new(std::sync::atomic::AtomicU32::new(0));
            let down = || {
                let asked = asked.clone();
                async move {
                    asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    Err("down".to_owned())
                }
            };
            for _ in 0..5 {
                assert_eq!(slot.at_hand(101, down).as_deref(), Some(&1), "the provider is down");
                tokio::task::yield_now().await;
            }
            assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 1);
            assert_eq!(slot.at_hand(103, || async { Ok(3) }).as_deref(), Some(&1));
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            assert_eq!(slot.at_hand(104, never).as_deref(), Some(&3));
        };
        tokio::task::LocalSet::new().run_until(story).await;
    }
}
