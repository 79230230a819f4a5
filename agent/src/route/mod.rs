//! Finding the route of a request: by host, then by path, then by conditions. It sees the exchange and knows not what a route does.
//!
//! The order is that of APISIX's `radixtree_host_uri`: the exact host before the longest wildcard before no host at all; within a host the exact
//! path before the longest literal prefix; within one of these the higher priority, the longer pattern, the older route. A candidate whose
//! conditions (methods, addresses, expression) do not hold is passed over and the search goes on, down to the routes without a host.

mod compile;
mod explain;
mod paths;
mod pattern;
mod texts;
mod trie;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use smallvec::SmallVec;

use crate::exchange::Exchange;

pub use compile::{CompiledRoute, Conditions, HostPattern};
pub use explain::{Verdict, Why};
pub use pattern::{Params, PathPattern};

use paths::{Builder, Paths};
use texts::TextMap;

/// All routes of a node, found by host and path without scanning. Immutable; `T` is what a route leads to.
pub struct RouteTable<T> {
    routes: Vec<Arc<CompiledRoute<T>>>,
    /// Numbers of hosts: of exact ones by name, of wildcards by the text behind `*`, usually `.example.com`.
    hosts: TextMap<u32>,
    has_exact: bool,
    has_wildcard: bool,
    /// Lengths of wildcards that do not start at a dot (`*example.com`), which few people use.
    odd_lengths: SmallVec<[usize; 4]>,
    /// Some host has a port, so that the whole authority is looked up too.
    with_port: bool,
    paths: Paths,
}

/// Spaces of host names.
const EXACT: u32 = 0;
const WILDCARD: u32 = 1;
/// The number of the host that every request has, the first one.
const ANY: u32 = 0;

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
            hosts: TextMap::default(),
            has_exact: false,
            has_wildcard: false,
            odd_lengths: SmallVec::new(),
            with_port: false,
            paths: Paths::default(),
        };
        let mut order: Vec<usize> = (0..routes.len()).collect();
        // Paths keep the order in which they are added, so the order among equals is settled here.
        order.sort_by(|&a, &b| {
            let (a, b) = (&routes[a], &routes[b]);
            b.priority.cmp(&a.priority).then(a.created.cmp(&b.created)).then_with(|| a.info.id.cmp(&b.info.id))
        });
        let mut paths = Builder::new();
        for &number in &order {
            table.add(&mut paths, number as u32, &routes[number]);
        }
        table.hosts.settle();
        table.paths = paths.finish(&routes);
        table.routes = routes;
        table
    }

    fn add(&mut self, paths: &mut Builder, number: u32, route: &CompiledRoute<T>) {
        for host in &route.hosts {
            let host = match host {
                HostPattern::Any => ANY,
                HostPattern::Exact(name) => {
                    self.with_port |= route.hosts_have_port;
                    self.has_exact = true;
                    *self.hosts.get_or_insert_with(EXACT, name, || paths.host()).value
                }
                HostPattern::Suffix(suffix) => {
                    if !suffix.starts_with('.') && !self.odd_lengths.contains(&suffix.len()) {
                        self.odd_lengths.push(suffix.len());
                    }
                    self.has_wildcard = true;
                    *self.hosts.get_or_insert_with(WILDCARD, suffix, || paths.host()).value
                }
            };
            paths.add(host, number, route);
        }
    }

    /// The route of this request: its host, path, method, address and whatever conditions look at. Allocates only for captures.
    pub fn find(&self, x: &Exchange) -> Option<Match<'_, T>> {
        self.each_host(x, |host| self.paths.find(host, &self.routes, x))
    }

    /// Visits the numbers of the hosts that fit, most specific first, until one has a result.
    fn each_host<R>(&self, x: &Exchange, mut visit: impl FnMut(u32) -> Option<R>) -> Option<R> {
        let host = x.request.host();
        let authority = (self.with_port && host.len() != x.request.authority.len()).then_some(x.request.authority.as_str());
        for name in authority.into_iter().chain(self.has_exact.then_some(host)) {
            if let Some(found) = self.hosts.get(EXACT, name).and_then(|host| visit(*host)) {
                return Some(found);
            }
        }
        if self.has_wildcard {
            for (at, byte) in host.bytes().enumerate() {
                let dotted = byte == b'.' && at > 0;
                if !dotted && !self.odd_lengths.contains(&(host.len() - at)) {
                    continue;
                }
                // A name is ASCII where a length of a wildcard fits by chance; `get` answers `None` elsewhere.
                let suffix = host.get(at..).and_then(|suffix| self.hosts.get(WILDCARD, suffix));
                if let Some(found) = suffix.and_then(|host| visit(*host)) {
                    return Some(found);
                }
            }
        }
        visit(ANY)
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
