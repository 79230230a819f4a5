//! Listeners for bytes: which filter chain a connection takes by its server name, what is shown to it, and where its bytes go. It knows no request.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use heddle_proto::envoy::config::listener::v3 as wire;
use heddle_proto::envoy::extensions::filters::network::tcp_proxy::v3 as proxy;
use heddle_proto::envoy::r#type::v3::{HashPolicy, hash_policy};
use proxy::TcpProxy;
use proxy::tcp_proxy::{ClusterSpecifier, TunnelingConfig, WeightedCluster, weighted_cluster::ClusterWeight};

use super::super::mesh::tries;
use super::super::weights;
use super::super::wire::{any, span};
use super::shown;
use crate::model::{Balancer, Certificate, HashOn, Listener, MeshPeer, TcpRoute, TcpShare, Upstream};

const PROXY: &str = "envoy.filters.network.tcp_proxy";
/// The least age at which Envoy ends a connection of bytes; it refuses a listener with less.
const YOUNGEST: Duration = Duration::from_millis(1);

/// Finds the upstream of a name; an error says why Envoys are not given it.
pub(in super::super) type Find<'f, 'a> = &'f dyn Fn(&str) -> Result<Option<&'a Upstream>, String>;

/// What a group of server names is served by; no names are all others, a client that names none among them.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    /// Of the listener's routes.
    route: usize,
    served: Served,
}

/// What becomes of a connection.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Served {
    /// TLS passes, or nobody spoke it.
    Passed,
    /// TLS ends, with this one of the certificates.
    Shown(usize),
    /// It is closed.
    Closed,
}

/// Whether it matters what a connection begins with. Where it does not, servers may speak first.
pub(super) fn must_look(listener: &Listener) -> bool {
    let tells = |route: &Arc<TcpRoute>| !route.server_names.is_empty() || route.for_tls.is_some() || route.terminate;
    listener.tcp.len() > 1 || listener.tcp.iter().any(tells)
}

/// A chain for each route, and for each certificate that one shows.
pub(super) fn chains(
    listener: &Listener,
    certificates: &[&Certificate],
    find: Find<'_, '_>,
) -> Result<Vec<wire::FilterChain>, String> {
    let mut groups: BTreeMap<Group, Vec<&str>> = BTreeMap::new();
    for (route, name) in places(listener, certificates) {
        groups.entry(Group { route, served: served(&listener.tcp[route], name, certificates) }).or_default().push(name);
    }
    if groups.keys().all(|group| group.served == Served::Closed) {
        return Err("has no certificate yet for what it terminates".to_owned());
    }
    let mut chains = Vec::new();
    for (group, names) in &groups {
        let route = &listener.tcp[group.route];
        // The rest stands apart: names beside it would narrow it down.
        let (named, rest): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| !name.is_empty());
        let parts = [(!named.is_empty()).then_some(named), (!rest.is_empty()).then(Vec::new)];
        for names in parts.into_iter().flatten() {
            chains.push(chain(listener, (group, route), &names, certificates, find)?);
        }
    }
    Ok(chains)
}

/// Every server name that makes a difference, `""` for the rest, with its route: those of routes, and those of certificates that a terminating route shows.
fn places<'l>(listener: &'l Listener, certificates: &[&'l Certificate]) -> Vec<(usize, &'l str)> {
    let mut taken = BTreeSet::new();
    let mut places: Vec<(usize, &str)> = Vec::new();
    for (at, route) in listener.tcp.iter().enumerate() {
        let all = route.server_names.iter().map(|name| &**name).chain(route.server_names.is_empty().then_some(""));
        places.extend(all.filter(|name| taken.insert((*name, route.for_tls))).map(|name| (at, name)));
    }
    let routed: BTreeSet<&str> = places.iter().map(|(_, name)| *name).collect();
    let mut shown = BTreeSet::new();
    for name in certificates.iter().flat_map(|certificate| &certificate.snis).filter(|name| ***name != *"*") {
        if routed.contains(&**name) || !shown.insert(&**name) {
            continue;
        }
        // All routes of the name that says most: one for TLS, one for what is none, or one for both.
        let wide = wider(name).find(|wide| routed.contains(wide.as_str()));
        let of_it = places.iter().filter(|(at, other)| Some(*other) == wide.as_deref() && listener.tcp[*at].terminate);
        let more: Vec<(usize, &str)> = of_it.map(|(at, _)| (*at, &**name)).collect();
        places.extend(more);
    }
    places
}

/// The patterns that a name falls under, closest first, `""` last.
fn wider(name: &str) -> impl Iterator<Item = String> + use<> {
    let inner = name.strip_prefix("*.").unwrap_or(name).to_owned();
    let starts: Vec<usize> = inner.match_indices('.').map(|(at, _)| at + 1).collect();
    // `*.a.org` falls under `*.org`, `b.a.org` under `*.a.org` first.
    starts.into_iter().map(move |at| format!("*.{}", &inner[at..])).chain([String::new()])
}

