//! The load reporting service: nodes of others say how many requests they have sent where. It decides nothing about them.

use std::collections::{HashMap, HashSet};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use heddle_node::clock;
use heddle_proto::envoy::config::core::v3::address::Address as AddressKind;
use heddle_proto::envoy::config::core::v3::socket_address::PortSpecifier;
use heddle_proto::envoy::config::core::v3::{Address, Node};
use heddle_proto::envoy::config::endpoint::v3::{ClusterStats, UpstreamLocalityStats};
use heddle_proto::envoy::service::load_stats::v3::load_reporting_service_server::{
    LoadReportingService, LoadReportingServiceServer,
};
use heddle_proto::envoy::service::load_stats::v3::{LoadStatsRequest, LoadStatsResponse};
use prost_types::Duration as WireDuration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{AdsService, MAX_STREAMS};
use crate::link::Peer;
use crate::model::{Kind, MESH_PREFIX, Resource};
use crate::protocol::wire::node_from_wire;
use crate::server::registry::{Dropped, Report, Reporter, Sums, Who};
use crate::server::stream::{FIRST_REQUEST, life, over};
use crate::snapshot::{NodeScope, SnapshotSource, View};

/// How often nodes are to report: as often as what the fleet says of load is believed.
const INTERVAL: Duration = Duration::from_secs(5);
/// Reports are read no faster than this.
const LEAST: Duration = Duration::from_secs(2);
/// Bytes of one report.
const MAX_REPORT: usize = 4 << 20;
/// Localities of one report that are read; what is behind them is left out.
const MAX_LOCALITIES: usize = 10_000;
/// Bytes of a name in a report.
const MAX_NAME: usize = 256;
/// What a node says that can report of all clusters without being told their names.
const ALL_CLUSTERS: &str = "envoy.lrs.supports_send_all_clusters";

/// The service.
#[derive(Clone)]
pub struct LoadServer {
    service: Arc<AdsService>,
}

impl LoadServer {
    pub(super) fn serve(service: Arc<AdsService>) -> LoadReportingServiceServer<LoadServer> {
        LoadReportingServiceServer::new(LoadServer { service }).max_decoding_message_size(MAX_REPORT)
    }

    /// Lets a node in by its connection and what it says of itself: as whom.
    fn admit(&self, peer: Option<&Peer>, node: Option<Node>) -> Result<NodeScope, Status> {
        let node = node.ok_or_else(|| Status::invalid_argument("the first request must say the node"))?;
        let mut node = node_from_wire(node).map_err(|error| Status::invalid_argument(error.to_string()))?;
        if node.scope.id.is_empty() {
            return Err(Status::invalid_argument("node.id must not be empty"));
        }
        match (&self.service.gate, peer) {
            (None, _) => {}
            (Some(gate), Some(peer)) => gate(peer, &mut node)?,
            (Some(_), None) => return Err(Status::permission_denied("nothing is known of this connection")),
        }
        Ok(node.scope)
    }

    /// Takes what a node says of clusters that nodes like it are told of, in zones that these have endpoints in. The rest is of clusters of its own.
    fn take(&self, reporter: &Reporter, scope: &NodeScope, stats: Vec<ClusterStats>) {
        let views: Vec<Arc<View>> = self.service.shared.feeds().iter().map(|feed| feed.view()).collect();
        let known = |cluster: &str| views.iter().any(|view| is_told(view, cluster, scope));
        let (mut reports, dropped) = read(stats.into_iter().filter(|stats| known(&stats.cluster_name)));
        reporter.shorten(&mut reports);
        let mut zones: HashMap<Arc<str>, HashSet<&str>> = HashMap::new();
        for report in reports.iter_mut().filter(|report| !report.zone.is_empty()) {
            let of_cluster = zones.entry(report.cluster.clone()).or_insert_with_key(|cluster| zones_of(&views, cluster));
            if !of_cluster.contains(&*report.zone) {
                // Of an endpoint that has gone since, or of one that says another zone than it was told.
                report.zone = "".into();
            }
        }
        reporter.report(&reports, &dropped);
    }

