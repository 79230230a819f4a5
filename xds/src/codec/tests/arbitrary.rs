//! Any resource that a control plane may make, for property tests.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;
use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::model::*;
use std::sync::Arc;

fn text() -> impl Strategy<Value = Arc<str>> {
    ".{0,12}".prop_map(Arc::from)
}

fn name() -> impl Strategy<Value = Arc<str>> {
    "[a-z0-9/@._-]{1,12}".prop_map(Arc::from)
}

fn duration() -> impl Strategy<Value = Duration> {
    (0u64..100_000_000, 0u32..1_000_000_000).prop_map(|(secs, nanos)| Duration::new(secs, nanos))
}

fn value() -> impl Strategy<Value = Arc<Value>> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    let tree = leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map("[a-z_]{1,6}", inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    tree.prop_map(Arc::new)
}

fn network() -> impl Strategy<Value = IpNet> {
    prop_oneof![
        (any::<[u8; 4]>(), 0u8..=32).prop_map(|(ip, len)| IpNet::new(ip.into(), len).unwrap()),
        (any::<[u8; 16]>(), 0u8..=128).prop_map(|(ip, len)| IpNet::new(ip.into(), len).unwrap()),
    ]
}

fn plugin() -> impl Strategy<Value = PluginConf> {
    (name(), value(), text()).prop_map(|(name, config, origin)| PluginConf { name, config, origin: PluginOrigin(origin) })
}

fn timeouts() -> impl Strategy<Value = Timeouts> {
    (duration(), duration(), duration()).prop_map(|(connect, send, read)| Timeouts { connect, send, read })
}

fn listener() -> impl Strategy<Value = Listener> {
    let head = (name(), any::<SocketAddr>(), any::<bool>(), of(vec(network(), 0..3)), vec(network(), 0..3));
    let tail = (any::<[u32; 6]>(), [duration(), duration()], any::<[bool; 5]>(), of(text()), of(text()), vec(name(), 0..3));
    (head, tail, vec(tcp_route(), 0..3)).prop_map(
        |((name, address, tls, proxy, trusted), (numbers, times, flags, server, via, nodes), tcp)| Listener {
            name,
            // Flow label and scope id of IPv6 have no place in a listener's text form.
            address: SocketAddr::new(address.ip(), address.port()),
            protocol: match (tls, tcp.is_empty()) {
                (_, false) => ListenerProtocol::Tcp,
                (true, true) => ListenerProtocol::Https,
                (false, true) => ListenerProtocol::Http,
            },
            proxy_protocol: proxy.map_or(ProxyProtocol::Off, ProxyProtocol::Required),
            forwarded: ForwardedTrust { trusted, sanitizes: flags[4] },
            limits: EdgeLimits {
                max_header_bytes: numbers[0],
                max_field_bytes: numbers[1],
                max_headers: numbers[2],
                max_body_bytes: u64::from(numbers[3]) << 20,
                max_streams: numbers[4],
                glitch_budget: numbers[5],
                header_timeout: times[0],
                handshake_timeout: times[1],
                ..EdgeLimits::default()
            },
            paths: PathPolicy { reject_encoded_slashes: flags[0], merge_slashes: flags[1], drop_underscore_headers: flags[2] },
            server_header: ServerHeader { server, via },
            expose_reason: flags[3],
            nodes,
            tcp,
        },
    )
}

fn tcp_route() -> impl Strategy<Value = Arc<TcpRoute>> {
    let share = (name(), 1..u32::MAX).prop_map(|(upstream, weight)| TcpShare { upstream, weight });
    (vec(text(), 0..3), of(any::<bool>()), any::<bool>(), vec(share, 1..3), duration(), of(any::<u32>())).prop_map(
        |(server_names, for_tls, terminate, upstreams, idle_timeout, connect_attempts)| {
            Arc::new(TcpRoute {
                server_names: server_names.into_iter().map(|name| name.chars().take(50).collect::<String>().into()).collect(),
                for_tls,
                terminate,
                upstreams,
                idle_timeout,
                connect_attempts,
            })
        },
    )
}

