//! Clusters: how the endpoints of an upstream are used, and which they are. It knows no route.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use heddle_proto::envoy::config::cluster::v3 as wire;
use heddle_proto::envoy::config::core::v3 as base;
use heddle_proto::envoy::config::endpoint::v3 as eds;
use heddle_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use heddle_proto::envoy::extensions::transport_sockets::tls::v3 as tls;
use heddle_proto::envoy::extensions::upstreams::http::v3 as http;
use heddle_proto::envoy::r#type::v3 as kinds;
use prost::Name;
use tls::common_tls_context::ValidationContextType;
use wire::cluster::{ClusterDiscoveryType, DiscoveryType, EdsClusterConfig, LbConfig, LbPolicy};

use super::plugins::{self, Extra};
use super::wire::{address, ads, any, exact, secret, span};
use super::zones::Ranked;
use super::{bytes, mesh, plain_assignment, weights};
use crate::model::{
    ActiveCheck, Balancer, CheckKind, CircuitBreakers, Discovery, HashTable, PassHost, RingSize, Thresholds, Upstream,
};

/// Why an upstream of the mesh is withheld.
pub(super) const MEMBERS: &str =
    "leads into the mesh, of which this node has no identity: serve it one by an agent, and say `identity: true` in its metadata";
/// Why one that means a port is withheld.
pub(super) const PORT: &str = "leads to a further port of an application, which agents of ours alone can ask for";
/// The roots of the system, where nobody named others.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Tries again that are under way at once where nobody said how many: Envoy counts those as well that no endpoint has seen, which our agents bound by nothing.
const RETRIES: u32 = 1_024;
/// How long changes of health may wait for others, so that endpoints which are out get no more requests.
const MERGED: Duration = Duration::from_millis(100);
/// The least that Envoy knows, where nobody said below which share health is ignored: of up to a hundred endpoints it means where none stands, as at our agents.
const PANIC_THRESHOLD: u8 = 1;
/// How long an endpoint that traffic condemned stays out at first.
const EJECTED: Duration = Duration::from_secs(10);

/// Whether endpoints stand in the cluster itself: EDS carries addresses only, so names do, and what DNS is asked.
pub(super) fn is_inline(upstream: Option<&Upstream>, ranked: Option<&Ranked>) -> bool {
    let is_name = |host: &str| host.parse::<IpAddr>().is_err();
    upstream.is_some_and(|upstream| upstream.discovery.is_some())
        || ranked.is_some_and(|ranked| ranked.endpoints.endpoints.iter().any(|endpoint| is_name(&endpoint.host)))
}

/// The endpoints, each with its name where requests are to carry that.
pub(super) fn assignment(ranked: &Ranked, upstream: Option<&Upstream>) -> Bytes {
    bytes(&assigned(ranked, upstream))
}

pub(super) fn assigned(ranked: &Ranked, upstream: Option<&Upstream>) -> eds::ClusterLoadAssignment {
    let mut assignment = plain_assignment(&ranked.endpoints);
    assignment.policy.clone_from(&ranked.policy);
    lighten(&mut assignment);
    let Some(upstream) = upstream else { return assignment };
    // Without a name Envoy would say that of the cluster, which is no host.
    let probed = upstream.checks.active.as_ref().is_some_and(|check| check.host.is_none());
    let named = upstream.pass_host == PassHost::Node;
    if !probed && !named {
        return assignment;
    }
    for endpoint in assignment.endpoints.iter_mut().flat_map(|group| &mut group.lb_endpoints) {
        let Some(eds::lb_endpoint::HostIdentifier::Endpoint(endpoint)) = &mut endpoint.host_identifier else { continue };
        let Some(base::address::Address::SocketAddress(socket)) = endpoint.address.as_ref().and_then(|all| all.address.as_ref())
        else {
            continue;
        };
        let name = authority(socket, upstream.scheme.default_port());
        if probed {
            let config = eds::endpoint::HealthCheckConfig { hostname: name.clone(), ..Default::default() };
            endpoint.health_check_config = Some(config);
        }
        if named {
            endpoint.hostname = name;
        }
    }
    assignment
}

