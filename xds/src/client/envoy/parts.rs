//! What a listener is made of that others tell: tables of routes, and what filters do. It holds nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::dialect::envoy::decode::piece::{Chain, Door, Extension, Filter, Routes};
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
fn filters_of(door: &Door) -> impl Iterator<Item = &Filter> {
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

/// The extension that a plugin of a route comes from, where ECDS has said it: a route runs each plugin once, so that its name tells.
pub(super) fn extension_behind<'d>(
    door: &'d Door,
    field: &str,
    extensions: &BTreeMap<Arc<str>, Arc<Extension>>,
) -> Option<&'d Arc<str>> {
    let plugin = field.strip_prefix("plugins.")?.split('.').next()?;
    let told = filters_of(door).filter(|filter| filter.asked.is_some());
    told.map(|filter| &filter.name).find(|name| {
        let does = extensions.get(*name).and_then(|extension| extension.does.as_ref());
        does.is_some_and(|deed| deed.iter().any(|(known, _)| *known == plugin))
    })
}