fn route() -> impl Strategy<Value = Route> {
    let matches = (vec(text(), 1..4), vec(text(), 0..3), vec(text(), 0..3), vec(network(), 0..3), of(value()))
        .prop_map(|(uris, hosts, methods, remote_addrs, vars)| RouteMatch { uris, hosts, methods, remote_addrs, vars });
    let head = (name(), text(), text(), text(), matches);
    let tail = (any::<i64>(), any::<u64>(), vec(plugin(), 0..3), of(name()), of(timeouts()), any::<bool>(), of(duration()));
    (head, tail).prop_map(|((id, name, service_id, service_name, matches), tail)| {
        let (priority, created, plugins, upstream, timeouts, enable_websocket, max_duration) = tail;
        let upstream = upstream.map(|name| UpstreamRef { name });
        Route {
            id,
            name,
            service_id,
            service_name,
            matches,
            priority,
            created,
            plugins,
            upstream,
            timeouts,
            enable_websocket,
            max_duration,
        }
    })
}

fn thresholds() -> impl Strategy<Value = Thresholds> {
    (vec(any::<u16>(), 0..4), vec(any::<u16>(), 0..4), any::<[u32; 4]>()).prop_map(|(healthy, unhealthy, n)| Thresholds {
        healthy_statuses: healthy,
        successes: n[0],
        unhealthy_statuses: unhealthy,
        http_failures: n[1],
        tcp_failures: n[2],
        timeouts: n[3],
    })
}

fn active_check() -> impl Strategy<Value = ActiveCheck> {
    let kind = prop_oneof![Just(CheckKind::Http), Just(CheckKind::Https), Just(CheckKind::Tcp)];
    let head = (kind, [any::<u32>(), any::<u32>()], of(text()), of(any::<u16>()), [text(), text(), text()], any::<bool>());
    (head, vec((text(), text()), 0..3), [duration(), duration(), duration()], thresholds()).prop_map(
        |((kind, [concurrency, checkers], host, port, texts, verify_certificate), headers, times, thresholds)| {
            let [method, path, body] = texts;
            let [timeout, healthy_interval, unhealthy_interval] = times;
            ActiveCheck {
                kind,
                timeout,
                concurrency,
                host,
                port,
                method,
                path,
                body,
                verify_certificate,
                headers,
                healthy_interval,
                unhealthy_interval,
                thresholds,
                checkers,
            }
        },
    )
}

fn hash_on() -> impl Strategy<Value = HashOn> {
    prop_oneof![
        Just(HashOn::Consumer),
        text().prop_map(HashOn::Var),
        text().prop_map(HashOn::Header),
        text().prop_map(HashOn::Cookie),
        text().prop_map(HashOn::VarsCombination),
    ]
}

fn hash_table() -> impl Strategy<Value = HashTable> {
    let ring = (1u32..5_000, 0u32..5_000).prop_filter_map("within bounds", |(least, more)| HashTable::ring(least, least + more));
    prop_oneof![Just(HashTable::RING), Just(HashTable::MAGLEV), Just(HashTable::Maglev { places: 1_021 }), ring]
}

fn balancer() -> impl Strategy<Value = Balancer> {
    prop_oneof![
        Just(Balancer::RoundRobin),
        Just(Balancer::LeastConn),
        Just(Balancer::Ewma),
        (hash_on(), hash_table()).prop_map(|(on, table)| Balancer::ConsistentHash(on, table)),
    ]
}

fn upstream() -> impl Strategy<Value = Upstream> {
    let scheme = prop_oneof![Just(Scheme::Http), Just(Scheme::Https), Just(Scheme::Grpc), Just(Scheme::Grpcs)];
    let pass_host = prop_oneof![Just(PassHost::Pass), Just(PassHost::Node), text().prop_map(PassHost::Rewrite)];
    let head = (name(), text(), balancer(), scheme, pass_host, of(any::<u32>()), timeouts());
    let tls = (any::<bool>(), of(text()), of(text()), of(text())).prop_map(|(verify, ca, client_cert, sni)| UpstreamTls {
        verify,
        ca,
        client_cert,
        sni,
    });
    let checks = (of(active_check()), of(thresholds())).prop_map(|(active, passive)| HealthChecks {
        active: active.map(Arc::new),
        passive: passive.map(|thresholds| Arc::new(PassiveCheck { thresholds })),
    });
    let breakers = (of(any::<u32>()), of(any::<u32>()), of(any::<u32>()), of(any::<u8>())).prop_map(|(a, b, c, d)| {
        CircuitBreakers { max_connections: a, max_pending: b, max_requests: c, retry_budget_percent: d }
    });
    let peer = (vec(text(), 1..3), of(1u16..)).prop_map(|(identities, port)| MeshPeer { identities, port });
    let tail = (
        tls,
        checks,
        breakers,
        of(name()),
        [duration(), duration(), duration(), duration()],
        any::<[u32; 2]>(),
        (of(any::<u8>()), of(peer), zones(), any::<[bool; 2]>(), vec(drop_overload(), 0..3)),
    );
    (head, tail).prop_map(|((name, label, balancer, scheme, pass_host, retries, timeouts), tail)| {
        let (
            tls,
            checks,
            breakers,
            dns,
            times,
            [size, requests],
            (panic_threshold, mesh, locality, [fleet_load, in_clear], drops),
        ) = tail;
        let [retry_timeout, idle_timeout, slow_start, max_age] = times;
        Upstream {
            name,
            label,
            balancer,
            scheme,
            pass_host,
            retries,
            retry_timeout,
            timeouts,
            keepalive: KeepalivePool { size, idle_timeout, requests, max_age },
            tls,
            checks,
            breakers,
            discovery: dns.map(Discovery::Dns),
            slow_start,
            panic_threshold,
            mesh,
            locality,
            fleet_load,
            in_clear,
            drops,
        }
    })
}