    async fn converse(
        &self,
        peer: Option<Peer>,
        mut requests: Streaming<LoadStatsRequest>,
        out: &mpsc::Sender<Result<LoadStatsResponse, Status>>,
    ) -> Result<(), Status> {
        let shared = &self.service.shared;
        let good_until = self.service.gate.as_ref().and(peer.as_ref()).and_then(Peer::good_until);
        let mut over = pin!(over(life(good_until, clock::wall(), fastrand::f64())?, shared));
        let first = timeout(FIRST_REQUEST, requests.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no request came in time"))??;
        let Some(first) = first else { return Ok(()) };
        let features = first.node.as_ref().map(|node| node.client_features.clone()).unwrap_or_default();
        let scope = self.admit(peer.as_ref(), first.node)?;
        let identity = peer.as_ref().and_then(Peer::id).map(|id| id.to_string().into()).unwrap_or_default();
        let reporter = shared.registry.loads().enter(Who { identity, node: scope.id.clone() }, MAX_STREAMS);
        let reporter = reporter.ok_or_else(|| {
            Status::unavailable(format!(
                "{MAX_STREAMS} nodes report already, or this one does; try again, or another control plane"
            ))
        })?;
        let mut told = asked_for(&first.cluster_stats, features.iter().any(|feature| feature == ALL_CLUSTERS));
        self.take(&reporter, &scope, first.cluster_stats);
        let mut next = clock::now() + LEAST;
        if out.send(Ok(told.clone())).await.is_err() {
            return Ok(());
        }
        loop {
            tokio::select! {
                message = next_of(&mut requests, next) => {
                    next = clock::now() + LEAST;
                    let Some(request) = message? else { return Ok(()) };
                    let now = asked_for(&request.cluster_stats, told.send_all_clusters);
                    if !told.send_all_clusters && now.clusters.iter().any(|name| !told.clusters.contains(name)) {
                        told = now;
                        let _ = out.send(Ok(told.clone())).await;
                    }
                    self.take(&reporter, &scope, request.cluster_stats);
                }
                (_, why) = over.as_mut() => return Err(why),
                () = out.closed() => return Ok(()),
            }
        }
    }
}

/// What a node is to report: of all clusters, or of those that it named.
fn asked_for(named: &[ClusterStats], all: bool) -> LoadStatsResponse {
    let names = named.iter().map(|stats| stats.cluster_name.clone()).take(MAX_LOCALITIES);
    let seconds = i64::try_from(INTERVAL.as_secs()).unwrap_or_default();
    LoadStatsResponse {
        clusters: if all { Vec::new() } else { names.collect() },
        load_reporting_interval: Some(WireDuration { seconds, nanos: 0 }),
        report_endpoint_granularity: true,
        send_all_clusters: all,
    }
}

/// What a node says next, once it is time: what comes faster waits in its connection.
async fn next_of(requests: &mut Streaming<LoadStatsRequest>, due: Instant) -> Result<Option<LoadStatsRequest>, Status> {
    sleep_until(due).await;
    requests.message().await
}

/// Whether a node may be told of a cluster. Services of the mesh are clusters beside applications.
fn is_told(view: &View, cluster: &str, scope: &NodeScope) -> bool {
    let service = || cluster.strip_prefix(MESH_PREFIX).and_then(|service| view.get(Kind::MeshService, service, scope));
    view.get(Kind::Upstream, cluster, scope).is_some() || service().is_some()
}

/// The zones that the endpoints of a cluster have.
fn zones_of<'a>(views: &'a [Arc<View>], cluster: &str) -> HashSet<&'a str> {
    let found = views.iter().filter_map(|view| view.find(Kind::Endpoints, cluster));
    let endpoints = found.filter_map(|found| match &found.resource {
        Resource::Endpoints(all) => Some(&*all.endpoints),
        _ => None,
    });
    endpoints.flatten().map(|endpoint| &*endpoint.zone).collect()
}

