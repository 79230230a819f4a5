//! The metrics page of a node: everything that workers and the control side count, in Prometheus' names and with a bounded number of series.

use std::collections::BTreeMap;
use std::sync::Arc;

use heddle_node::clock;
use heddle_xds::client::ClientStatus;
use heddle_xds::model::Kind;

use super::endpoints;
use crate::filters::Chain;
use crate::observe::access_log::AccessLog;
use crate::observe::{Durations, MeshStats, RouteShard, RouteStats, TextWriter, detail, expose_tcp};
use crate::pipeline::Shared;
use crate::tables::Tables;
use crate::upstream::Context;

/// Routes and endpoints that get series of their own; the rest is added up under `other`.
const MAX_SERIES: usize = 1_000;

/// What the page is made of.
pub struct Sources<'a> {
    /// Tables of this moment.
    pub tables: &'a Tables,
    /// What clusters share.
    pub context: &'a Context,
    /// What workers count.
    pub shared: &'a Shared,
    /// How discovery stands.
    pub discovery: &'a ClientStatus,
    /// The access log, when there is one.
    pub access_log: Option<&'a AccessLog>,
    /// Counters of listeners by worker, names and sums.
    pub listeners: Vec<(&'static str, u64)>,
    /// Earliest end of a certificate by resource, Unix seconds.
    pub certificates: Vec<(Arc<str>, i64)>,
    /// When the process started, Unix milliseconds.
    pub started_ms: u64,
    /// What a sidecar counts where connections come in.
    pub mesh: Option<&'a MeshStats>,
}

/// The page.
pub fn page(sources: &Sources<'_>) -> String {
    let mut page = TextWriter::new();
    process(&mut page, sources);
    requests(&mut page, sources);
    let tcp: Vec<_> = sources.tables.tcp.iter().take(MAX_SERIES).map(|(listener, stats)| (listener, &**stats)).collect();
    expose_tcp(&mut page, &tcp);
    plugins(&mut page, sources.tables);
    upstreams(&mut page, sources.tables);
    dropped(&mut page, sources.context);
    called_in_clear(&mut page, sources.tables);
    endpoints::upstreams(&mut page, sources.tables, MAX_SERIES);
    endpoints::sharing(&mut page, sources.context);
    zones(&mut page, sources.tables);
    discovery(&mut page, sources);
    if let Some(mesh) = sources.mesh {
        mesh.expose(&mut page);
        policies(&mut page, sources.tables);
    }
    page.finish()
}

/// What authorization policies have refused, and would have.
fn policies(page: &mut TextWriter, tables: &Tables) {
    let reports = tables.authorization.report();
    let name = "heddle_mesh_policy_refused_total";
    page.family(name, "counter", "Calls that an authorization policy has refused.");
    for report in reports.iter().take(MAX_SERIES) {
        page.sample(name, &[("policy", &report.policy)], report.refused as f64);
    }
    let name = "heddle_mesh_policy_would_refuse_total";
    page.family(name, "counter", "Calls that an authorization policy in dry run would have refused.");
    for report in reports.iter().filter(|report| report.dry_run).take(MAX_SERIES) {
        page.sample(name, &[("policy", &report.policy)], report.would_refuse as f64);
    }
}