/// All endpoints by one measure: Envoy shares out by their weights over all zones of a priority.
fn lighten(assignment: &mut eds::ClusterLoadAssignment) {
    let endpoints = assignment.endpoints.iter_mut().flat_map(|group| &mut group.lb_endpoints);
    if !weights::fit(&mut endpoints.filter_map(|endpoint| endpoint.load_balancing_weight.as_mut()).collect::<Vec<_>>()) {
        return;
    }
    for group in &mut assignment.endpoints {
        let sum = group.lb_endpoints.iter().filter_map(|endpoint| endpoint.load_balancing_weight).sum::<u32>();
        group.load_balancing_weight = Some(sum.max(1));
    }
}

/// An address as a request names it: with its port unless that is the usual one.
fn authority(socket: &base::SocketAddress, usual: u16) -> String {
    let host = match socket.address.parse() {
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        _ => socket.address.clone(),
    };
    match socket.port_specifier {
        Some(base::socket_address::PortSpecifier::PortValue(other)) if other != u32::from(usual) => format!("{host}:{other}"),
        _ => host,
    }
}

/// A cluster, or what of the upstream Envoy lacks.
/// Only nodes that have an identity of the mesh are `members`.
pub(super) fn encode(upstream: &Upstream, ranked: Option<&Ranked>, members: bool) -> Result<Bytes, String> {
    with((upstream, ranked), members, Vec::new())
}

/// One that stands beside those of upstreams.
pub(super) fn extra(extra: &Extra) -> Result<Bytes, String> {
    with((&extra.upstream, None), false, extra.script.iter().flat_map(|script| plugins::scripted(script)).collect())
}

/// The same with filters that stand before its endpoints.
fn with((upstream, ranked): (&Upstream, Option<&Ranked>), members: bool, http_filters: Vec<HttpFilter>) -> Result<Bytes, String> {
    if upstream.mesh.is_some() && !members {
        return Err(MEMBERS.to_owned());
    }
    if upstream.mesh.as_ref().is_some_and(|peer| peer.port.is_some()) {
        return Err(PORT.to_owned());
    }
    let kind = upstream.checks.active.as_ref().map(|check| check.kind);
    if matches!((kind, is_tls(upstream)), (Some(CheckKind::Http), true) | (Some(CheckKind::Https), false)) {
        return Err("checks.active.type: Envoy probes with TLS where requests go with TLS, and nowhere else".to_owned());
    }
    let inline = is_inline(Some(upstream), ranked);
    let load_assignment = inline.then(|| match (&upstream.discovery, ranked) {
        (Some(Discovery::Dns(name)), _) => dns(upstream, name),
        (None, Some(ranked)) => assigned(ranked, Some(upstream)),
        (None, None) => eds::ClusterLoadAssignment { cluster_name: upstream.name.to_string(), ..Default::default() },
    });
    let kind = if inline { DiscoveryType::StrictDns } else { DiscoveryType::Eds };
    let (policy, config) = balancer(upstream, ranked);
    let options = http::HttpProtocolOptions { http_filters, ..options(upstream) };
    let options = any(&options).map(|options| (http::HttpProtocolOptions::full_name(), options));
    Ok(bytes(&wire::Cluster {
        name: upstream.name.to_string(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(kind.into())),
        eds_cluster_config: (!inline).then(|| EdsClusterConfig { eds_config: ads(), ..Default::default() }),
        load_assignment,
        // Where a name has addresses of both families our agents use both; by itself Envoy would use those of IPv6 alone.
        dns_lookup_family: if inline { wire::cluster::DnsLookupFamily::All } else { wire::cluster::DnsLookupFamily::Auto }.into(),
        connect_timeout: span(upstream.timeouts.connect),
        lb_policy: policy.into(),
        lb_config: config,
        common_lb_config: Some(wire::cluster::CommonLbConfig {
            healthy_panic_threshold: Some(kinds::Percent { value: upstream.panic_threshold.unwrap_or(PANIC_THRESHOLD).into() }),
            update_merge_window: span(MERGED),
            ..Default::default()
        }),
        health_checks: upstream.checks.active.as_deref().map(check).transpose()?.into_iter().collect(),
        outlier_detection: upstream.checks.passive.as_ref().map(|passive| outliers(&passive.thresholds)),
        circuit_breakers: Some(breakers(&upstream.breakers)),
        typed_extension_protocol_options: options.into_iter().collect(),
        transport_socket: match &upstream.mesh {
            Some(peer) => mesh::outward(peer),
            None => is_tls(upstream).then(|| transport(upstream)),
        },
        ignore_health_on_host_removal: true,
        ..Default::default()
    }))
}

