//! Who is fetching what: one request asks the upstream, the others wait for it. It knows no answers.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::super::key::Key;

/// Keys that are being fetched, on all workers; never more than requests under way.
#[derive(Debug, Default)]
pub(in crate::filters::proxy_cache) struct Flights {
    by_key: Mutex<HashMap<Key, Arc<Semaphore>, RandomState>>,
}

/// The place of the one that fetches. However that ends, dropping it lets the others go on.
#[derive(Debug)]
pub(in crate::filters::proxy_cache) struct Lead {
    flights: Arc<Flights>,
    key: Key,
    landed: Arc<Semaphore>,
}

/// What a request does that needs a key.
pub(in crate::filters::proxy_cache) enum Role {
    /// It fetches.
    Lead(Lead),
    /// Another one does; the semaphore never has a permit and is closed at the end.
    Follow(Arc<Semaphore>),
}

impl Flights {
    /// Takes part in fetching this key.
    pub(in crate::filters::proxy_cache) fn join(self: &Arc<Flights>, key: Key) -> Role {
        match self.by_key.lock().entry(key) {
            Entry::Occupied(entry) => Role::Follow(entry.get().clone()),
            Entry::Vacant(entry) => {
                let landed = entry.insert(Arc::new(Semaphore::new(0))).clone();
                Role::Lead(Lead { flights: self.clone(), key, landed })
            }
        }
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.flights.by_key.lock().remove(&self.key);
        self.landed.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_leads_and_the_others_learn_of_its_end() {
        let flights = Arc::new(Flights::default());
        let Role::Lead(lead) = flights.join([1; 32]) else { unreachable!("nobody else is there") };
        let Role::Follow(landed) = flights.join([1; 32]) else { unreachable!("somebody leads") };
        assert!(matches!(flights.join([2; 32]), Role::Lead(_)));
        drop(lead);
        assert!(landed.acquire().await.is_err());
        assert!(matches!(flights.join([1; 32]), Role::Lead(_)));
        assert!(flights.by_key.lock().is_empty());
    }
}
