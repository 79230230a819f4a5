//! Asking other services: the HTTP and the Redis client of the plugins that must ask somebody before a request may go on. It knows no plugins and no upstreams.
//!
//! It speaks HTTP/1.1 with the agent's own codec, as probes and upstreams do: one strict reading of answers, one kind of fields, and nothing that has to run
//! beside a call. The client of upstreams is not used again because it lives on clusters, their health and their endpoints, of which there are none here, and
//! streams; a call is small and whole: a deadline over everything, a bounded answer, a bounded number in flight, at most one try more.
//!
//! Each thread keeps its connections for itself, so that a call costs no lock that anybody else wants; it works on the workers and on any other runtime.

mod connect;
mod lane;
mod message;
pub mod redis;
mod remote;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod url;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rustls::crypto::{CryptoProvider, aws_lc_rs};

use crate::dns::ResolverSettings;
use crate::net::SystemRoots;

pub use message::{Call, CallError, Reply};
pub use redis::{Redis, RedisError, RedisOptions, Script};
pub use remote::{Remote, RemoteOptions};
pub use url::Url;

use remote::{Core, Key};

/// Where remotes come from; cheap to clone, all clones are one.
#[derive(Clone)]
pub struct Outbound {
    shared: Arc<Shared>,
}

/// What all remotes of a node share.
struct Shared {
    /// Tells the resolvers of several outbounds on one thread apart.
    id: u64,
    resolver: ResolverSettings,
    provider: Arc<CryptoProvider>,
    system_roots: SystemRoots,
    /// Remotes in use: the same one for the same server and options, so that a changed configuration keeps its connections.
    known: Mutex<Vec<(Key, Weak<Core>)>>,
    /// The same for Redis.
    known_redis: redis::Known,
}

/// Source of the numbers by which threads tell remotes apart.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

fn next_id() -> u64 {
    NEXT_ID.fetch_add(1, Ordering::Relaxed)
}

impl Default for Outbound {
    /// One that resolves names as the system does. It opens nothing before the first call.
    fn default() -> Outbound {
        Outbound::new(ResolverSettings::default())
    }
}

impl std::fmt::Debug for Outbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbound").field("resolver", &self.shared.resolver).finish_non_exhaustive()
    }
}

impl Outbound {
    /// One that resolves names as told.
    pub fn new(resolver: ResolverSettings) -> Outbound {
        let shared = Shared {
            id: next_id(),
            resolver,
            provider: Arc::new(aws_lc_rs::default_provider()),
            system_roots: SystemRoots::default(),
            known: Mutex::default(),
            known_redis: redis::Known::default(),
        };
        Outbound { shared: Arc::new(shared) }
    }

    /// A server to ask, by the URL that calls go to when they name no other target. Remotes of one server with the same options share their connections and
    /// their limit of calls in flight.
    ///
    /// # Errors
    /// In words: what is wrong with the URL ([`Url::parse`]), the CA or the client certificate, or that the system trusts nobody.
    pub fn remote(&self, url: &str, options: &RemoteOptions) -> Result<Remote, String> {
        let url = Url::parse(url)?;
        let key = Key { https: url.https, authority: url.authority.clone(), options: options.clone() };
        let mut known = self.shared.known.lock();
        known.retain(|(_, core)| core.strong_count() > 0);
        let core = match known.iter().filter(|(other, _)| *other == key).find_map(|(_, core)| core.upgrade()) {
            Some(core) => core,
            None => {
                let core = Arc::new(Core::new(self.clone(), &url, options)?);
                known.push((key, Arc::downgrade(&core)));
                core
            }
        };
        Ok(Remote::new(core, url.target))
    }

    /// A Redis to ask. Plugins with the same options share its connection, one on each thread.
    ///
    /// # Errors
    /// In words: what is wrong with the host, the CA or the client certificate, or that the system trusts nobody.
    pub fn redis(&self, options: &RedisOptions) -> Result<Redis, String> {
        self.shared.known_redis.get_or(options, || redis::Core::new(self.clone(), options))
    }
}