/// What becomes of clients that ask for this name of a route.
fn served(route: &TcpRoute, name: &str, certificates: &[&Certificate]) -> Served {
    if !route.upstreams.iter().any(|share| share.weight > 0) {
        return Served::Closed;
    }
    if !route.terminate {
        return Served::Passed;
    }
    let of = |wanted: &str| certificates.iter().position(|certificate| certificate.snis.iter().any(|sni| **sni == *wanted));
    // The wildcard of a certificate covers one label.
    let wildcard = || name.split_once('.').filter(|(first, _)| *first != "*").and_then(|(_, rest)| of(&format!("*.{rest}")));
    let found = (!name.is_empty()).then(|| of(name).or_else(wildcard)).flatten().or_else(|| of("*"));
    // Who may ask for any name must not get around a certificate that another name demands.
    let chosen = route.server_names.is_empty() || route.server_names.iter().any(|name| name.starts_with('*'));
    let guarded = chosen && certificates.iter().any(|certificate| certificate.client.is_some());
    match found {
        Some(at) if !guarded || certificates[at].client.is_some() => Served::Shown(at),
        _ => Served::Closed,
    }
}

fn chain(
    listener: &Listener,
    (group, route): (&Group, &TcpRoute),
    names: &[&str],
    certificates: &[&Certificate],
    find: Find<'_, '_>,
) -> Result<wire::FilterChain, String> {
    let shown_here = match group.served {
        Served::Shown(at) => Some(certificates[at]),
        _ => None,
    };
    let transport_protocol = match route.for_tls {
        Some(true) => "tls",
        Some(false) => "raw_buffer",
        None => "",
    };
    let matched = wire::FilterChainMatch {
        server_names: names.iter().map(|name| (*name).to_owned()).collect(),
        transport_protocol: transport_protocol.to_owned(),
        ..Default::default()
    };
    let matches_all = names.is_empty() && transport_protocol.is_empty();
    let shows = shown_here.map(|certificate| format!("/{}", certificate.id)).unwrap_or_default();
    Ok(wire::FilterChain {
        name: format!("{}{shows}{}", group.route, if names.is_empty() { "/*" } else { "" }),
        filter_chain_match: (!matches_all).then_some(matched),
        // Envoy closes what no filter takes.
        filters: match group.served {
            Served::Closed => Vec::new(),
            _ => vec![wire::Filter {
                name: PROXY.to_owned(),
                config_type: any(&proxied(listener, route, find)?).map(wire::filter::ConfigType::TypedConfig),
            }],
        },
        transport_socket: shown_here.map(|certificate| shown(certificate, &[])),
        transport_socket_connect_timeout: shown_here.and_then(|_| span(listener.limits.handshake_timeout)),
        ..Default::default()
    })
}

/// Where the bytes of a route go.
fn proxied(listener: &Listener, route: &TcpRoute, find: Find<'_, '_>) -> Result<TcpProxy, String> {
    let shares: Vec<&TcpShare> = route.upstreams.iter().filter(|share| share.weight > 0).collect();
    let (mut most, mut hashed, mut tunnels) = (1, false, BTreeSet::new());
    for share in &shares {
        let upstream = find(&share.upstream).map_err(|reason| format!("upstream {}: {reason}", share.upstream))?;
        // One that comes later: until then connections are closed.
        let Some(upstream) = upstream else { continue };
        hashed |= takes_bytes(upstream).map_err(|reason| format!("upstream {}: {reason}", upstream.label))?;
        most = most.max(tries(upstream));
        tunnels.insert(upstream.mesh.as_ref().map(service_of));
    }
    if tunnels.len() > 1 {
        return Err("upstreams: where one leads into the mesh, Envoy takes no others beside it".to_owned());
    }
    let age = listener.limits.max_connection_duration;
    let weighed =
        |share: &&TcpShare| ClusterWeight { name: share.upstream.to_string(), weight: share.weight, metadata_match: None };
    Ok(TcpProxy {
        stat_prefix: listener.name.to_string(),
        cluster_specifier: Some(match shares[..] {
            [share] => ClusterSpecifier::Cluster(share.upstream.to_string()),
            _ => {
                let mut clusters: Vec<ClusterWeight> = shares.iter().map(weighed).collect();
                weights::fit(&mut clusters.iter_mut().map(|cluster| &mut cluster.weight).collect::<Vec<_>>());
                ClusterSpecifier::WeightedClusters(WeightedCluster { clusters })
            }
        }),
        idle_timeout: span(route.idle_timeout),
        max_connect_attempts: Some(route.connect_attempts.unwrap_or(most).max(1)),
        tunneling_config: tunnels.into_iter().flatten().next().map(|hostname| TunnelingConfig { hostname }),
        hash_policy: hash_policy_if(hashed),
        max_downstream_connection_duration: (!age.is_zero()).then(|| age.max(YOUNGEST)).and_then(span),
        ..Default::default()
    })
}

