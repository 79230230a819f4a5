//! What `run`, `controlplane` and `agent` start, on one control runtime; the agent's workers have threads of their own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use heddle_agent::app as agent_app;
use heddle_agent::filters::Registry;
use heddle_agent::observe::Tracer;
use heddle_agent::settings::{AccessLogSettings, ControlPlaneAddress};
use heddle_controlplane::app as control_app;
use heddle_controlplane::model::{Key, ResourceKind};
use heddle_node::drain::{self, DrainCompletion, DrainTrigger, DrainWatch};
use heddle_node::identity::Identity;
use heddle_node::memory;
use heddle_node::notify::Notifier;
use heddle_node::readiness::Readiness;
use heddle_node::signal::Signals;
use heddle_node::sockets;
use heddle_node::telemetry::{Origin, SpanExport};
use heddle_sidecar::wrapper::ADMIN;
use heddle_xds::catalog::Catalog;
use heddle_xds::client::envoy::EnvoySource;
use heddle_xds::link::Connector;
use heddle_xds::protocol::NodeInfo;
use heddle_xds::snapshot::NodeScope;
use serde_json::Value;

use super::fleet::{Fleet, Page};
use super::{allocator, bootstrap, demo};
use crate::configuration::Configuration;
use crate::environment;
use crate::explain::Explain;
use crate::output::say;

/// How long is waited for what ignores the end of the drain.
const GRACE: Duration = Duration::from_secs(2);

/// The provider whose resources the demo has.
const DEMO: &str = "demo";
/// How long is waited before the terminal says what is in the way of the demo.
const IMPATIENT: Duration = Duration::from_secs(2);
/// Namespace and service of a gateway of which nothing is said.
const GATEWAY: (&str, &str) = ("default", "gateway");
/// How long after everything is ready its memory is looked through first: requests that have waited for the start do not wait for code that was let go of.
const BEGUN: Duration = Duration::from_secs(1);
/// How long after that the start counts as over: first connections, checks and renewals have run by then.
const SETTLED: Duration = Duration::from_secs(5);

/// Why nothing runs.
pub type Failure = Box<dyn std::error::Error>;

/// What every mode has.
struct Process {
    readiness: Readiness,
    completion: DrainCompletion,
    /// Metrics of the admission webhook, once it is there.
    webhook: Arc<OnceLock<Page>>,
    trigger: DrainTrigger,
    watch: DrainWatch,
}

impl Process {
    fn new() -> Process {
        let (completion, watch) = drain::pair();
        Process { readiness: Readiness::new(), trigger: completion.trigger(), completion, watch, webhook: Arc::default() }
    }

    /// What stands behind the metrics of the control plane: gossip and the webhook.
    fn more_metrics(&self, fleet: &Fleet) -> Page {
        let (gossip, webhook) = (fleet.metrics(), self.webhook.clone());
        Arc::new(move || gossip() + webhook.get().map(|page| page()).unwrap_or_default().as_str())
    }

    /// Waits for a signal or `/drain`, then until everything has ended or the deadline has passed. A service manager is told when it is ready, and where the
    /// agent's endpoint is.
    async fn until_drained(self, deadline: Duration, admin: Option<SocketAddr>) -> Result<(), Failure> {
        let Process { readiness, completion, trigger, mut watch, .. } = self;
        let signals = Signals::listen()?;
        tokio::spawn(signals.obey(trigger, || tracing::info!("SIGHUP: nothing to do, configuration files are watched")));
        let notifier = environment::notifier();
        tokio::spawn(announce(readiness.clone(), notifier.clone(), admin));
        tokio::spawn(settle_down(readiness.clone()));
        watch.draining().await;
        readiness.begin_draining();
        notifier.say("STOPPING=1");
        tracing::info!(?deadline, "draining: requests in flight are finished; a second signal stops at once");
        drop(watch);
        let outcome = completion.drain(deadline, GRACE).await;
        tracing::info!(?outcome, "stopped");
        Ok(())
    }
}

/// Tells the service manager once everything is ready.
async fn announce(readiness: Readiness, notifier: Notifier, admin: Option<SocketAddr>) {
    readiness.settled().await;
    if readiness.verdict().is_ready() {
        let admin = admin.map(|admin| format!("\n{ADMIN}{admin}")).unwrap_or_default();
        notifier.say(&format!("READY=1{admin}"));
    }
}