/// Whether TLS is spoken as the upstream says it; in the mesh it says nothing.
fn is_tls(upstream: &Upstream) -> bool {
    upstream.mesh.is_none() && upstream.scheme.is_tls()
}

/// The one name that DNS is asked.
pub(super) fn dns(upstream: &Upstream, name: &str) -> eds::ClusterLoadAssignment {
    let port = upstream.scheme.default_port();
    let (host, port) = match name.rsplit_once(':') {
        Some((host, written)) => (host, written.parse().unwrap_or(port)),
        None => (name, port),
    };
    let endpoint = eds::Endpoint { address: Some(address(host, port)), hostname: host.to_owned(), ..Default::default() };
    let endpoint =
        eds::LbEndpoint { host_identifier: Some(eds::lb_endpoint::HostIdentifier::Endpoint(endpoint)), ..Default::default() };
    eds::ClusterLoadAssignment {
        cluster_name: upstream.name.to_string(),
        endpoints: vec![eds::LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..Default::default() }],
        ..Default::default()
    }
}

/// Response times count in no balancer of Envoy; the fewest requests under way come closest.
fn balancer(upstream: &Upstream, ranked: Option<&Ranked>) -> (LbPolicy, Option<LbConfig>) {
    let ramp = (!upstream.slow_start.is_zero())
        .then(|| wire::cluster::SlowStartConfig { slow_start_window: span(upstream.slow_start), ..Default::default() });
    match &upstream.balancer {
        Balancer::RoundRobin => {
            let config = wire::cluster::RoundRobinLbConfig { slow_start_config: ramp };
            (LbPolicy::RoundRobin, Some(LbConfig::RoundRobinLbConfig(config)))
        }
        Balancer::LeastConn | Balancer::Ewma => {
            let config = wire::cluster::LeastRequestLbConfig { slow_start_config: ramp, ..Default::default() };
            (LbPolicy::LeastRequest, Some(LbConfig::LeastRequestLbConfig(config)))
        }
        Balancer::ConsistentHash(_, HashTable::Ring(size)) => {
            (LbPolicy::RingHash, Some(LbConfig::RingHashLbConfig(ring(*size, ranked))))
        }
        Balancer::ConsistentHash(_, HashTable::Maglev { places }) => {
            let config = wire::cluster::MaglevLbConfig { table_size: Some((*places).into()) };
            (LbPolicy::Maglev, Some(LbConfig::MaglevLbConfig(config)))
        }
    }
}

/// Whether what is said of the cluster follows from its endpoints: a ring has so many points for each of them, which Envoy is told in all.
pub(super) fn follows_endpoints(upstream: &Upstream) -> bool {
    matches!(upstream.balancer, Balancer::ConsistentHash(_, HashTable::Ring(RingSize::ByWeight)))
}

/// The ring that our agents build over the endpoints that are used first.
pub(super) fn ring(size: RingSize, ranked: Option<&Ranked>) -> wire::cluster::RingHashLbConfig {
    let all = || ranked.iter().flat_map(|ranked| ranked.endpoints.endpoints.iter()).filter(|endpoint| endpoint.weight > 0);
    let first = all().map(|endpoint| endpoint.priority).max();
    let (least, most) = size.bounds(all().filter(|endpoint| Some(endpoint.priority) == first).map(|endpoint| endpoint.weight));
    wire::cluster::RingHashLbConfig {
        minimum_ring_size: Some(least.into()),
        maximum_ring_size: Some(most.into()),
        ..Default::default()
    }
}

