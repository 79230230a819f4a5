//! The paths of all hosts: exact ones in a hash table, prefixes in radix trees. It knows hosts by number only.

use std::cmp::Reverse;
use std::sync::Arc;

use super::compile::bit;
use super::texts::TextMap;
use super::trie::{Forest, Trie};
use super::{CompiledRoute, Match, Params};
use crate::exchange::Exchange;

/// A pattern of a route, with what mostly suffices to tell whether it takes a request, so that the route itself, which lies in cold memory when there are
/// thousands, is looked at only when more is asked.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Entry {
    /// Number of the route in the table.
    pub(super) route: u32,
    /// Number of the pattern in the route.
    pub(super) pattern: u32,
    /// Methods that it takes; none for every method, and where only the route can tell.
    methods: u16,
    /// Only the route can tell whether all conditions hold.
    conditional: bool,
    /// More than a prefix has to fit.
    has_tokens: bool,
}

/// The paths of all hosts.
#[derive(Debug, Default)]
pub(super) struct Paths {
    /// By number of the host.
    hosts: Vec<Host>,
    exact: TextMap<Candidates>,
    /// Candidates behind the first of their path.
    more: Vec<Link>,
    prefixes: Forest,
}

#[derive(Debug, Clone, Copy)]
struct Host {
    has_exact: bool,
    /// Tree of its prefixes.
    root: Option<u32>,
}

/// The entries of one exact path. Mostly there is one.
#[derive(Debug, Clone, Copy)]
struct Candidates {
    first: Entry,
    /// Place of the second in `more`, or [`NONE`].
    second: u32,
}

/// No place.
const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Link {
    entry: Entry,
    /// Place of the next one, or [`NONE`].
    next: u32,
    /// Place of the last one; kept in the first link of a chain alone.
    last: u32,
}

/// Paths in the making.
pub(super) struct Builder {
    paths: Paths,
    tries: Vec<Trie>,
}

impl Builder {
    /// No paths yet, of one host: zero.
    pub(super) fn new() -> Builder {
        let mut builder = Builder { paths: Paths::default(), tries: Vec::new() };
        builder.host();
        builder
    }

    /// Adds a host and says its number: they count from zero.
    pub(super) fn host(&mut self) -> u32 {
        self.paths.hosts.push(Host { has_exact: false, root: None });
        self.tries.push(Trie::default());
        self.tries.len() as u32 - 1
    }

    /// Adds the patterns of a route to a host; among equals the first that was added wins.
    pub(super) fn add<T>(&mut self, host: u32, number: u32, route: &CompiledRoute<T>) {
        for (index, pattern) in route.patterns.iter().enumerate() {
            let entry = Entry {
                route: number,
                pattern: index as u32,
                methods: route.methods.known_only().unwrap_or(0),
                conditional: route.methods.known_only().is_none() || !route.remote_addrs.is_empty() || route.vars.is_some(),
                has_tokens: pattern.has_tokens(),
            };
            if pattern.is_exact() {
                self.paths.hosts[host as usize].has_exact = true;
                self.paths.add_exact(host, pattern.prefix(), entry);
            } else {
                self.tries[host as usize].add(pattern.prefix().as_bytes(), entry);
            }
        }
    }

    /// All that was added. Patterns of one prefix come in order: priority, then length of the pattern, then as added.
    pub(super) fn finish<T>(mut self, routes: &[Arc<CompiledRoute<T>>]) -> Paths {
        for (host, mut trie) in self.paths.hosts.iter_mut().zip(self.tries) {
            for list in trie.lists().filter(|list| list.len() > 1) {
                list.sort_by_key(|entry| {
                    let route = &routes[entry.route as usize];
                    Reverse((route.priority, route.patterns[entry.pattern as usize].length()))
                });
            }
            host.root = self.paths.prefixes.plant(trie);
        }
        self.paths.exact.settle();
        self.paths.prefixes.settle();
        self.paths
    }
}

impl Paths {
    fn add_exact(&mut self, host: u32, path: &str, entry: Entry) {
        let place = self.exact.get_or_insert_with(host, path, || Candidates { first: entry, second: NONE });
        if place.is_new {
            return;
        }
        let number = self.more.len() as u32;
        self.more.push(Link { entry, next: NONE, last: number });
        if place.value.second == NONE {
            place.value.second = number;
            return;
        }
        let chain = &mut self.more[place.value.second as usize].last;
        let last = std::mem::replace(chain, number);
        self.more[last as usize].next = number;
    }

    /// The first route of a host whose pattern fits the path and whose conditions hold.
    pub(super) fn find<'a, T>(&self, host: u32, routes: &'a [Arc<CompiledRoute<T>>], x: &Exchange) -> Option<Match<'a, T>> {
        let path = x.request.path.as_str();
        let Host { has_exact, root } = *self.hosts.get(host as usize)?;
        let candidates = if has_exact { self.exact.get(host, path) } else { None };
        let found = candidates.and_then(|candidates| {
            let mut next = candidates.second;
            let mut entry = candidates.first;
            loop {
                if let Some(found) = entry.takes(routes, x) {
                    return Some(found);
                }
                let link = self.more.get(next as usize)?;
                (entry, next) = (link.entry, link.next);
            }
        });
        found.or_else(|| self.prefixes.longest_first(root?, path.as_bytes(), |entry| entry.takes(routes, x)))
    }
}

impl Entry {
    /// Whether it takes a request whose path fits as far as the index could tell.
    fn takes<'a, T>(&self, routes: &'a [Arc<CompiledRoute<T>>], x: &Exchange) -> Option<Match<'a, T>> {
        if self.methods != 0 && self.methods & bit(&x.request.method) == 0 {
            return None;
        }
        let number = self.route as usize;
        let route = &routes[number];
        let params =
            if self.has_tokens { route.patterns[self.pattern as usize].captures(&x.request.path)? } else { Params::new() };
        if self.conditional && route.refusal(x).is_some() {
            return None;
        }
        Some(Match { number, route, params })
    }
}
