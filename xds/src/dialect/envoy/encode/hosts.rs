//! The table of all routes: virtual hosts in which the order of routes is that of our agents. It knows no route but its bytes.
//!
//! Envoy looks for a route in the closest host only, our agents go on in the next one. So a host holds its own routes, and behind them those of every
//! wider host that covers it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
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
    /// Hosts whose own routes have changed since the tables were encoded.
    touched: BTreeSet<Host>,
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
        let before = match places.is_empty() {
            true => self.routes.remove(id),
            false => self.routes.insert(id.clone(), places),
        };
        let after = self.routes.get(id);
        if before.as_ref() == after {
            return false;
        }
        let places = before.iter().chain(after).flatten();
        self.touched.extend(places.map(|place| place.host.clone()));
        true
    }

    /// All routes, by kind and name.
    pub(super) fn names(&self) -> impl Iterator<Item = (Kind, Arc<str>)> + use<'_> {
        self.routes.keys().map(|id| (Kind::Route, id.clone()))
    }

    /// The `RouteConfiguration`. Each route was encoded before; here its bytes are put in order.
    pub(super) fn encode(&mut self) -> Bytes {
        self.touched.clear();
        let hosts = Sorted::of(&self.routes);
        let head = wire::RouteConfiguration { name: ROUTES.to_owned(), ignore_port_in_host_matching: true, ..Default::default() };
        let mut out = head.encode_to_vec();
        for host in hosts.own.keys() {
            put(VIRTUAL_HOSTS, &hosts.virtual_host(host, host.domain()), &mut out);
        }
        out.into()
    }

    /// A `RouteConfiguration` for every host whose routes, or those behind them, have changed since the last time, by the host; none for one that has no
    /// routes any more. Whoever reads it has found the host already, so it is for every host there.
    pub(super) fn encode_touched(&mut self, name: impl Fn(&str) -> String) -> Vec<(String, Option<Bytes>)> {
        let touched = std::mem::take(&mut self.touched);
        let hosts = Sorted::of(&self.routes);
        let concerned = |host: &&Host| touched.contains(*host) || touched.iter().any(|wider| host.is_in(wider));
        let gone = touched.iter().filter(|host| !hosts.own.contains_key(host)).map(|host| (host.domain(), None));
        let here = hosts.own.keys().copied().filter(concerned).map(|host| {
            let domain = host.domain();
            let head = wire::RouteConfiguration { name: name(&domain), ..Default::default() };
            let mut out = head.encode_to_vec();
            put(VIRTUAL_HOSTS, &hosts.virtual_host(host, "*".to_owned()), &mut out);
            (domain, Some(out.into()))
        });
        gone.chain(here).collect()
    }
}

/// All places in the order in which they are asked.
struct Sorted<'a> {
    own: BTreeMap<&'a Host, Vec<&'a Place>>,
    /// Hosts that stand for many, the longest first, the one that is for every host last.
    wide: Vec<&'a Host>,
}

impl<'a> Sorted<'a> {
    fn of(routes: &'a BTreeMap<Arc<str>, Vec<Place>>) -> Sorted<'a> {
        let mut own: BTreeMap<&Host, Vec<&Place>> = BTreeMap::new();
        for place in routes.values().flatten() {
            own.entry(&place.host).or_default().push(place);
        }
        own.values_mut().for_each(|places| places.sort_by(|a, b| a.order.cmp(&b.order)));
        let mut wide: Vec<&Host> = own.keys().copied().filter(|host| !matches!(host, Host::Exact(_))).collect();
        wide.sort_by_key(|host| match host {
            Host::Suffix(suffix) => Reverse(suffix.len()),
            _ => Reverse(0),
        });
        Sorted { own, wide }
    }

    /// The routes of a host and of all wider ones.
    fn virtual_host(&self, host: &Host, domain: String) -> Vec<u8> {
        let mut body = wire::VirtualHost { name: host.domain(), domains: vec![domain], ..Default::default() }.encode_to_vec();
        let wider = self.wide.iter().filter(|wider| host.is_in(wider)).filter_map(|wider| self.own.get(*wider));
        for place in self.own.get(host).into_iter().chain(wider).flatten() {
            put(VIRTUAL_HOST_ROUTES, &place.body, &mut body);
        }
        body
    }
}

/// A field that holds a message.
fn put(field: u32, message: &[u8], out: &mut Vec<u8>) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(message.len() as u64, out);
    out.put_slice(message);
}
