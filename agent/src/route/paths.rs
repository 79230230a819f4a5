//! The paths of one host: exact ones in a hash table, prefixes in a radix tree. It knows no hosts.

use std::cmp::Reverse;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::trie::Trie;
use super::{CompiledRoute, Match, Params, PathPattern};
use crate::exchange::Exchange;

/// A pattern of a route.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    /// Number of the route in the table.
    pub(super) route: u32,
    /// Number of the pattern in the route.
    pub(super) pattern: u32,
}

/// The paths of one host.
#[derive(Debug, Default)]
pub(super) struct PathIndex {
    exact: HashMap<String, Vec<Entry>, RandomState>,
    prefixes: Trie,
}

impl PathIndex {
    /// Adds the patterns of a route; among equals the first that was added wins.
    pub(super) fn add(&mut self, route: u32, patterns: &[PathPattern]) {
        for (number, pattern) in patterns.iter().enumerate() {
            let entry = Entry { route, pattern: number as u32 };
            if pattern.is_exact() {
                self.exact.entry_ref(pattern.prefix()).or_default().push(entry);
            } else {
                self.prefixes.add(pattern.prefix().as_bytes(), entry);
            }
        }
    }

    /// Puts the patterns of one prefix in order: priority, then length of the pattern, then as added.
    pub(super) fn finish<T>(&mut self, routes: &[Arc<CompiledRoute<T>>]) {
        for list in self.prefixes.lists().filter(|list| list.len() > 1) {
            list.sort_by_key(|entry| {
                let route = &routes[entry.route as usize];
                Reverse((route.priority, route.patterns[entry.pattern as usize].source().len()))
            });
        }
    }

    /// The first route whose pattern fits the path and whose conditions hold.
    pub(super) fn find<'a, T>(&'a self, routes: &'a [Arc<CompiledRoute<T>>], x: &Exchange) -> Option<Match<'a, T>> {
        let path = x.request.path.as_str();
        let exact = if self.exact.is_empty() { None } else { self.exact.get(path) };
        let found = exact.and_then(|list| {
            list.iter().find_map(|entry| {
                let route = &routes[entry.route as usize];
                route.refusal(x).is_none().then(|| Match { number: entry.route as usize, route, params: Params::new() })
            })
        });
        found.or_else(|| {
            self.prefixes.longest_first(path.as_bytes(), |list| {
                list.iter().find_map(|entry| {
                    let route = &routes[entry.route as usize];
                    let pattern = &route.patterns[entry.pattern as usize];
                    let params = pattern.captures(path)?;
                    route.refusal(x).is_none().then(|| Match { number: entry.route as usize, route, params })
                })
            })
        })
    }
}