fn drop_overload() -> impl Strategy<Value = DropOverload> {
    (name(), 0..=DropOverload::ALL).prop_map(|(category, millionths)| DropOverload { category, millionths })
}

fn zones() -> impl Strategy<Value = ZonePolicy> {
    let mode = proptest::sample::select(vec![ZoneMode::Prefer, ZoneMode::Strict, ZoneMode::Off]);
    let weight =
        (any::<i32>(), text(), any::<u32>()).prop_map(|(priority, zone, weight)| LocalityWeight { priority, zone, weight });
    let spread = (vec(weight, 0..3), any::<bool>());
    let spread = spread.prop_map(|(weights, health_by_weight)| Spread { weights, health_by_weight });
    let spread = proptest::option::of(spread);
    let zones = (mode, vec(text(), 0..3), 100..u32::MAX, spread);
    zones.prop_map(|(mode, failover, overprovisioning, spread)| ZonePolicy { mode, failover, overprovisioning, spread })
}

fn endpoints() -> impl Strategy<Value = Endpoints> {
    let priority = prop_oneof![3 => -2i32..3, 1 => any::<i32>()];
    let weight = prop_oneof![3 => 0u32..3, 1 => any::<u32>()];
    let status = proptest::sample::select(vec![
        EndpointStatus::Unknown,
        EndpointStatus::Healthy,
        EndpointStatus::Unhealthy,
        EndpointStatus::Draining,
    ]);
    let labels = btree_map(text(), text(), 0..3).prop_map(|labels: BTreeMap<_, _>| labels.into_iter().collect());
    let place = ("[a-z0-9.:-]{1,12}", any::<u16>(), weight, priority, "[ab]?");
    let endpoint = (place, status, labels).prop_map(|((host, port, weight, priority, zone), status, labels)| Endpoint {
        host: host.into(),
        port,
        weight,
        priority,
        zone: zone.into(),
        status,
        labels,
    });
    (name(), vec(endpoint, 0..8)).prop_map(|(upstream, endpoints)| Endpoints { upstream, endpoints: endpoints.into() })
}

fn consumer() -> impl Strategy<Value = Consumer> {
    let credential = (text(), name(), value()).prop_map(|(id, plugin, config)| Credential { id, plugin, config });
    (name(), text(), vec(credential, 0..3), vec(plugin(), 0..3), btree_map(text(), text(), 0..3)).prop_map(
        |(username, group_id, credentials, plugins, labels): (_, _, _, _, BTreeMap<_, _>)| Consumer {
            username,
            group_id,
            credentials,
            plugins,
            labels,
        },
    )
}

fn certificate() -> impl Strategy<Value = Certificate> {
    let client = (name(), any::<u8>(), vec(text(), 0..3)).prop_map(|(ca, depth, skip_uri_regex)| ClientValidation {
        ca,
        depth,
        skip_uri_regex,
    });
    let version = || prop_oneof![Just(TlsVersion::V1_2), Just(TlsVersion::V1_3)];
    (name(), vec(text(), 0..4), vec(name(), 0..3), of(client), version(), version(), vec(name(), 0..3)).prop_map(
        |(id, snis, secrets, client, min_version, max_version, listeners)| Certificate {
            id,
            snis,
            secrets,
            client,
            min_version: min_version.min(max_version),
            max_version,
            listeners,
        },
    )
}