/// Once everything is ready, gives back what only the start needed, and once more when what follows a start is over too: a sidecar rests most of its life.
async fn settle_down(readiness: Readiness) {
    readiness.settled().await;
    for pause in [BEGUN, SETTLED] {
        tokio::time::sleep(pause).await;
        // Not inside the macro, which looks at its fields only where somebody listens.
        let resident = memory::let_go_of_code();
        tracing::debug!(bytes = resident, "code of the start was let go of");
        allocator::give_back();
    }
}

/// Everything in one process.
///
/// # Errors
/// Something cannot be started; nothing is left running.
pub async fn all(mut configuration: Configuration, demo: bool) -> Result<(), Failure> {
    if demo {
        keep_terminal_clear(&mut configuration);
    }
    let process = Process::new();
    let services = if demo { demo::start().await? } else { Vec::new() };
    let seed = demo.then(|| (Arc::from(DEMO), demo_resources(&services)));
    let mut fleet = Fleet::new(&configuration, configuration.agent.mesh.role.as_str());
    let beside = Some(beside(&configuration));
    let control =
        control_app::start(control_app::Parts { beside, ..control_parts(&configuration, &process, &fleet, seed) }).await?;
    announce_key(&control);
    fleet.join(&configuration, control.identity.clone()).await?;
    let export = span_export(&configuration)?;
    let identity = control.agent.clone().unwrap_or_default();
    heddle_agent::identity::hand_on(&configuration.agent, &identity)?;
    let (more, who) = (control.metrics.clone(), identity.clone());
    let metrics: agent_app::MoreMetrics = Arc::new(move || more() + heddle_agent::identity::expiry_page(&who).as_str());
    let parts = agent_parts(&configuration, &process, &fleet, control.connector.clone(), export.clone(), Some(metrics));
    let agent = agent_app::start(agent_app::Parts { identity, ..parts }).await?;
    start_webhook(&configuration, &process, control.identity.clone()).await?;
    tracing::info!(admin = %control.admin, xds = %control.xds, agent = %agent.admin, "heddle is up");
    if demo {
        let text = demo::welcome(http_address(&configuration), control.admin, agent.admin, &access_log(&configuration));
        tokio::spawn(welcome(process.readiness.clone(), text));
    }
    let deadline = configuration.agent.drain_timeout + configuration.agent.drain_delay;
    process.until_drained(deadline, Some(agent.admin)).await?;
    fleet.leave().await;
    flush(export).await;
    Ok(())
}

/// Who the agent of `run` is: the service of the settings, otherwise the first that may be a gateway.
fn beside(configuration: &Configuration) -> control_app::Beside {
    let service = configuration.agent.mesh.service.as_ref().map(|service| (&*service.namespace, &*service.name));
    let gateways = configuration.control_plane.identity.iter().flat_map(|identity| &identity.gateways);
    let first = gateways.filter_map(|gateway| gateway.split_once('/')).next();
    let (namespace, service) = service.or(first).unwrap_or(GATEWAY);
    let node = configuration.node.node.id.to_string();
    control_app::Beside { node, namespace: namespace.to_owned(), service: service.to_owned() }
}

/// The control plane alone.
///
/// # Errors
/// Something cannot be started; nothing is left running.
pub async fn control_plane(configuration: Configuration) -> Result<(), Failure> {
    let process = Process::new();
    let mut fleet = Fleet::new(&configuration, control_app::CONTROL_PLANE);
    let control = control_app::start(control_parts(&configuration, &process, &fleet, None)).await?;
    announce_key(&control);
    fleet.join(&configuration, control.identity.clone()).await?;
    fleet.announce_drain(process.watch.clone());
    start_webhook(&configuration, &process, control.identity.clone()).await?;
    tracing::info!(admin = %control.admin, xds = %control.xds, "the control plane is up");
    process.until_drained(configuration.agent.drain_timeout, None).await?;
    fleet.leave().await;
    Ok(())
}

