//! What the schema of a mesh service cannot say.

use super::super::mesh::{NAME_RULE, is_mesh_name};
use super::super::resources::{HashOnKind, MeshService, Split};
use super::super::{Fault, ServiceId, carrying, check_expression};
use super::upstream;

/// Shares that one group of a split may have, as the plugin behind it.
const MOST_SHARES: usize = 20;

/// Names, what upstreams know too, plugins that lead elsewhere, and the split.
pub(super) fn check(service: &MeshService, id: &str, faults: &mut Vec<Fault>) {
    if !is_mesh_name(&service.namespace) {
        faults.push(Fault::new("namespace", format!("expected {NAME_RULE}, got \"{}\"", service.namespace)));
    }
    let local = id.rsplit_once('@').map_or(id, |(local, _)| local);
    match &service.name {
        Some(name) if !is_mesh_name(name) => faults.push(Fault::new("name", format!("expected {NAME_RULE}, got \"{name}\""))),
        None if !is_mesh_name(local) && !local.is_empty() => {
            faults.push(Fault::new(
                "name",
                format!(
                    "the id \"{local}\" is no name of a service ({NAME_RULE}): say name, and namespace where it is not default"
                ),
            ));
        }
        _ => {}
    }
    upstream::check(&service.upstream(), "", faults);
    if service.balancer == "chash" && service.hash_on == HashOnKind::Consumer {
        faults.push(Fault::new(
            "hash_on",
            "expected vars, header, cookie or vars_combinations: consumers are known to gateways only",
        ));
    }
    for plugin in service.plugins.keys().filter(|name| carrying(name).is_some()) {
        let message =
            format!("plugin {plugin} names upstreams, which gateways know but sidecars do not: use split to lead to services");
        faults.push(Fault::whole(format!("plugins.{plugin}"), message));
    }
    split(&service.split, &service.namespace, faults);
}

fn split(entries: &[Split], namespace: &str, faults: &mut Vec<Fault>) {
    let mut group = 0;
    for (index, entry) in entries.iter().enumerate() {
        if ServiceId::parse(&entry.service, namespace).is_none() {
            let message =
                format!("expected a service, \"web\" or \"shop/web\", got \"{}\" (names are {NAME_RULE})", entry.service);
            faults.push(Fault::new(format!("split[{index}].service"), message));
        }
        if let Some(Err(why)) = entry.matches.as_ref().map(check_expression) {
            faults.push(Fault::new(format!("split[{index}].match"), why));
        }
        group = if index > 0 && entries[index - 1].matches == entry.matches { group + 1 } else { 1 };
        if group == MOST_SHARES + 1 {
            faults.push(Fault::new("split", format!("expected at most {MOST_SHARES} entries in a row with the same match")));
        }
    }
}
