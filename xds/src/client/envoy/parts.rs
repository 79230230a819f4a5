//! What a listener is made of that others tell: tables of routes, and what filters do. It holds nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::dialect::envoy::decode::DecodeFault as Fault;
use crate::dialect::envoy::decode::piece::{Chain, Deed, Door, Extension, Filter, Routes};
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

/// The extensions that a plugin of a route may come from, where ECDS has said them: its name tells.
pub(super) fn extensions_behind<'d>(
    door: &'d Door,
    field: &str,
    extensions: &BTreeMap<Arc<str>, Arc<Extension>>,
) -> impl Iterator<Item = &'d Arc<str>> {
    let plugin = field.strip_prefix("plugins.").and_then(|rest| rest.split('.').next());
    let told = filters_of(door).filter(|filter| filter.asked.is_some());
    told.map(|filter| &filter.name).filter(move |name| {
        let does = extensions.get(*name).and_then(|extension| extension.does.as_ref());
        does.is_some_and(|deed| deed.iter().any(|(known, _)| Some(*known) == plugin))
    })
}

/// What a filter does with the changes of a route.
///
/// # Errors
/// A route asks by gRPC in the place of a filter that asks by HTTP, which says otherwise what is told.
pub(super) fn but(deed: &Deed, changes: &Value, place: impl Fn() -> String) -> Result<Deed, Fault> {
    let mut deed = deed.clone();
    for config in deed.iter_mut().filter_map(|(_, config)| config.as_object_mut()) {
        for (name, value) in changes.as_object().into_iter().flatten() {
            if name == "protocol" && config.get(name) != Some(value) {
                let field = format!("{}.check_settings.grpc_service", place());
                return Err(Fault::new(
                    field,
                    "is not supported where the listener has an http_service: use grpc_service there, too",
                ));
            }
            match value {
                Value::Null => drop(config.remove(name)),
                value => drop(config.insert(name.clone(), value.clone())),
            }
        }
    }
    Ok(deed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn a_route_changes_whom_a_filter_asks_but_not_in_which_way() {
        let changes = json!({"protocol": "grpc", "upstream_id": "b", "authority": null, "timeout": 200});
        let asks = |config: Value| but(&vec![("ext-authz", config)], &changes, || "typed_per_filter_config[asks]".to_owned());
        let grpc = json!({"protocol": "grpc", "upstream_id": "a", "authority": "h", "status_on_error": 403});
        let changed = json!({"protocol": "grpc", "upstream_id": "b", "timeout": 200, "status_on_error": 403});
        assert_eq!(asks(grpc).unwrap(), [("ext-authz", changed)]);
        let fault = asks(json!({"upstream_id": "a"})).unwrap_err();
        assert_eq!(fault.field, "typed_per_filter_config[asks].check_settings.grpc_service");
    }
}