/// Whom an agent follows, for people; a bootstrap may name nobody, or a way over TLS that is no matter of the address.
fn followed(address: &ControlPlaneAddress, bootstrap: Option<&EnvoySource>, over_tls: bool) -> String {
    match bootstrap {
        Some(source) if source.whole.is_empty() => "none: the bootstrap has everything".to_owned(),
        Some(_) if over_tls => ControlPlaneAddress { tls: true, ..address.clone() }.to_string(),
        _ => address.to_string(),
    }
}

/// An agent alone.
///
/// # Errors
/// Something cannot be started; nothing is left running.
pub async fn agent(mut configuration: Configuration, bootstrap: Option<PathBuf>) -> Result<(), Failure> {
    let taken = bootstrap.map(|path| bootstrap::take(&path, &mut configuration)).transpose()?;
    let (envoy, named) = taken.map(|taken| (taken.source, taken.connector)).unzip();
    let follows =
        followed(&configuration.agent.control_plane.address, envoy.as_ref(), named.as_ref().is_some_and(Option::is_some));
    let configuration = configuration;
    // Before anything is sent: the rules of capture tell by it what is ours.
    configuration.capture.proxy_mark.map_or(Ok(()), sockets::mark_all)?;
    let process = Process::new();
    let node = &configuration.node.node;
    let kept = heddle_agent::identity::start(heddle_agent::identity::Parts {
        settings: &configuration.agent,
        node: &node.id,
        data_dir: &node.data_dir,
        readiness: &process.readiness,
    })?;
    let export = span_export(&configuration)?;
    let mut fleet = Fleet::new(&configuration, configuration.agent.mesh.role.as_str());
    fleet.join(&configuration, awaits_identity(&configuration).then(|| kept.identity.clone())).await?;
    let (identity, stats, gossip) = (kept.identity.clone(), kept.stats, fleet.metrics());
    let metrics: agent_app::MoreMetrics = Arc::new(move || stats.page(&identity) + gossip().as_str());
    let connector = named.flatten().unwrap_or(kept.connector);
    let parts = agent_parts(&configuration, &process, &fleet, connector, export.clone(), Some(metrics));
    let agent = agent_app::start(agent_app::Parts { identity: kept.identity, envoy, ..parts }).await?;
    tracing::info!(agent = %agent.admin, control_plane = %follows, "the agent is up");
    process.until_drained(configuration.agent.drain_timeout + configuration.agent.drain_delay, Some(agent.admin)).await?;
    fleet.leave().await;
    flush(export).await;
    Ok(())
}

/// Whether an agent is given an identity, now or later.
fn awaits_identity(configuration: &Configuration) -> bool {
    configuration.agent.control_plane.address.tls || configuration.agent.identity.sds.is_some()
}

/// The admission webhook, when it is configured.
async fn start_webhook(configuration: &Configuration, process: &Process, own: Option<Identity>) -> Result<(), Failure> {
    let Some(settings) = configuration.webhook.clone() else { return Ok(()) };
    let data_dir = configuration.node.node.data_dir.clone();
    let running = heddle_sidecar::webhook::start(settings, data_dir, own, process.watch.clone()).await?;
    tracing::info!(address = %running.address, "the admission webhook is up");
    // It is started once.
    let _ = process.webhook.set(running.metrics);
    Ok(())
}

/// The way to the collector, when tracing is configured.
fn span_export(configuration: &Configuration) -> Result<Option<SpanExport>, Failure> {
    let Some(settings) = &configuration.node.tracing else { return Ok(None) };
    let node = &configuration.node.node;
    let origin = Origin { id: node.id.clone(), zone: node.zone.clone(), version: env!("CARGO_PKG_VERSION") };
    Ok(Some(SpanExport::start(settings, origin)?))
}

/// Sends the spans that still wait.
async fn flush(export: Option<SpanExport>) {
    if let Some(export) = export {
        export.stop(GRACE).await;
    }
}

fn control_parts(
    configuration: &Configuration,
    process: &Process,
    fleet: &Fleet,
    seed: Option<control_app::Seed>,
) -> control_app::Parts {
    let catalog: Arc<dyn Catalog> = Arc::new(Registry::default());
    control_app::Parts {
        settings: configuration.control_plane.clone(),
        data_dir: configuration.node.node.data_dir.clone(),
        explainer: Arc::new(Explain::new(catalog.clone())),
        catalog,
        environment: environment::variables(),
        file: configuration.file.clone(),
        seed,
        readiness: process.readiness.clone(),
        drain: process.watch.clone(),
        membership: fleet.membership.clone(),
        cells: fleet.cells.clone(),
        beside: None,
        more_metrics: process.more_metrics(fleet),
    }
}

