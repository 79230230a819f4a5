//! From Consul's instances to endpoints. It asks nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use heddle_node::consul::{Instance, Standing};
use heddle_xds::model::{Endpoint, EndpointStatus, Labels};

/// Labels of one endpoint; more than Consul's own limit of 64 metas with some tags is a mistake of somebody's.
const MOST_LABELS: usize = 96;
/// Bytes of a label's name and of its value.
const LONGEST_LABEL: usize = 512;
/// Consul's weights go up to 65,535.
const HEAVIEST: u32 = 65_535;

/// Tags that ask for routes say nothing of an instance.
const ROUTING: [&str; 2] = ["heddle.", "traefik."];

/// The endpoints that instances stand for, each address once, all at `port` where it is given. Consul's order stays when it was asked for the nearest first.
pub(super) fn endpoints(instances: &[Instance], in_order: bool, port: Option<u16>) -> Vec<Endpoint> {
    let mut seen = BTreeSet::new();
    let with_port = instances.iter().map(|one| (one, port.unwrap_or(one.port)));
    let usable = with_port.filter(|(one, port)| *port != 0 && is_host(&one.address));
    let first = usable.filter(|(one, port)| seen.insert((one.address.as_str(), *port)));
    let mut endpoints: Vec<Endpoint> = first.map(|(one, port)| endpoint(one, port)).collect();
    if !in_order {
        endpoints.sort_unstable_by(|a, b| (&a.host, a.port).cmp(&(&b.host, b.port)));
    }
    endpoints
}

fn endpoint(instance: &Instance, port: u16) -> Endpoint {
    Endpoint {
        host: instance.address.as_str().into(),
        port,
        weight: instance.weight().min(HEAVIEST),
        zone: cut(&instance.zone).into(),
        status: match instance.standing {
            Standing::Passing | Standing::Warning => EndpointStatus::Healthy,
            Standing::Critical => EndpointStatus::Unhealthy,
            Standing::Maintenance => EndpointStatus::Draining,
        },
        labels: labels(instance),
        ..Endpoint::default()
    }
}

/// Meta as it is, tags `name=value` as such, other tags as `tag.NAME: "true"`, and where it is: `datacenter`, `node`. Meta goes before tags.
fn labels(instance: &Instance) -> Labels {
    let mut all: BTreeMap<String, &str> = BTreeMap::new();
    for tag in instance.tags.iter().filter(|tag| !ROUTING.iter().any(|prefix| tag.starts_with(prefix))) {
        match tag.split_once('=') {
            Some((name, value)) if !name.is_empty() => all.insert(name.to_owned(), value),
            _ => all.insert(format!("tag.{tag}"), "true"),
        };
    }
    all.extend(instance.meta.iter().map(|(name, value)| (name.clone(), value.as_str())));
    all.insert("datacenter".to_owned(), &instance.datacenter);
    all.insert("node".to_owned(), &instance.node);
    let short =
        all.iter().filter(|(name, value)| name.len() <= LONGEST_LABEL && value.len() <= LONGEST_LABEL && !value.is_empty());
    short.take(MOST_LABELS).map(|(name, value)| (Arc::from(name.as_str()), Arc::from(*value))).collect()
}

fn cut(text: &str) -> &str {
    if text.len() <= LONGEST_LABEL { text } else { "" }
}

/// An IP address, or what may be a DNS name.
fn is_host(text: &str) -> bool {
    let name = || {
        (1..=253).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
    };
    text.parse::<std::net::IpAddr>().is_ok() || name()
}