fn process(page: &mut TextWriter, sources: &Sources<'_>) {
    page.family("heddle_build_info", "gauge", "Version of this binary; always 1.");
    page.sample("heddle_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    page.family("process_start_time_seconds", "gauge", "When the process started, Unix seconds.");
    page.sample("process_start_time_seconds", &[], sources.started_ms as f64 / 1e3);
    page.family("heddle_connections_total", "counter", "What happened to client connections.");
    for (event, count) in &sources.listeners {
        page.sample("heddle_connections_total", &[("event", event)], *count as f64);
    }
    if let Some(log) = sources.access_log {
        page.family("heddle_access_log_dropped_total", "counter", "Access log lines dropped because the writer was behind.");
        page.sample("heddle_access_log_dropped_total", &[], log.dropped() as f64);
        page.family("heddle_access_log_failed_total", "counter", "Batches of access log lines that could not be written.");
        page.sample("heddle_access_log_failed_total", &[], log.failed() as f64);
    }
    page.family("heddle_certificate_expiry_timestamp_seconds", "gauge", "When a certificate ends, Unix seconds.");
    for (id, end) in sources.certificates.iter().take(MAX_SERIES) {
        page.sample("heddle_certificate_expiry_timestamp_seconds", &[("ssl", id)], *end as f64);
    }
}

/// What plugins count for themselves. A plugin of a service is there once, in however many routes it runs.
fn plugins(page: &mut TextWriter, tables: &Tables) {
    let routes = tables.routes.routes().iter().map(|route| &*route.target.chain);
    let services = tables.mesh.values().map(|service| &*service.route.target.chain);
    let inbound = tables.application.iter().map(|application| &*application.route.target.chain);
    let all = std::iter::once(&*tables.global).chain(routes).chain(services).chain(inbound);
    let counters = all.flat_map(Chain::counters);
    let lines: BTreeMap<_, u64> = counters.map(|(plugin, origin, event, sum)| ((plugin, origin, event), sum)).collect();
    page.family(
        "heddle_plugin_events_total",
        "counter",
        "What plugins count for themselves, by the place of their configuration.",
    );
    for ((plugin, origin, event), sum) in lines.into_iter().take(MAX_SERIES) {
        page.sample("heddle_plugin_events_total", &[("plugin", plugin), ("origin", origin), ("event", event)], sum as f64);
    }
}

/// One line of the request families: route id and service id with the counters behind them.
struct Line<'a> {
    route: &'a str,
    service: &'a str,
    stats: Vec<&'a RouteStats>,
}

impl Line<'_> {
    fn shards(&self) -> impl Iterator<Item = &RouteShard> {
        self.stats.iter().flat_map(|stats| stats.iter())
    }

    fn sum(&self, value: impl Fn(&RouteShard) -> u64) -> f64 {
        self.shards().map(value).sum::<u64>() as f64
    }

    fn durations(&self, add: fn(&RouteShard, &mut Durations)) -> Durations {
        let mut sum = Durations::default();
        self.shards().for_each(|shard| add(shard, &mut sum));
        sum
    }

    fn labels(&self) -> [(&'static str, &str); 2] {
        [("route", self.route), ("service", self.service)]
    }
}

/// Routes that have been used; beyond the bound they share the line `other`.
fn lines<'a>(sources: &'a Sources<'_>) -> Vec<Line<'a>> {
    let inbound = sources.tables.application.as_ref().map(|application| &application.route);
    let used = sources.tables.routes.routes().iter().chain(inbound).filter(|route| route.target.stats.iter().next().is_some());
    let mut lines = vec![Line { route: "", service: "", stats: vec![&sources.shared.unmatched] }];
    let mut other = Line { route: "other", service: "", stats: Vec::new() };
    for route in used {
        match lines.len() {
            0..MAX_SERIES => {
                lines.push(Line { route: &route.info.id, service: &route.info.service_id, stats: vec![&route.target.stats] })
            }
            _ => other.stats.push(&route.target.stats),
        }
    }
    if !other.stats.is_empty() {
        lines.push(other);
    }
    lines
}

