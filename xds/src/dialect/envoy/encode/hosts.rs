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
/// Bytes before a virtual host at most: its field and its length.
const PREFIX: usize = 11;
/// `VirtualHost.routes`.
const VIRTUAL_HOST_ROUTES: u32 = 3;
/// `VirtualHost.retry_policy`.
const VIRTUAL_HOST_RETRIES: u32 = 16;

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
    pub(super) retries: Retries,
}

/// What a route says of further tries, which its host may say once for all of its routes: it is a third of what a plain route is written with.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Retries {
    /// Whatever is said, nothing is tried: it answers by itself.
    Any,
    /// Requests are tried once. There is no shorter way to say so than that the host says nothing.
    Unsaid,
    /// This policy, and the route without it.
    Said { policy: Bytes, rest: Bytes },
}

/// All routes.
#[derive(Debug, Default)]
pub(super) struct Table {
    routes: BTreeMap<Arc<str>, Vec<Place>>,
    /// The routes of each host, by id.
    hosts: BTreeMap<Host, BTreeSet<Arc<str>>>,
    /// Hosts whose own routes have changed since the tables were encoded.
    touched: BTreeSet<Host>,
    /// The virtual hosts of the one table as they were encoded last, each a part of it: a route changes in few of them.
    encoded: BTreeMap<Host, Bytes>,
}

impl Host {
    /// Reads `example.com`, `*.example.com` or `*`. Case and a dot at the end do not count.
    pub(super) fn read(text: &str) -> Result<Host, String> {
        let text = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        match text.strip_prefix('*') {
            Some("") => Ok(Host::Any),
            Some(suffix) => Ok(Host::Suffix(suffix.into())),
            None if text.contains(':') => Err(format!("hosts: Envoy chooses no route by a host with a port (`{text}`)")),
            None if text.is_empty() || text.contains('*') => Err(format!("hosts: `{text}` is no host")),
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

    /// Whether it stands for many.
    fn is_wide(&self) -> bool {
        !matches!(self, Host::Exact(_))
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
        for place in before.iter().flatten() {
            if let Some(ids) = self.hosts.get_mut(&place.host) {
                ids.remove(id);
                if ids.is_empty() {
                    self.hosts.remove(&place.host);
                }
            }
        }
        for place in after.into_iter().flatten() {
            self.hosts.entry(place.host.clone()).or_default().insert(id.clone());
        }
        let places = before.iter().chain(after).flatten();
        self.touched.extend(places.map(|place| place.host.clone()));
        true
    }

    /// All routes, by kind and name.
    pub(super) fn names(&self) -> impl Iterator<Item = (Kind, Arc<str>)> + use<'_> {
        self.routes.keys().map(|id| (Kind::Route, id.clone()))
    }

    /// Hosts whose routes, or those behind them, have changed since the last time, and those that have no routes any more.
    fn concerned(&mut self) -> BTreeSet<Host> {
        let mut concerned = std::mem::take(&mut self.touched);
        let wide: Vec<Host> = concerned.iter().filter(|host| host.is_wide()).cloned().collect();
        if !wide.is_empty() {
            concerned.extend(self.hosts.keys().filter(|host| wide.iter().any(|wider| host.is_in(wider))).cloned());
        }
        concerned
    }

    /// The `RouteConfiguration`. Each route was encoded before, and so was each virtual host that is as it was; here their bytes are put in order.
    pub(super) fn encode(&mut self) -> Bytes {
        let concerned = self.concerned();
        let sorted = Sorted::of(self, &concerned);
        let body = |host: &Host| self.hosts.contains_key(host).then(|| sorted.virtual_host(host, host.domain()));
        let anew: Vec<Option<Vec<u8>>> = concerned.iter().map(body).collect();
        for (host, body) in concerned.into_iter().zip(anew) {
            match body {
                Some(body) => drop(self.encoded.insert(host, body.into())),
                None => drop(self.encoded.remove(&host)),
            }
        }
        let head = wire::RouteConfiguration { name: ROUTES.to_owned(), ignore_port_in_host_matching: true, ..Default::default() };
        let mut out = head.encode_to_vec();
        out.reserve(self.encoded.values().map(|body| body.len() + PREFIX).sum());
        let mut ends = Vec::with_capacity(self.encoded.len());
        for body in self.encoded.values() {
            put(VIRTUAL_HOSTS, body, &mut out);
            ends.push(out.len());
        }
        let out = Bytes::from(out);
        // They stand in the table, which is kept anyway.
        for (body, end) in self.encoded.values_mut().zip(ends) {
            *body = out.slice(end - body.len()..end);
        }
        out
    }

    /// A `RouteConfiguration` for every host whose routes, or those behind them, have changed since the last time, by the host; none for one that has no
    /// routes any more. Whoever reads it has found the host already, so it is for every host there.
    pub(super) fn encode_touched(&mut self, name: impl Fn(&str) -> String) -> Vec<(String, Option<Bytes>)> {
        let concerned = self.concerned();
        let sorted = Sorted::of(self, &concerned);
        let one = |host: &Host| {
            let domain = host.domain();
            let body = self.hosts.contains_key(host).then(|| {
                let head = wire::RouteConfiguration { name: name(&domain), ..Default::default() };
                let mut out = head.encode_to_vec();
                put(VIRTUAL_HOSTS, &sorted.virtual_host(host, "*".to_owned()), &mut out);
                out.into()
            });
            (domain, body)
        };
        concerned.iter().map(one).collect()
    }
}

/// The places of some hosts, and of all that stand for many, in the order in which they are asked.
struct Sorted<'a> {
    own: BTreeMap<&'a Host, Vec<&'a Place>>,
    /// Hosts that stand for many, the longest first, the one that is for every host last.
    wide: Vec<&'a Host>,
}