fn secret() -> impl Strategy<Value = Secret> {
    (name(), any::<bool>(), text(), text()).prop_map(|(name, roots, first, key_pem)| {
        let body = if roots { SecretBody::Roots(first) } else { SecretBody::KeyPair { chain_pem: first, key_pem } };
        Secret { name, body }
    })
}

fn mesh_service() -> impl Strategy<Value = MeshService> {
    let protocol = proptest::sample::select(MeshProtocol::ALL.map(|(_, protocol)| protocol).to_vec());
    let head = (name(), protocol, of(any::<std::net::IpAddr>()), vec(any::<u16>(), 0..3), vec(any::<u16>(), 0..3));
    (head, vec(plugin(), 0..3), of(timeouts()), upstream(), vec(name(), 0..3)).prop_map(
        |((name, protocol, vip, ports, own_ports), plugins, timeouts, upstream, depends)| MeshService {
            name,
            protocol,
            vip,
            ports,
            plugins,
            timeouts,
            upstream: Arc::new(upstream),
            depends,
            own_ports,
        },
    )
}

fn policy_rule() -> impl Strategy<Value = PolicyRule> {
    let texts = || vec(text(), 0..3);
    let nets = || vec(network(), 0..3);
    let source = (texts(), texts(), nets(), texts(), texts(), nets()).prop_map(
        |(identities, namespaces, cidrs, not_identities, not_namespaces, not_cidrs)| PolicySource {
            identities,
            namespaces,
            cidrs,
            not_identities,
            not_namespaces,
            not_cidrs,
        },
    );
    let header = (text(), texts()).prop_map(|(name, values)| PolicyHeader { name, values });
    let operation = (texts(), texts(), texts(), vec(any::<u16>(), 0..3), vec(header, 0..3), texts(), texts()).prop_map(
        |(methods, paths, hosts, ports, headers, not_methods, not_paths)| PolicyOperation {
            methods,
            paths,
            hosts,
            ports,
            headers,
            not_methods,
            not_paths,
        },
    );
    (vec(source, 0..3), vec(operation, 0..3)).prop_map(|(from, to)| PolicyRule { from, to })
}

fn policy() -> impl Strategy<Value = AuthorizationPolicy> {
    let action = prop_oneof![Just(PolicyAction::Allow), Just(PolicyAction::Deny)];
    (name(), name(), of(name()), action, any::<bool>(), vec(policy_rule(), 0..3)).prop_map(
        |(id, namespace, service, action, dry_run, rules)| AuthorizationPolicy { id, namespace, service, action, dry_run, rules },
    )
}

fn peers() -> impl Strategy<Value = PeerAuthentication> {
    let mode = || prop_oneof![Just(PeerMode::Strict), Just(PeerMode::Permissive), Just(PeerMode::Disable)];
    let ports = btree_map(any::<u16>(), mode(), 0..4);
    (name(), name(), of(name()), of(mode()), ports).prop_map(|(id, namespace, service, mode, ports)| PeerAuthentication {
        id,
        namespace,
        service,
        mode,
        ports,
    })
}

/// Any resource.
pub(crate) fn resource() -> impl Strategy<Value = Resource> {
    prop_oneof![
        listener().prop_map(Resource::Listener),
        route().prop_map(Resource::Route),
        upstream().prop_map(|upstream| Resource::Upstream(Arc::new(upstream))),
        endpoints().prop_map(Resource::Endpoints),
        consumer().prop_map(Resource::Consumer),
        (name(), vec(plugin(), 0..3)).prop_map(|(id, plugins)| Resource::GlobalRule(GlobalRule { id, plugins })),
        mesh_service().prop_map(Resource::MeshService),
        (name(), vec(plugin(), 0..3)).prop_map(|(service, plugins)| Resource::MeshInbound(MeshInbound { service, plugins })),
        policy().prop_map(Resource::AuthorizationPolicy),
        peers().prop_map(Resource::PeerAuthentication),
        certificate().prop_map(Resource::Certificate),
        (name(), value()).prop_map(|(plugin, config)| Resource::PluginMetadata(PluginMetadata { plugin, config })),
        secret().prop_map(Resource::Secret),
        Just(Resource::PluginMetadata(PluginMetadata { plugin: "empty".into(), config: Arc::new(json!({})) })),
    ]
}