/// What a sidecar is told that bytes are for: the service that it has proven to be, and the port that it has by itself.
fn service_of(peer: &MeshPeer) -> String {
    let id = peer.identities.first().map(|id| &**id).unwrap_or_default();
    let (namespace, service) = id.split_once("/ns/").and_then(|(_, path)| path.split_once("/svc/")).unwrap_or_default();
    format!("{service}.{namespace}:{}", peer.port.unwrap_or(0))
}

/// By what connections without requests are picked, where they are: the address of the client.
pub(in super::super) fn hash_policy_if(hashed: bool) -> Vec<HashPolicy> {
    let by_address = HashPolicy { policy_specifier: Some(hash_policy::PolicySpecifier::SourceIp(hash_policy::SourceIp {})) };
    if hashed { vec![by_address] } else { Vec::new() }
}

/// Whether connections without requests can be sent there, and are picked by the address of the client.
pub(in super::super) fn takes_bytes(upstream: &Upstream) -> Result<bool, String> {
    let within = upstream.mesh.is_some();
    if !within && upstream.scheme.is_tls() && (upstream.tls.sni.is_none() || upstream.scheme.is_h2()) {
        return Err("expected scheme: https with tls.sni: Envoy takes the name of a server from requests otherwise".to_owned());
    }
    let breakers = &upstream.breakers;
    // Tunnels are requests. A service that is called in clear is not shut for what its owner wrote for them: there connections alone are limited.
    if !upstream.is_in_mesh() && (breakers.max_requests.is_some() || breakers.max_pending.is_some()) {
        return Err("circuit_breaker: of bytes Envoy counts connections (max_connections) only".to_owned());
    }
    match &upstream.balancer {
        // What is missing in a connection is replaced by the address.
        Balancer::ConsistentHash(HashOn::Header(_) | HashOn::Cookie(_) | HashOn::Consumer, _) => Ok(true),
        Balancer::ConsistentHash(HashOn::Var(name), _) if **name == *"remote_addr" => Ok(true),
        Balancer::ConsistentHash(..) => Err("balancer: of bytes Envoy hashes the address of the client only".to_owned()),
        _ => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use prost::Message;

    use super::*;
    use crate::model::{ClientValidation, HashTable, ListenerProtocol, Scheme, TlsVersion};

    fn route(names: &[&str], terminate: bool, upstreams: &[&str]) -> Arc<TcpRoute> {
        let share = |name: &&str| TcpShare { upstream: (*name).into(), weight: 1 };
        Arc::new(TcpRoute {
            server_names: names.iter().map(|name| Arc::from(*name)).collect(),
            for_tls: None,
            terminate,
            upstreams: upstreams.iter().map(share).collect(),
            idle_timeout: Duration::ZERO,
            connect_attempts: None,
        })
    }

    fn listener(routes: Vec<Arc<TcpRoute>>) -> Listener {
        Listener { protocol: ListenerProtocol::Tcp, tcp: routes, ..Listener::new("bytes", "0.0.0.0:1".parse().unwrap()) }
    }

    fn certificate(id: &str, names: &[&str], demands: bool) -> Certificate {
        let client = ClientValidation { ca: "ca".into(), depth: 1, skip_uri_regex: Vec::new() };
        Certificate {
            id: id.into(),
            snis: names.iter().map(|name| Arc::from(*name)).collect(),
            secrets: vec![id.into()],
            client: demands.then_some(client),
            min_version: TlsVersion::V1_2,
            max_version: TlsVersion::V1_3,
            listeners: Vec::new(),
        }
    }

    /// The names of each chain, and what stands behind them.
    fn told(listener: &Listener, certificates: &[Certificate]) -> Result<Vec<(String, String)>, String> {
        let upstream = Upstream::new("u");
        let certificates: Vec<&Certificate> = certificates.iter().collect();
        let chains = chains(listener, &certificates, &|_| Ok(Some(&upstream)))?;
        let one = |chain: wire::FilterChain| {
            let names = chain.filter_chain_match.map(|matched| matched.server_names.join(" ")).unwrap_or_default();
            (names, if chain.filters.is_empty() { "closed".to_owned() } else { chain.name })
        };
        Ok(chains.into_iter().map(one).collect())
    }

    fn expected(all: &[(&str, &str)]) -> Vec<(String, String)> {
        all.iter().map(|(names, what)| ((*names).to_owned(), (*what).to_owned())).collect()
    }

    #[test]
    fn what_is_terminated_shows_the_certificates_of_its_names_and_nobody_elses() {
        let routes =
            vec![route(&["db.a.org"], false, &["u"]), route(&["*.a.org", "b.org"], true, &["u"]), route(&[], false, &["u"])];
        let certificates =
            [certificate("one", &["db.a.org", "x.a.org", "c.org"], false), certificate("wide", &["*.a.org", "*.c.a.org"], false)];
        let chains = told(&listener(routes.clone()), &certificates).unwrap();
        let whole = [("db.a.org", "0"), ("x.a.org", "1/one"), ("*.a.org *.c.a.org", "1/wide"), ("b.org", "closed"), ("", "2/*")];
        assert_eq!(chains, expected(&whole), "a name without a certificate does not fall to a wider route");
        assert!(told(&listener(vec![routes[1].clone()]), &[]).is_err(), "nothing could be reached");
        let rest = listener(vec![route(&[], true, &["u"])]);
        let chains = told(&rest, &[certificate("all", &["*", "x.org"], false)]).unwrap();
        assert_eq!(chains, expected(&[("x.org", "0/all"), ("", "0/all/*")]));
    }

    #[test]
    fn who_may_ask_for_any_name_does_not_get_around_a_certificate_that_another_one_demands() {
        let certificates = [certificate("open", &["open.a.org"], false), certificate("demanding", &["*.a.org"], true)];
        let any = told(&listener(vec![route(&["*.a.org"], true, &["u"])]), &certificates).unwrap();
        assert_eq!(any, expected(&[("*.a.org", "0/demanding"), ("open.a.org", "closed")]));
        let named = told(&listener(vec![route(&["open.a.org"], true, &["u"])]), &certificates).unwrap();
        assert_eq!(named, expected(&[("open.a.org", "0/open")]));
    }

    #[test]
    fn a_listener_with_certificates_of_its_own_shows_no_others() {
        let shared = certificate("shared", &["a.org"], false);
        let own = Certificate { listeners: vec!["bytes".into()], ..certificate("own", &["a.org"], true) };
        let of = |name: &str| {
            let listener = Listener { name: name.into(), ..listener(Vec::new()) };
            let shown = super::super::shown_by(&listener, &[&shared, &own]);
            shown.iter().map(|certificate| certificate.id.to_string()).collect::<Vec<_>>()
        };
        assert_eq!((of("bytes"), of("other")), (vec!["own".to_owned()], vec!["shared".to_owned()]));
    }

    /// What passes bytes on to this upstream by the first chain; other names of upstreams come later.
    fn proxy_of(listener: &Listener, upstream: &Upstream) -> Result<TcpProxy, String> {
        let find = |name: &str| Ok((name == "u").then_some(upstream));
        let chain = chains(listener, &[], &find)?.remove(0);
        let Some(wire::filter::ConfigType::TypedConfig(config)) = chain.filters[0].config_type.clone() else {
            return Err("no configuration".to_owned());
        };
        Ok(TcpProxy::decode(&config.value[..]).unwrap())
    }

    #[test]
    fn connections_end_at_the_age_that_the_listener_says_if_it_says_one() {
        let told = |age| {
            let mut listener = listener(vec![route(&[], false, &["u"])]);
            listener.limits.max_connection_duration = age;
            proxy_of(&listener, &Upstream::new("u")).unwrap().max_downstream_connection_duration
        };
        assert_eq!(told(Duration::ZERO), None);
        assert_eq!(told(Duration::from_secs(90)), span(Duration::from_secs(90)));
        assert_eq!(told(Duration::from_nanos(1)), span(YOUNGEST), "Envoy refuses less");
    }

    #[test]
    fn shares_tries_and_keys_follow_the_upstreams_and_what_has_no_counterpart_is_named() {
        let of = |upstream: &Upstream| proxy_of(&listener(vec![route(&[], false, &["u", "later"])]), upstream);
        let plain = Upstream { retries: None, ..Upstream::new("u") };
        let proxy = of(&plain).unwrap();
        assert_eq!((proxy.max_connect_attempts, proxy.hash_policy.len()), (Some(5), 0));
        assert!(matches!(proxy.cluster_specifier, Some(ClusterSpecifier::WeightedClusters(all)) if all.clusters.len() == 2));
        let hashed = |on: HashOn| Upstream { balancer: Balancer::ConsistentHash(on, HashTable::RING), ..plain.clone() };
        let proxy = of(&Upstream { retries: Some(0), ..hashed(HashOn::Header("x".into())) }).unwrap();
        assert_eq!((proxy.max_connect_attempts, proxy.hash_policy.len()), (Some(1), 1));
        let mut broken = plain.clone();
        broken.breakers.max_requests = Some(1);
        for upstream in [hashed(HashOn::Var("server_port".into())), Upstream { scheme: Scheme::Https, ..plain.clone() }, broken] {
            assert!(of(&upstream).unwrap_err().starts_with("upstream u: "));
        }
    }
}