impl<'a> Sorted<'a> {
    fn of(table: &'a Table, hosts: &BTreeSet<Host>) -> Sorted<'a> {
        let meant = table.hosts.iter().filter(|(host, _)| host.is_wide() || hosts.contains(host));
        let places = |(host, ids): (&'a Host, &'a BTreeSet<Arc<str>>)| {
            let all = ids.iter().filter_map(|id| table.routes.get(id)).flatten();
            let mut places: Vec<&Place> = all.filter(|place| place.host == *host).collect();
            places.sort_by(|a, b| a.order.cmp(&b.order));
            (host, places)
        };
        let mut wide: Vec<&Host> = table.hosts.keys().filter(|host| host.is_wide()).collect();
        wide.sort_by_key(|host| match host {
            Host::Suffix(suffix) => Reverse(suffix.len()),
            _ => Reverse(0),
        });
        Sorted { own: meant.map(places).collect(), wide }
    }

    /// The routes of a host and of all wider ones.
    fn virtual_host(&self, host: &Host, domain: String) -> Vec<u8> {
        let mut body = wire::VirtualHost { name: host.domain(), domains: vec![domain], ..Default::default() }.encode_to_vec();
        let wider = self.wide.iter().filter(|wider| host.is_in(wider)).filter_map(|wider| self.own.get(*wider));
        let places = || self.own.get(host).into_iter().chain(wider.clone()).flatten();
        let shared = shared(places().map(|place| &place.retries));
        for place in places() {
            let route = match &place.retries {
                Retries::Said { policy, rest } if Some(policy) == shared => rest,
                _ => &place.body,
            };
            put(VIRTUAL_HOST_ROUTES, route, &mut body);
        }
        if let Some(policy) = shared {
            put(VIRTUAL_HOST_RETRIES, policy, &mut body);
        }
        body
    }
}

/// The policy that most routes of a host say, where it is no matter to the others if the host says it: who says another one is not asked for that of the host.
fn shared<'a>(all: impl Iterator<Item = &'a Retries>) -> Option<&'a Bytes> {
    let mut counts: BTreeMap<&Bytes, usize> = BTreeMap::new();
    for retries in all {
        match retries {
            Retries::Any => {}
            Retries::Unsaid => return None,
            Retries::Said { policy, .. } => *counts.entry(policy).or_default() += 1,
        }
    }
    let (policy, count) = counts.into_iter().max_by_key(|(_, count)| *count)?;
    (count > 1).then_some(policy)
}

