//! Finding the route of a request: by host, then by path, then by conditions. It sees the exchange and knows not what a route does.
//!
//! The order is that of APISIX's `radixtree_host_uri`: the exact host before the longest wildcard before no host at all; within a host the exact
//! path before the longest literal prefix; within one of these the higher priority, the longer pattern, the older route. A candidate whose
//! conditions (methods, addresses, expression) do not hold is passed over and the search goes on, down to the routes without a host.

mod compile;
mod explain;
mod paths;
mod pattern;
mod trie;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::exchange::Exchange;

pub use compile::{CompiledRoute, HostPattern};
pub use explain::{Verdict, Why};
pub use pattern::{Params, PathPattern};

use paths::PathIndex;

/// All routes of a node, found by host and path without scanning. Immutable; `T` is what a route leads to.
pub struct RouteTable<T> {
    routes: Vec<Arc<CompiledRoute<T>>>,
    exact: HashMap<String, PathIndex, RandomState>,
    /// By the text behind `*`, usually `.example.com`.
    wildcard: HashMap<String, PathIndex, RandomState>,
    /// Lengths of wildcards that do not start at a dot (`*example.com`), which few people use.
    odd_lengths: SmallVec<[usize; 4]>,
    /// Some host has a port, so that the whole authority is looked up too.
    with_port: bool,
    any: PathIndex,
}

/// The route of a request.
pub struct Match<'a, T> {
    /// Its number among [`RouteTable::routes`].
    pub number: usize,
    /// The route.
    pub route: &'a Arc<CompiledRoute<T>>,
    /// What the named parts of the pattern captured, undecoded.
    pub params: Params,
}

impl<T> Default for RouteTable<T> {
    fn default() -> Self {
        RouteTable::build(Vec::new())
    }
}

impl<T> RouteTable<T> {
    /// Indexes routes. Unchanged ones are best handed in as the same `Arc`s again; only the index is made anew.
    pub fn build(routes: Vec<Arc<CompiledRoute<T>>>) -> RouteTable<T> {
        let mut table = RouteTable {
            routes: Vec::new(),
            exact: HashMap::default(),
            wildcard: HashMap::default(),
            odd_lengths: SmallVec::new(),
            with_port: false,
            any: PathIndex::default(),
        };
        let mut order: Vec<usize> = (0..routes.len()).collect();
        // Paths keep the order in which they are added, so the order among equals is settled here.
        order.sort_by(|&a, &b| {
            let (a, b) = (&routes[a], &routes[b]);
            b.priority.cmp(&a.priority).then(a.created.cmp(&b.created)).then_with(|| a.info.id.cmp(&b.info.id))
        });
        for &number in &order {
            table.add(number as u32, &routes[number]);
        }
        let indexes = table.exact.values_mut().chain(table.wildcard.values_mut()).chain([&mut table.any]);
        indexes.for_each(|index| index.finish(&routes));
        table.routes = routes;
        table
    }

    fn add(&mut self, number: u32, route: &CompiledRoute<T>) {
        for host in &route.hosts {
            match host {
                HostPattern::Any => self.any.add(number, &route.patterns),
                HostPattern::Exact(name) => {
                    self.with_port |= route.hosts_have_port;
                    self.exact.entry_ref(&**name).or_default().add(number, &route.patterns);
                }
                HostPattern::Suffix(suffix) => {
                    if !suffix.starts_with('.') && !self.odd_lengths.contains(&suffix.len()) {
                        self.odd_lengths.push(suffix.len());
                    }
                    self.wildcard.entry_ref(&**suffix).or_default().add(number, &route.patterns);
                }
            }
        }
    }

    /// The route of this request: its host, path, method, address and whatever conditions look at. Allocates only for captures.
    pub fn find(&self, x: &Exchange) -> Option<Match<'_, T>> {
        self.each_host(x, |index| index.find(&self.routes, x))
    }

    /// Visits the indexes of the hosts that fit, most specific first, until one has a result.
    fn each_host<'a, R>(&'a self, x: &Exchange, mut visit: impl FnMut(&'a PathIndex) -> Option<R>) -> Option<R> {
        let host = x.request.host();
        let authority = (self.with_port && host.len() != x.request.authority.len()).then_some(x.request.authority.as_str());
        for name in authority.into_iter().chain((!self.exact.is_empty()).then_some(host)) {
            if let Some(found) = self.exact.get(name).and_then(&mut visit) {
                return Some(found);
            }
        }
        if !self.wildcard.is_empty() {
            for (at, byte) in host.bytes().enumerate() {
                let dotted = byte == b'.' && at > 0;
                if !dotted && !self.odd_lengths.contains(&(host.len() - at)) {
                    continue;
                }
                // A name is ASCII where a length of a wildcard fits by chance; `get` answers `None` elsewhere.
                let suffix = host.get(at..).and_then(|suffix| self.wildcard.get(suffix));
                if let Some(found) = suffix.and_then(&mut visit) {
                    return Some(found);
                }
            }
        }
        visit(&self.any)
    }

    /// All routes, in the order given.
    pub fn routes(&self) -> &[Arc<CompiledRoute<T>>] {
        &self.routes
    }

    /// Number of routes.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }
}
