//! What a listener is made of that others tell: tables of routes, and what filters do. It holds nothing.

use std::sync::Arc;
use std::time::Duration;

use crate::dialect::envoy::decode::piece::{Chain, Door, Filter, Routes};
use crate::dialect::envoy::decode::source::PATIENCE;
use crate::dialect::envoy::kind::EnvoyKind;

/// What a listener asks for besides secrets, and how long it waits.
pub(super) fn parts_of(door: &Door) -> impl Iterator<Item = (EnvoyKind, &Arc<str>, Duration)> {
    let tables = door.chains.iter().filter_map(Chain::http).filter_map(|http| match &http.routes {
        Routes::Asked(name, patience) => Some((EnvoyKind::Routes, name, *patience)),
        Routes::Told(_) => None,
    });
    let filters = filters_of(door);
    tables.chain(filters.filter_map(|filter| Some((EnvoyKind::Extension, &filter.name, filter.asked?.patience))))
}

/// The filters of all its chains.
pub(super) fn filters_of(door: &Door) -> impl Iterator<Item = &Filter> {
    door.chains.iter().filter_map(Chain::http).flat_map(|http| &http.filters)
}

/// Whether a filter does what it does by default while it waits.
pub(super) fn is_at_once(door: &Door, kind: EnvoyKind, name: &Arc<str>) -> bool {
    let mut filters = filters_of(door).filter(|filter| filter.name == *name);
    kind == EnvoyKind::Extension && filters.all(|filter| filter.asked.is_none_or(|asked| asked.at_once && asked.has_default))
}

/// How long it waits for them.
pub(super) fn patience(door: &Door) -> Duration {
    parts_of(door).map(|(_, _, patience)| patience).max().unwrap_or(PATIENCE)
}