fn options(upstream: &Upstream) -> http::HttpProtocolOptions {
    use http::http_protocol_options::explicit_http_config::ProtocolConfig;
    use http::http_protocol_options::{ExplicitHttpConfig, UpstreamProtocolOptions};
    let protocol = if upstream.scheme.is_h2() || upstream.mesh.is_some() {
        ProtocolConfig::Http2ProtocolOptions(base::Http2ProtocolOptions::default())
    } else {
        ProtocolConfig::HttpProtocolOptions(base::Http1ProtocolOptions::default())
    };
    let requests = upstream.keepalive.requests;
    let verified = is_tls(upstream) && upstream.tls.sni.is_none();
    http::HttpProtocolOptions {
        common_http_protocol_options: Some(base::HttpProtocolOptions {
            idle_timeout: span(upstream.keepalive.idle_timeout),
            max_requests_per_connection: (requests > 0).then_some(requests),
            max_connection_duration: Some(upstream.keepalive.max_age).filter(|age| !age.is_zero()).and_then(span),
            ..Default::default()
        }),
        upstream_http_protocol_options: verified.then(|| base::UpstreamHttpProtocolOptions {
            auto_sni: true,
            auto_san_validation: upstream.tls.verify,
            ..Default::default()
        }),
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(protocol),
        })),
        ..Default::default()
    }
}

fn transport(upstream: &Upstream) -> base::TransportSocket {
    let written = &upstream.tls;
    let names = written.sni.iter().map(|sni| tls::SubjectAltNameMatcher {
        san_type: tls::subject_alt_name_matcher::SanType::Dns.into(),
        matcher: Some(exact(sni)),
        ..Default::default()
    });
    let checked = tls::CertificateValidationContext { match_typed_subject_alt_names: names.collect(), ..Default::default() };
    let validation = match (&written.ca, written.verify) {
        (_, false) => None,
        (Some(ca), true) => Some(ValidationContextType::CombinedValidationContext(
            tls::common_tls_context::CombinedCertificateValidationContext {
                default_validation_context: Some(checked),
                validation_context_sds_secret_config: Some(secret(ca)),
            },
        )),
        (None, true) => Some(ValidationContextType::ValidationContext(tls::CertificateValidationContext {
            trusted_ca: Some(base::DataSource {
                specifier: Some(base::data_source::Specifier::Filename(SYSTEM_ROOTS.to_owned())),
            }),
            ..checked
        })),
    };
    let context = tls::UpstreamTlsContext {
        sni: written.sni.as_deref().unwrap_or_default().to_owned(),
        common_tls_context: Some(tls::CommonTlsContext {
            tls_certificate_sds_secret_configs: written.client_cert.iter().map(|name| secret(name)).collect(),
            validation_context_type: validation,
            alpn_protocols: if upstream.scheme.is_h2() { vec!["h2".to_owned()] } else { Vec::new() },
            ..Default::default()
        }),
        ..Default::default()
    };
    base::TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: any(&context).map(base::transport_socket::ConfigType::TypedConfig),
    }
}