fn requests(page: &mut TextWriter, sources: &Sources<'_>) {
    let lines = lines(sources);
    page.family("heddle_http_requests_total", "counter", "Requests by route and status; route is empty where none matched.");
    for line in &lines {
        let mut codes: Vec<(&'static str, u64)> = Vec::new();
        for shard in line.shards() {
            for (slot, (code, count)) in shard.codes().enumerate() {
                match codes.get_mut(slot) {
                    Some(sum) => sum.1 += count,
                    None => codes.push((code, count)),
                }
            }
        }
        let [route, service] = line.labels();
        for (code, count) in codes.into_iter().filter(|(_, count)| *count > 0) {
            page.sample("heddle_http_requests_total", &[route, service, ("code", code)], count as f64);
        }
    }
    page.family("heddle_http_request_duration_seconds", "histogram", "First byte in to last byte out.");
    for line in &lines {
        page.histogram("heddle_http_request_duration_seconds", &line.labels(), &line.durations(RouteShard::add_durations));
    }
    page.family("heddle_http_upstream_duration_seconds", "histogram", "Time until the upstream's response head, last try.");
    for line in &lines {
        page.histogram(
            "heddle_http_upstream_duration_seconds",
            &line.labels(),
            &line.durations(RouteShard::add_upstream_durations),
        );
    }
    page.family("heddle_http_body_bytes_total", "counter", "Body bytes by direction.");
    for line in &lines {
        let [route, service] = line.labels();
        page.sample("heddle_http_body_bytes_total", &[route, service, ("direction", "in")], line.sum(RouteShard::bytes_in));
        page.sample("heddle_http_body_bytes_total", &[route, service, ("direction", "out")], line.sum(RouteShard::bytes_out));
    }
    page.family("heddle_http_retries_total", "counter", "Tries after the first.");
    for line in &lines {
        page.sample("heddle_http_retries_total", &line.labels(), line.sum(RouteShard::retries));
    }
    page.family("heddle_http_requests_in_flight", "gauge", "Requests being served.");
    let active: u64 = sources.shared.counters.iter().map(|counters| counters.active.get()).fold(0, u64::wrapping_add);
    page.sample("heddle_http_requests_in_flight", &[], active as f64);
    reasons(page, sources.shared);
    detail::write(page, sources.shared.details.iter());
}

fn reasons(page: &mut TextWriter, shared: &Shared) {
    page.family(
        "heddle_http_reasons_total",
        "counter",
        "Requests that Heddle answered itself or that ended badly, by reason flag.",
    );
    let mut sums: Vec<(&'static str, u64)> = Vec::new();
    for counters in shared.counters.iter() {
        for (slot, (reason, count)) in counters.reasons.iter().enumerate() {
            match sums.get_mut(slot) {
                Some(sum) => sum.1 += count,
                None => sums.push((reason.flag(), count)),
            }
        }
    }
    for (flag, count) in sums.into_iter().filter(|(flag, count)| *flag != "-" && *count > 0) {
        page.sample("heddle_http_reasons_total", &[("reason", flag)], count as f64);
    }
}

fn upstreams(page: &mut TextWriter, tables: &Tables) {
    let reports: Vec<(Arc<str>, crate::upstream::EndpointReport)> = tables
        .clusters
        .values()
        .flat_map(|cluster| {
            let label = cluster.view().spec.config.label.clone();
            cluster.report().into_iter().map(move |report| (label.clone(), report))
        })
        .take(MAX_SERIES)
        .collect();
    let named: Vec<(&str, String, &crate::upstream::EndpointReport)> =
        reports.iter().map(|(label, report)| (&**label, report.address.to_string(), report)).collect();
    endpoints::states(page, &reports);
    let mut family = |name: &str, kind: &str, help: &str, value: &dyn Fn(&crate::upstream::EndpointReport) -> f64| {
        page.family(name, kind, help);
        for (label, address, report) in &named {
            page.sample(name, &[("upstream", label), ("endpoint", address)], value(report));
        }
    };
    family("heddle_upstream_endpoint_up", "gauge", "1 when the endpoint is used, 0.5 on trial, 0 when it is down.", &|report| {
        match report.state {
            crate::balance::State::Up => 1.0,
            crate::balance::State::Down => 0.0,
            _ => 0.5,
        }
    });
    family("heddle_upstream_endpoint_ejections_total", "counter", "How often the endpoint went down.", &|report| {
        report.ejections as f64
    });
    family("heddle_upstream_attempts_total", "counter", "Tries against the endpoint.", &|report| report.totals.attempts as f64);
    family("heddle_upstream_5xx_total", "counter", "Tries answered with 500 or above.", &|report| {
        report.totals.answered_5xx as f64
    });
    family(
        "heddle_upstream_identity_refused_total",
        "counter",
        "Tries whose endpoint was not who it should be in the mesh.",
        &|report| report.totals.identity_refused as f64,
    );
    family("heddle_upstream_connect_failures_total", "counter", "Tries that could not connect.", &|report| {
        report.totals.connect_failures as f64
    });
    family("heddle_upstream_timeouts_total", "counter", "Tries that ran into a timeout.", &|report| {
        report.totals.timeouts as f64
    });
    family("heddle_upstream_resets_total", "counter", "Tries that were cut or malformed.", &|report| report.totals.resets as f64);
    family("heddle_upstream_overflows_total", "counter", "Requests refused by a limit.", &|report| {
        report.totals.overflows as f64
    });
    family("heddle_upstream_connects_total", "counter", "Connections opened.", &|report| report.totals.connects as f64);
    family("heddle_upstream_reused_total", "counter", "Requests on pooled connections.", &|report| report.totals.reused as f64);
    family("heddle_upstream_requests_in_flight", "gauge", "Requests at the endpoint.", &|report| report.totals.active as f64);
    family("heddle_upstream_connections", "gauge", "Connections open to the endpoint.", &|report| {
        report.totals.connections as f64
    });
}

/// Requests that were not sent at all, as a control plane wants it.
fn dropped(page: &mut TextWriter, context: &Context) {
    let name = "heddle_upstream_dropped_requests_total";
    page.family(name, "counter", "Requests that were not sent, to relieve the upstream, by category of drop_overloads.");
    for ((upstream, category), count) in context.drops.totals().iter().take(MAX_SERIES) {
        page.sample(name, &[("upstream", upstream), ("category", category)], *count as f64);
    }
}

/// Services of the mesh that this node calls without TLS, as they want to be.
fn called_in_clear(page: &mut TextWriter, tables: &Tables) {
    page.family(
        "heddle_mesh_called_in_clear",
        "gauge",
        "1 for a service of the mesh that is called in clear: a peer_authentication says disable.",
    );
    let specs = tables.clusters.values().map(|cluster| cluster.view().spec.config.clone());
    for config in specs.filter(|config| config.in_clear).take(MAX_SERIES) {
        page.sample("heddle_mesh_called_in_clear", &[("upstream", &config.label)], 1.0);
    }
}

/// What each zone carries, and why.
fn zones(page: &mut TextWriter, tables: &Tables) {
    let now = clock::now();
    let lines: Vec<_> = tables
        .clusters
        .values()
        .flat_map(|cluster| {
            let label = cluster.view().spec.config.label.clone();
            cluster.zones(now).into_iter().map(move |zone| (label.clone(), zone))
        })
        .take(MAX_SERIES)
        .collect();
    page.family("heddle_upstream_zone_share", "gauge", "Share of the requests that a zone carries, and why.");
    for (label, zone) in &lines {
        let labels = [("upstream", &**label), ("zone", &*zone.zone), ("why", zone.why.as_str())];
        page.sample("heddle_upstream_zone_share", &labels, zone.share);
    }
    page.family("heddle_upstream_zone_endpoints", "gauge", "Endpoints of a zone that have a weight, by whether they stand.");
    for (label, zone) in &lines {
        let down = zone.endpoints.saturating_sub(zone.standing);
        for (state, count) in [("up", zone.standing), ("down", down)] {
            let labels = [("upstream", &**label), ("zone", &*zone.zone), ("state", state)];
            page.sample("heddle_upstream_zone_endpoints", &labels, count as f64);
        }
    }
}

fn discovery(page: &mut TextWriter, sources: &Sources<'_>) {
    let status = sources.discovery;
    page.family("heddle_xds_connected", "gauge", "1 while a stream to a control plane is open.");
    page.sample("heddle_xds_connected", &[], f64::from(u8::from(status.connected)));
    page.family("heddle_xds_rejected_total", "counter", "Resources that this node has refused.");
    page.sample("heddle_xds_rejected_total", &[], status.rejected as f64);
    page.family("heddle_xds_parted_views_total", "counter", "Views of the configuration that were applied in parts.");
    page.sample("heddle_xds_parted_views_total", &[], status.parted as f64);
    if let Some(age) = status.last_contact.and_then(|then| clock::wall().duration_since(then).ok()) {
        page.family("heddle_xds_last_contact_age_seconds", "gauge", "Time since the control plane last said something.");
        page.sample("heddle_xds_last_contact_age_seconds", &[], age.as_secs_f64());
    }
    page.family("heddle_tables_generation", "counter", "Swaps of the tables since the start.");
    page.sample("heddle_tables_generation", &[], sources.tables.generation as f64);
    page.family("heddle_tables_resources", "gauge", "Resources in use by kind.");
    for (kind, count) in [
        (Kind::Listener, sources.tables.listeners.len()),
        (Kind::Route, sources.tables.routes.len()),
        (Kind::Upstream, sources.tables.clusters.len()),
        (Kind::Consumer, sources.tables.consumers.len()),
        (Kind::Certificate, sources.tables.certificates.len()),
    ] {
        page.sample("heddle_tables_resources", &[("kind", kind.as_str())], count as f64);
    }
}
