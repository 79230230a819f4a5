//! The table of all routes: virtual hosts in which the order of routes is that of our agents. It knows no route but its bytes.
//!
//! Envoy looks for a route in the closest host only, our agents go on in the next one. So a host holds its own routes, and behind them those of every
//! wider host that covers it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{BufMut, Bytes};
use heddle_proto::envoy::config::route::v3 as wire;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};

use super::ROUTES;
use super::pattern::Rank;
use crate::model::Kind;

/// `RouteConfiguration.virtual_hosts`.
const VIRTUAL_HOSTS: u32 = 2;
/// `VirtualHost.routes`.
const VIRTUAL_HOST_ROUTES: u32 = 3;

/// A host condition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Host {
    /// This host.
    Exact(Arc<str>),
    /// Every host that ends so.
    Suffix(Arc<str>),
    /// Every host.
    Any,
}

/// The place of a route among those of a host: by its path, then the higher priority, the longer pattern, the older route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Order {
    pub(super) rank: Rank,
    pub(super) priority: Reverse<i64>,
    pub(super) length: Reverse<usize>,
    pub(super) created: u64,
    pub(super) id: Arc<str>,
    /// Of several that one route becomes.
    pub(super) part: usize,
}

/// A route in a host, encoded.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Place {
    pub(super) host: Host,
    pub(super) order: Order,
    pub(super) body: Bytes,
}

/// All routes.
#[derive(Debug, Default)]
pub(super) struct Table {
    routes: BTreeMap<Arc<str>, Vec<Place>>,
}

impl Host {
    /// Reads `example.com`, `*.example.com` or `*`.
    pub(super) fn read(text: &str) -> Result<Host, String> {
        match text.strip_prefix('*') {
            Some("") => Ok(Host::Any),
            Some(suffix) => Ok(Host::Suffix(suffix.into())),
            None if text.contains(':') => Err(format!("hosts: Envoy chooses no route by a host with a port (`{text}`)")),
            None => Ok(Host::Exact(text.into())),
        }
    }

    fn domain(&self) -> String {
        match self {
            Host::Exact(name) => name.to_string(),
            Host::Suffix(suffix) => format!("*{suffix}"),
            Host::Any => "*".to_owned(),
        }
    }

    /// Whether every host of `self` is one of `wider` too; a host does not cover itself.
    fn is_in(&self, wider: &Host) -> bool {
        match (self, wider) {
            (Host::Any, _) => false,
            (_, Host::Any) => true,
            (Host::Exact(name) | Host::Suffix(name), Host::Suffix(suffix)) => {
                name.len() > suffix.len() && name.ends_with(&**suffix)
            }
            (_, Host::Exact(_)) => false,
        }
    }
}

impl Table {
    /// Puts a route in its places, none to take it out. Whether the table is another one now.
    pub(super) fn set(&mut self, id: &Arc<str>, places: Vec<Place>) -> bool {
        if places.is_empty() {
            return self.routes.remove(id).is_some();
        }
        let before = self.routes.insert(id.clone(), places);
        before.as_ref() != self.routes.get(id)
    }

    /// All routes, by kind and name.
    pub(super) fn names(&self) -> impl Iterator<Item = (Kind, Arc<str>)> + use<'_> {
        self.routes.keys().map(|id| (Kind::Route, id.clone()))
    }

    /// The `RouteConfiguration`. Each route was encoded before; here its bytes are put in order.
    pub(super) fn encode(&self) -> Bytes {
        let mut hosts: BTreeMap<&Host, Vec<&Place>> = BTreeMap::new();
        for place in self.routes.values().flatten() {
            hosts.entry(&place.host).or_default().push(place);
        }
        hosts.values_mut().for_each(|places| places.sort_by(|a, b| a.order.cmp(&b.order)));
        let mut wide: Vec<&Host> = hosts.keys().copied().filter(|host| !matches!(host, Host::Exact(_))).collect();
        // The longest first, the one that is for every host last.
        wide.sort_by_key(|host| match host {
            Host::Suffix(suffix) => Reverse(suffix.len()),
            _ => Reverse(0),
        });
        let head = wire::RouteConfiguration { name: ROUTES.to_owned(), ignore_port_in_host_matching: true, ..Default::default() };
        let mut out = head.encode_to_vec();
        for (host, own) in &hosts {
            let domain = host.domain();
            let mut body =
                wire::VirtualHost { name: domain.clone(), domains: vec![domain], ..Default::default() }.encode_to_vec();
            let wider = wide.iter().filter(|wider| host.is_in(wider)).filter_map(|wider| hosts.get(*wider));
            for place in std::iter::once(own).chain(wider).flatten() {
                put(VIRTUAL_HOST_ROUTES, &place.body, &mut body);
            }
            put(VIRTUAL_HOSTS, &body, &mut out);
        }
        out.into()
    }
}

/// A field that holds a message.
fn put(field: u32, message: &[u8], out: &mut Vec<u8>) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(message.len() as u64, out);
    out.put_slice(message);
}
