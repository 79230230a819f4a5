//! The tables as one worker sees them, with what it has derived from them for its requests. Nothing here is shared with another worker.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::exchange::{ConsumerInfo, Directory, RouteInfo};
use crate::filters::Chain;
use crate::observe::RouteShard;
use crate::route::CompiledRoute;
use crate::tables::{Action, Tables};
use crate::upstream::Cluster;

/// A route as one worker sees it. Requests share it without touching what other workers touch.
///
/// With thousands of routes a request finds its route's memory cold, so all that most requests need is here, in one line of 64 bytes; the rest of the route
/// is followed only by requests that need it.
pub struct Seen {
    /// Who it is, for logs and metrics.
    pub info: Rc<RouteInfo>,
    /// The worker's own counters of the route.
    pub stats: Arc<RouteShard>,
    /// The route's upstream; `None` where it names none, or one that is not there.
    pub cluster: Option<Arc<Cluster>>,
    /// The route.
    pub route: Arc<CompiledRoute<Action>>,
    /// Filters, where the route has some of its own.
    chains: Option<Box<Chains>>,
    /// Whether the route overrides its upstream's timeouts.
    pub has_timeouts: bool,
}

/// Filters of a route that has some of its own.
struct Chains {
    /// Those of global rules: without what the route does itself.
    global: Arc<Chain>,
    own: Arc<Chain>,
}

/// What was made once and is kept under a key.
type Kept<K, V> = RefCell<HashMap<K, V, RandomState>>;

/// The tables as one worker sees them, with what it has derived from them.
#[derive(Default)]
pub struct View {
    /// The tables.
    pub tables: Arc<Tables>,
    /// A chain of no filters.
    nothing: Chain,
    hostname: Arc<str>,
    worker: usize,
    merged: Kept<(usize, Arc<str>), Arc<Chain>>,
    /// By number of the route in the tables.
    routes: RefCell<Vec<Option<Rc<Seen>>>>,
}

/// Chains of route and consumer that one view keeps; beyond them the cache starts afresh.
const MAX_KEPT: usize = 10_000;

impl View {
    /// A view of these tables for the worker of this number, on the host of this name.
    pub fn new(tables: Arc<Tables>, hostname: Arc<str>, worker: usize) -> View {
        let routes = RefCell::new(vec![None; tables.routes.len()]);
        View { tables, hostname, worker, routes, ..View::default() }
    }

    /// The chain of a route once this consumer is known; `None` when the consumer adds nothing.
    pub fn merged(&self, route: &Arc<CompiledRoute<Action>>, consumer: &ConsumerInfo) -> Option<Arc<Chain>> {
        let own = self.tables.consumers.chain(consumer)?;
        let key = (Arc::as_ptr(route) as usize, consumer.username.clone());
        let mut merged = self.merged.borrow_mut();
        if let Some(chain) = merged.get(&key) {
            return Some(chain.clone());
        }
        if merged.len() >= MAX_KEPT {
            merged.clear();
        }
        // Keys may be addresses, because the view keeps the tables that the routes live in.
        Some(merged.entry(key).or_insert(Arc::new(route.target.chain.with_consumer(own))).clone())
    }

    /// The route of this number as this worker sees it; `None` beyond the last one.
    pub fn seen(&self, number: usize) -> Option<Rc<Seen>> {
        let mut routes = self.routes.borrow_mut();
        let slot = routes.get_mut(number)?;
        if slot.is_none() {
            *slot = Some(Rc::new(self.see(self.tables.routes.routes().get(number)?)));
        }
        slot.clone()
    }

    fn see(&self, route: &Arc<CompiledRoute<Action>>) -> Seen {
        let action = &route.target;
        let own = &action.chain;
        let chains = || Box::new(Chains { global: self.tables.global.yielding_to(own), own: own.clone() });
        Seen {
            info: Rc::new((*route.info).clone()),
            stats: action.stats.own(self.worker).clone(),
            cluster: action.upstream.as_ref().and_then(|name| self.tables.clusters.get(name)).cloned(),
            route: route.clone(),
            chains: (!own.is_empty()).then(chains),
            has_timeouts: action.timeouts.is_some(),
        }
    }

    /// The filters of requests to a route, or to none, in the order in which they run.
    pub fn chains<'a>(&'a self, route: Option<&'a Seen>) -> [&'a Chain; 2] {
        match route.and_then(|seen| seen.chains.as_ref()) {
            None => [&self.tables.global, &self.nothing],
            Some(chains) => [&chains.global, &chains.own],
        }
    }
}

impl Directory for View {
    fn find_credential(&self, plugin: &str, value: &[u8]) -> Option<Arc<ConsumerInfo>> {
        self.tables.consumers.find_credential(plugin, value)
    }

    fn consumer(&self, username: &str) -> Option<Arc<ConsumerInfo>> {
        self.tables.consumers.consumer(username)
    }

    fn hostname(&self) -> &str {
        &self.hostname
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_needs_of_its_route_fits_in_one_line() {
        let counts = 2 * size_of::<usize>();
        assert!(size_of::<Seen>() + counts <= 64);
        assert!(size_of::<RouteInfo>() + counts <= 64);
    }
}