/// A field that holds a message.
fn put(field: u32, message: &[u8], out: &mut Vec<u8>) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(message.len() as u64, out);
    out.put_slice(message);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use proptest::prelude::*;
    use wire::route::Action;

    use super::super::route::retries;
    use super::*;

    /// A route that is told apart from others, and says of further tries what `tries` stands for.
    fn place(host: &str, (id, version): (u8, u8), tries: u8) -> Place {
        let order = Order {
            rank: super::super::pattern::read("/*").1,
            priority: Reverse(0),
            length: Reverse(usize::from(version % 2)),
            created: 0,
            id: id.to_string().into(),
            part: 0,
        };
        let policy = |tries| wire::RetryPolicy { num_retries: Some(tries), ..Default::default() };
        let action = match tries {
            0 => Action::DirectResponse(wire::DirectResponseAction::default()),
            1 => Action::Route(wire::RouteAction::default()),
            more => Action::Route(wire::RouteAction { retry_policy: Some(policy(more.into())), ..Default::default() }),
        };
        let route = wire::Route { name: format!("{id}/{version}/{tries}"), action: Some(action), ..Default::default() };
        Place { host: Host::read(host).unwrap(), order, body: super::super::bytes(&route), retries: retries(&route) }
    }

    fn table(routes: &BTreeMap<u8, Vec<Place>>) -> Table {
        let mut table = Table::default();
        for (id, places) in routes {
            table.set(&id.to_string().into(), places.clone());
        }
        table
    }

    /// How often each route of the first host is tried again, as Envoy reads it, and what stands in the routes themselves.
    fn tried(table: &mut Table) -> (Vec<(String, Option<u32>)>, usize) {
        let host = wire::RouteConfiguration::decode(table.encode()).unwrap().virtual_hosts.remove(0);
        let of_host = host.retry_policy.map(|policy| policy.num_retries.unwrap());
        let mut said = 0;
        let one = |route: wire::Route| {
            let Some(Action::Route(action)) = route.action else { return (route.name, None) };
            let own = action.retry_policy.map(|policy| policy.num_retries.unwrap());
            said += usize::from(own.is_some());
            (route.name, own.or(of_host))
        };
        (host.routes.into_iter().map(one).collect(), said)
    }

    const HOSTS: [&str; 5] = ["a.example.com", "b.example.com", "*.example.com", "*.com", "*"];

    proptest! {
        #[test]
        fn what_is_kept_of_the_table_is_what_would_be_encoded_anew(
            steps in proptest::collection::vec((0u8..6, proptest::collection::vec(0usize..HOSTS.len(), 0..3), 0u8..4, any::<bool>()), 1..30)
        ) {
            let (mut kept, mut routes) = (Table::default(), BTreeMap::new());
            for (id, hosts, version, looks) in steps {
                let places: Vec<Place> = hosts.iter().map(|host| place(HOSTS[*host], (id, version), version)).collect();
                kept.set(&id.to_string().into(), places.clone());
                routes.insert(id, places);
                if looks {
                    prop_assert_eq!(kept.encode(), table(&routes).encode());
                }
            }
            prop_assert_eq!(kept.encode(), table(&routes).encode());
        }

        #[test]
        fn whoever_says_it_every_route_is_tried_as_often_as_it_was_to_be(all in proptest::collection::vec(0u8..5, 1..8)) {
            let routes = (0..).zip(&all).map(|(id, tries)| (id, vec![place(HOSTS[usize::from(id % 2) * 4], (id, 0), *tries)]));
            let mut told = tried(&mut table(&routes.collect())).0;
            // The closer host has the routes of the wider one behind its own.
            told.sort();
            let expected: Vec<_> = (0..).zip(&all).map(|(id, tries): (u8, &u8)| (format!("{id}/0/{tries}"), (*tries > 1).then(|| u32::from(*tries)))).collect();
            prop_assert_eq!(told, expected);
        }
    }

    #[test]
    fn what_routes_of_a_host_have_in_common_the_host_says_once() {
        let said = |all: &[u8]| {
            let routes = (0..).zip(all).map(|(id, tries)| (id, vec![place("*", (id, 0), *tries)]));
            tried(&mut table(&routes.collect())).1
        };
        assert_eq!(said(&[2, 2, 2]), 0);
        assert_eq!(said(&[2, 3, 2, 0]), 1, "the one that says something else, and who answers by itself is no matter");
        assert_eq!(said(&[2, 2, 1]), 2, "one is tried once, and would be tried as the host says");
        assert_eq!(said(&[2, 3]), 2, "nothing is saved");
    }
}
