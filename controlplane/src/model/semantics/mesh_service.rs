//! What the schema of a mesh service cannot say.

use std::collections::BTreeSet;
use std::net::IpAddr;

use heddle_node::identity::TrustDomain;

use super::super::mesh::{NAME_RULE, is_mesh_name};
use super::super::resources::{Federated, HashOnKind, MeshService, ServiceMirror, Split, Upstream};
use super::super::types::{Labels, Plugins};
use super::super::{Fault, ServiceId, canonical, carrying, check_expression};
use super::upstream;

/// Shares that one group of a split may have, as the plugin behind it.
const MOST_SHARES: usize = 20;

/// Sidecars of a partner that one service has at most.
const MOST_NODES: usize = 1_000;

/// Labels of a subset, and how long their names and values are: together they are a name on the wire.
const MOST_LABELS: usize = 4;
const LONGEST_LABEL: usize = 63;

/// Names, what upstreams know too, plugins that lead elsewhere, the split and the mirror.
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
    addresses(&service.addresses, faults);
    for (index, port) in service.ports.iter().enumerate() {
        if service.ports[..index].iter().any(|other| other.number() == port.number()) {
            faults.push(Fault::new(format!("ports[{index}]"), format!("port {} stands there twice", port.number())));
        }
    }
    upstream::check(&Upstream { nodes: None, ..service.upstream() }, "", faults);
    if let Some(written) = &service.federated {
        federated(written, service, faults);
    }
    if service.upstream().hashes() && service.hash_on == HashOnKind::Consumer {
        faults.push(Fault::new(
            "hash_on",
            "expected vars, header, cookie or vars_combinations: consumers are known to gateways only",
        ));
    }
    plugins("plugins", &service.plugins, faults);
    plugins("inbound_plugins", &service.inbound_plugins, faults);
    if service.protocol.as_deref() == Some("tcp") && !service.inbound_plugins.is_empty() {
        let message = "nobody looks into what a service of protocol tcp is sent, so no plugins can run: leave inbound_plugins out, or say http";
        faults.push(Fault::new("inbound_plugins", message));
    }
    split(&service.split, &service.namespace, faults);
    if let Some(written) = &service.mirror {
        mirror(written, service, faults);
    }
}

/// A service that others run: whom it must prove to be, where it is, and nothing that would be done where it runs.
fn federated(written: &Federated, service: &MeshService, faults: &mut Vec<Fault>) {
    if let Err(error) = TrustDomain::new(&written.trust_domain) {
        faults.push(Fault::new("federated.trust_domain", error.to_string()));
    }
    if let Some(text) = written.service.as_deref().filter(|text| ServiceId::parse(text, &service.namespace).is_none()) {
        let message = format!("expected a service, \"web\" or \"shop/web\", got \"{text}\" (names are {NAME_RULE})");
        faults.push(Fault::new("federated.service", message));
    }
    upstream::nodes(&service.upstream(), "federated.", faults);
    if written.nodes.0.is_empty() || written.nodes.0.len() > MOST_NODES {
        faults.push(Fault::new("federated.nodes", format!("expected 1 to {MOST_NODES} addresses of sidecars of the partner")));
    }
    for (index, _) in written.nodes.0.iter().enumerate().filter(|(_, node)| node.port.is_none()) {
        let message = "expected a port: that by which the sidecar takes what comes in (15006 where its owner says nothing else)";
        faults.push(Fault::new(format!("federated.nodes[{index}].port"), message));
    }
    if !service.inbound_plugins.is_empty() {
        let message = "what comes in to a service of another trust domain is for its own control plane to say: leave it out";
        faults.push(Fault::new("inbound_plugins", message));
    }
}

/// Addresses that mean the same wherever a client is, each once.
fn addresses(written: &[String], faults: &mut Vec<Fault>) {
    let mut known = BTreeSet::new();
    for (index, text) in written.iter().enumerate() {
        let mut fault = |message: String| faults.push(Fault::new(format!("addresses[{index}]"), message));
        match canonical(text).filter(|address| is_of_one(*address)) {
            None => fault(format!("expected an IP address of one host or service, got \"{text}\"")),
            Some(IpAddr::V6(address)) if address.is_unicast_link_local() => {
                fault(format!("{text} means another host on every link: expected an address that all nodes reach"));
            }
            Some(address) if !known.insert(address) => fault(format!("{address} stands there twice")),
            Some(_) => {}
        }
    }
}

fn is_of_one(address: IpAddr) -> bool {
    !(address.is_loopback() || address.is_unspecified() || address.is_multicast())
}

/// Plugins that name upstreams. A mirror outside of the mesh is none of these.
fn plugins(field: &str, written: &Plugins, faults: &mut Vec<Fault>) {
    let outside = |config: &serde_json::Value| config.get("upstream_id").or(config.get("upstream")).is_none();
    for (plugin, _) in written.iter().filter(|(name, config)| carrying(name).is_some() && !(*name == MIRROR && outside(config))) {
        let message = format!(
            "plugin {plugin} names upstreams, which gateways know but sidecars do not: use split to lead to services, mirror to copy to one"
        );
        faults.push(Fault::whole(format!("{field}.{plugin}"), message));
    }
}

/// The plugin that copies requests.
const MIRROR: &str = "proxy-mirror";

fn mirror(written: &ServiceMirror, service: &MeshService, faults: &mut Vec<Fault>) {
    if service.plugins.contains_key(MIRROR) {
        faults.push(Fault::new("mirror", "expected either mirror or plugins.proxy-mirror, as requests are copied once"));
    }
    if written.service.is_none() && written.subset.is_empty() {
        faults.push(Fault::new(
            "mirror",
            "expected a service or a subset: copies to all instances of the service itself would double its work",
        ));
    }
    led_to("mirror", written.service.as_deref(), &written.subset, &service.namespace, faults);
}

/// A service, and labels of instances.
fn led_to(path: &str, service: Option<&str>, subset: &Labels, namespace: &str, faults: &mut Vec<Fault>) {
    if let Some(other) = service.filter(|other| ServiceId::parse(other, namespace).is_none()) {
        let message = format!("expected a service, \"web\" or \"shop/web\", got \"{other}\" (names are {NAME_RULE})");
        faults.push(Fault::new(format!("{path}.service"), message));
    }
    if subset.len() > MOST_LABELS || subset.iter().any(|(name, value)| !is_plain(name) || !is_plain(value)) {
        let message =
            format!("expected at most {MOST_LABELS} labels, names and values of 1 to {LONGEST_LABEL} letters, digits and -_./");
        faults.push(Fault::new(format!("{path}.subset"), message));
    }
}

fn split(entries: &[Split], namespace: &str, faults: &mut Vec<Fault>) {
    let mut group = 0;
    for (index, entry) in entries.iter().enumerate() {
        led_to(&format!("split[{index}]"), entry.service.as_deref(), &entry.subset, namespace, faults);
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