fn agent_parts(
    configuration: &Configuration,
    process: &Process,
    fleet: &Fleet,
    connector: Connector,
    export: Option<SpanExport>,
    more_metrics: Option<agent_app::MoreMetrics>,
) -> agent_app::Parts {
    let node = &configuration.node.node;
    let service = configuration.agent.mesh.service.as_ref();
    let scope = NodeScope {
        id: node.id.as_str().into(),
        role: configuration.agent.mesh.role.as_str().into(),
        zone: node.zone.as_deref().unwrap_or_default().into(),
        namespace: service.map(|service| service.namespace.clone()).unwrap_or_default(),
        service: service.map(|service| service.name.clone()).unwrap_or_default(),
        ..NodeScope::default()
    };
    agent_app::Parts {
        settings: configuration.agent.clone(),
        membership: fleet.membership.clone(),
        seeds: fleet.seeds(),
        envoy: None,
        environment: environment::variables(),
        node: NodeInfo {
            scope,
            version: env!("CARGO_PKG_VERSION").into(),
            instance: configuration.agent.mesh.instance(),
            ..NodeInfo::default()
        },
        connector,
        data_dir: node.data_dir.clone(),
        tracer: configuration.node.tracing.as_ref().zip(export).map(|(tracing, export)| Tracer::new(tracing.sample, export)),
        hostname: environment::hostname().into(),
        more_metrics,
        readiness: process.readiness.clone(),
        trigger: process.trigger.clone(),
        drain: process.watch.clone(),
        identity: Identity::new(),
    }
}

fn demo_resources(services: &[SocketAddr]) -> Vec<(Key, Value)> {
    let key = |(collection, mut value): (&str, Value)| {
        let name = value.get("id").or_else(|| value.get("username")).and_then(Value::as_str)?.to_owned();
        let key = Key::new(ResourceKind::from_plural(collection)?, name);
        if let Some(id) = value.get_mut("id") {
            // As every provider names what it reports.
            *id = key.of_provider(DEMO).id.to_string().into();
        }
        Some((key, value))
    };
    demo::resources(services).into_iter().filter_map(key).collect()
}

/// Prints a generated admin key once, when it is new.
fn announce_key(control: &control_app::Running) {
    let Some(generated) = &control.generated else { return };
    match &generated.fresh {
        Some(key) => {
            let (path, key) = (generated.path.display(), key.reveal());
            say(&format!("admin key: {key}\n(generated, as none is configured; kept in {path}, shown only this once)\n"));
        }
        None => tracing::info!(path = %generated.path.display(), "the generated admin key is in use"),
    }
}

/// The address of the first cleartext listener.
fn http_address(configuration: &Configuration) -> SocketAddr {
    let http = configuration.control_plane.listeners.iter().find(|listener| listener.value["protocol"] == "http");
    let address = http.and_then(|listener| listener.value["address"].as_str()?.parse().ok());
    address.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 9080)))
}

/// The demo is looked at in a terminal: its access log goes to a file, unless the configuration has an opinion.
fn keep_terminal_clear(configuration: &mut Configuration) {
    let path = configuration.node.node.data_dir.join("access.log");
    if let Some(log) = configuration.agent.access_log.as_mut().filter(|log| **log == AccessLogSettings::default()) {
        log.path = Some(path);
    }
}

/// Where the access log is, for people.
fn access_log(configuration: &Configuration) -> String {
    match &configuration.agent.access_log {
        Some(log) => log.path.as_ref().map_or_else(|| "standard output".to_owned(), |path| path.display().to_string()),
        None => "off".to_owned(),
    }
}

/// Prints what to try once it can be tried, and before that what is in the way.
async fn welcome(readiness: Readiness, text: String) {
    if tokio::time::timeout(IMPATIENT, readiness.settled()).await.is_err() {
        say(&format!("\nHeddle is not ready yet, {}\nThe rest is up and goes on trying.\n", readiness.verdict()));
        readiness.settled().await;
    }
    if readiness.verdict().is_ready() {
        say(&format!("{text}\n"));
    }
}
