//! What the schema of a mesh service cannot say.

use super::super::mesh::{NAME_RULE, is_mesh_name};
use super::super::resources::{HashOnKind, MeshService, Split};
use super::super::{Fault, ServiceId, carrying, check_expression};
use super::upstream;

/// Shares that one group of a split may have, as the plugin behind it.
const MOST_SHARES: usize = 20;

/// Labels of a subset, and how long their names and values are: together they are a name on the wire.
const MOST_LABELS: usize = 4;
const LONGEST_LABEL: usize = 63;

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
    if service.upstream().hashes() && service.hash_on == HashOnKind::Consumer {
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
        if let Some(other) = entry.service.as_ref().filter(|other| ServiceId::parse(other, namespace).is_none()) {
            let message = format!("expected a service, \"web\" or \"shop/web\", got \"{other}\" (names are {NAME_RULE})");
            faults.push(Fault::new(format!("split[{index}].service"), message));
        }
        if entry.subset.len() > MOST_LABELS || entry.subset.iter().any(|(name, value)| !is_plain(name) || !is_plain(value)) {
            let message = format!(
                "expected at most {MOST_LABELS} labels, names and values of 1 to {LONGEST_LABEL} letters, digits and -_./"
            );
            faults.push(Fault::new(format!("split[{index}].subset"), message));
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

fn is_plain(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    (1..=LONGEST_LABEL).contains(&text.len()) && text.bytes().all(plain)
}