fn check(check: &ActiveCheck) -> Result<base::HealthCheck, String> {
    use base::health_check::{HealthChecker, HttpHealthCheck, TcpHealthCheck};
    // Our agents say these by themselves, whatever is written; Envoy refuses a cluster with the first of them.
    let own = ["host", "connection", "content-length", "transfer-encoding"];
    let is_sent = |(name, _): &&(Arc<str>, Arc<str>)| !own.iter().any(|own| name.eq_ignore_ascii_case(own));
    let added = |(name, value): &(Arc<str>, Arc<str>)| super::wire::header(name, value, true);
    let method = base::RequestMethod::from_str_name(&check.method).filter(|method| *method != base::RequestMethod::Connect);
    let method = method.ok_or_else(|| format!("checks.active.http_method: Envoy probes by no {}", check.method))?;
    // What says nothing is good there, since it is either that or bad; of what is bad Envoy counts only what it may try again.
    let counts = check.thresholds.http_failures > 0;
    let bad = |status: u16| counts && check.thresholds.unhealthy_statuses.contains(&status);
    let checker = match check.kind {
        CheckKind::Tcp => HealthChecker::TcpHealthCheck(TcpHealthCheck::default()),
        CheckKind::Http | CheckKind::Https => HealthChecker::HttpHealthCheck(HttpHealthCheck {
            host: check.host.as_deref().unwrap_or_default().to_owned(),
            path: check.path.to_string(),
            request_headers_to_add: check.headers.iter().filter(is_sent).map(added).collect(),
            expected_statuses: ranges(|status| !bad(status)),
            retriable_statuses: ranges(bad),
            method: method.into(),
            ..Default::default()
        }),
    };
    let failures = [check.thresholds.http_failures, check.thresholds.tcp_failures, check.thresholds.timeouts];
    Ok(base::HealthCheck {
        timeout: span(check.timeout),
        interval: span(check.healthy_interval.max(Duration::from_millis(1))),
        unhealthy_interval: span(check.unhealthy_interval.max(Duration::from_millis(1))),
        no_traffic_interval: span(check.healthy_interval.max(Duration::from_millis(1))),
        healthy_threshold: Some(check.thresholds.successes.max(1)),
        unhealthy_threshold: Some(failures.into_iter().filter(|count| *count > 0).min().unwrap_or(1)),
        alt_port: check.port.map(u32::from),
        health_checker: Some(checker),
        ..Default::default()
    })
}

/// The statuses of which something holds.
fn ranges(holds: impl Fn(u16) -> bool) -> Vec<kinds::Int64Range> {
    let mut ranges: Vec<kinds::Int64Range> = Vec::new();
    for status in (100..600).filter(|status| holds(*status)).map(i64::from) {
        match ranges.last_mut().filter(|last| last.end == status) {
            Some(last) => last.end += 1,
            None => ranges.push(kinds::Int64Range { start: status, end: status + 1 }),
        }
    }
    ranges
}

/// Envoy counts answers of 500 and more; which of them, it is not told. Connections that break and answers that do not come count with them: told apart, each
/// connection that is made would end the count, so that whoever accepts and resets is never out.
fn outliers(thresholds: &Thresholds) -> wire::OutlierDetection {
    let all = |count: u32| Some(if count > 0 { 100 } else { 0 });
    let failures = [thresholds.tcp_failures, thresholds.timeouts].into_iter().filter(|count| *count > 0).min().unwrap_or(0);
    // Of 502 to 504, and of what has no answer, where other answers do not count.
    let gateway = if thresholds.http_failures > 0 { 0 } else { failures };
    wire::OutlierDetection {
        consecutive_5xx: Some(thresholds.http_failures.max(1)),
        enforcing_consecutive_5xx: all(thresholds.http_failures),
        consecutive_gateway_failure: Some(gateway.max(1)),
        enforcing_consecutive_gateway_failure: all(gateway),
        enforcing_consecutive_local_origin_failure: Some(0),
        enforcing_success_rate: Some(0),
        enforcing_local_origin_success_rate: Some(0),
        base_ejection_time: span(EJECTED),
        max_ejection_percent: Some(100),
        ..Default::default()
    }
}

/// Envoy's own limits apply where none are given, which is not what "none" means here.
fn breakers(breakers: &CircuitBreakers) -> wire::CircuitBreakers {
    let limit = |limit: Option<u32>| Some(limit.unwrap_or(u32::MAX));
    let budget = |percent: u8| wire::circuit_breakers::thresholds::RetryBudget {
        budget_percent: Some(kinds::Percent { value: percent.into() }),
        min_retry_concurrency: Some(3),
    };
    wire::CircuitBreakers {
        thresholds: vec![wire::circuit_breakers::Thresholds {
            max_connections: Some(u32::MAX),
            // Whoever opens a connection waits for it there.
            max_pending_requests: limit(breakers.max_pending.map(|most| most.max(1))),
            max_requests: limit(breakers.max_requests),
            max_retries: Some(RETRIES),
            retry_budget: breakers.retry_budget_percent.map(budget),
            ..Default::default()
        }],
        per_host_thresholds: breakers
            .max_connections
            .map(|most| wire::circuit_breakers::Thresholds { max_connections: Some(most), ..Default::default() })
            .into_iter()
            .collect(),
    }
}
