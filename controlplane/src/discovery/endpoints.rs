//! From Consul's instances to endpoints. It asks nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use heddle_node::consul::{Instance, Standing};
use heddle_xds::model::{Endpoint, EndpointStatus, Labels};

use super::Ask;
use super::local::is_local;

/// Labels of one endpoint; more than Consul's own limit of 64 metas with some tags is a mistake of somebody's.
const MOST_LABELS: usize = 96;
/// Tags of one instance that are looked at.
const MOST_TAGS: usize = 256;
/// Bytes of all labels of one endpoint, names and values.
const MOST_BYTES: usize = 8 * 1024;
/// Endpoints of one service; whoever has more divides it by tags.
pub(super) const MOST_ENDPOINTS: usize = 10_000;
/// Bytes of a label's name and of its value.
const LONGEST_LABEL: usize = 512;
/// Consul's weights go up to 65,535.
const HEAVIEST: u32 = 65_535;

/// Tags that ask for routes say nothing of an instance.
const ROUTING: [&str; 2] = ["heddle.", "traefik."];

/// The endpoints that instances stand for, and how many were left out and why.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Usable {
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) left_out: Option<String>,
}

/// The endpoints that instances stand for, each address once, all at the port that is asked for where one is. Consul's order stays when it was asked for the
/// nearest first.
pub(super) fn endpoints(instances: &[Instance], ask: &Ask) -> Usable {
    let (mut seen, mut local) = (BTreeSet::new(), 0_usize);
    let with_port = instances.iter().map(|one| (one, ask.port.unwrap_or(one.port)));
    let usable = with_port.filter(|(one, port)| *port != 0 && is_host(&one.address));
    let allowed = usable.filter(|(one, _)| {
        let refused = ask.no_local && is_local(&one.address);
        local += usize::from(refused);
        !refused
    });
    let mut first: Vec<(&Instance, u16)> = allowed.filter(|(one, port)| seen.insert((one.address.as_str(), *port))).collect();
    if ask.near.is_none() {
        first.sort_unstable_by(|a, b| (&a.0.address, a.1).cmp(&(&b.0.address, b.1)));
    }
    let over = first.len().saturating_sub(MOST_ENDPOINTS);
    let endpoints = first.into_iter().take(MOST_ENDPOINTS).map(|(one, port)| endpoint(one, port)).collect();
    Usable { endpoints, left_out: left_out(local, over) }
}

fn left_out(local: usize, over: usize) -> Option<String> {
    let local = (local > 0).then(|| {
        format!(
            "{local} instances say that they are at an address of loopback, of a link or of a metadata service, or have a name for an address; \
             catalog.allow_local: true lets services say so"
        )
    });
    let over = (over > 0)
        .then(|| format!("{over} instances are beyond the {MOST_ENDPOINTS} that one service may have; divide it by tags"));
    let both: Vec<String> = local.into_iter().chain(over).collect();
    (!both.is_empty()).then(|| both.join("; "))
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
    for tag in instance.tags.iter().take(MOST_TAGS).filter(|tag| !ROUTING.iter().any(|prefix| tag.starts_with(prefix))) {
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
    let mut bytes = 0;
    let fits = short.filter(|(name, value)| {
        let all = bytes + name.len() + value.len();
        let fits = all <= MOST_BYTES;
        if fits {
            bytes = all;
        }
        fits
    });
    fits.take(MOST_LABELS).map(|(name, value)| (Arc::from(name.as_str()), Arc::from(*value))).collect()
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