/// Reads a report.
fn read(stats: impl Iterator<Item = ClusterStats>) -> (Vec<Report>, Vec<Dropped>) {
    let (mut reports, mut dropped) = (Vec::new(), Vec::new());
    for cluster in stats {
        let name: Arc<str> = short(&cluster.cluster_name).into();
        let mut rest = cluster.total_dropped_requests;
        for reason in cluster.dropped_requests.iter().take(MAX_LOCALITIES) {
            rest = rest.saturating_sub(reason.dropped_count);
            dropped.push(Dropped {
                cluster: name.clone(),
                category: short(&reason.category).into(),
                count: reason.dropped_count,
            });
        }
        if rest > 0 {
            dropped.push(Dropped { cluster: name.clone(), category: "".into(), count: rest });
        }
        let room = MAX_LOCALITIES.saturating_sub(reports.len());
        reports.extend(cluster.upstream_locality_stats.into_iter().take(room).map(|stats| report(&name, stats)));
    }
    (reports, dropped)
}

fn report(cluster: &Arc<str>, stats: UpstreamLocalityStats) -> Report {
    let endpoints = stats.upstream_endpoint_stats.iter();
    let endpoints = endpoints.filter_map(|one| Some((socket(one.address.as_ref()?)?, one.total_requests_in_progress)));
    Report {
        cluster: cluster.clone(),
        zone: short(&stats.locality.map(|locality| locality.zone).unwrap_or_default()).into(),
        sums: Sums {
            issued: stats.total_issued_requests,
            succeeded: stats.total_successful_requests,
            failed: stats.total_error_requests,
        },
        in_progress: stats.total_requests_in_progress,
        endpoints: endpoints.collect(),
    }
}

fn socket(address: &Address) -> Option<std::net::SocketAddr> {
    let Some(AddressKind::SocketAddress(socket)) = &address.address else { return None };
    let Some(PortSpecifier::PortValue(port)) = socket.port_specifier else { return None };
    Some((socket.address.parse::<std::net::IpAddr>().ok()?, u16::try_from(port).ok()?).into())
}

fn short(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_NAME)]
}

#[tonic::async_trait]
impl LoadReportingService for LoadServer {
    type StreamLoadStatsStream = Pin<Box<dyn Stream<Item = Result<LoadStatsResponse, Status>> + Send>>;

    async fn stream_load_stats(
        &self,
        request: Request<Streaming<LoadStatsRequest>>,
    ) -> Result<Response<Self::StreamLoadStatsStream>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let requests = request.into_inner();
        let (out, answers) = mpsc::channel(1);
        let server = self.clone();
        tokio::spawn(async move {
            if let Err(status) = server.converse(peer, requests, &out).await {
                tracing::debug!(%status, "load reporting stream ended");
                // The node may be gone; then nobody gets to know.
                let _ = out.try_send(Err(status));
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::model::{Endpoint, Endpoints, Upstream};
    use crate::snapshot::{Change, SIDECAR, SnapshotFeed, SnapshotStore};

    #[test]
    fn only_clusters_and_zones_that_a_node_is_told_of_are_counted() {
        let store = SnapshotStore::new();
        let endpoint = Endpoint { host: "h".into(), port: 1, weight: 1, zone: "eu-1".into(), ..Endpoint::default() };
        store.apply(vec![
            Change::Set(Resource::Upstream(Arc::new(Upstream::new("upstreams/u")))),
            Change::Set(Resource::Endpoints(Endpoints { upstream: "upstreams/u".into(), endpoints: [endpoint].into() })),
        ]);
        let (view, gateway) = (store.view(), NodeScope { role: "gateway".into(), ..NodeScope::default() });
        assert!(is_told(&view, "upstreams/u", &gateway) && !is_told(&view, "made-up", &gateway));
        assert!(!is_told(&view, "mesh/shop/web", &gateway));
        let sidecar = NodeScope { role: SIDECAR.into(), ..NodeScope::default() };
        assert!(!is_told(&view, "upstreams/u", &sidecar), "those beside applications are told of services only");
        let views = [view];
        assert_eq!((zones_of(&views, "upstreams/u"), zones_of(&views, "made-up")), (HashSet::from(["eu-1"]), HashSet::new()));
    }
}
