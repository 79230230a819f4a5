//! The agent put together: the control side on the present runtime, and one thread with a runtime of its own for each worker.

mod certificates;
mod doors;
mod endpoints;
mod fleet;
mod metrics;
mod outward;
mod presence;
mod registration;
mod troubles;
mod worker;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use heddle_node::clock;
use heddle_node::config::Environment;
use heddle_node::drain::{DrainTrigger, DrainWatch};
use heddle_node::identity::Identity;
use heddle_node::membership::{self, Membership};
use heddle_node::readiness::{Guard, Readiness};
use heddle_node::token::{self, Token};
use heddle_xds::client::envoy::EnvoySource;
use heddle_xds::client::{ClientConfig, ClientStatus, Demand};
use heddle_xds::link::Connector;
use heddle_xds::protocol::NodeInfo;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use crate::admin::{self, Closing, Draining, Shown};
use crate::dns::{Resolver, ResolverSettings};
use crate::feed;
use crate::listener::{self, Wanted};
use crate::net::has_ipv6;
use crate::observe::access_log::{AccessLog, Sink};
use crate::observe::{MeshStats, RouteStats, Sharded, Tracer};
use crate::outbound::Outbound;
use crate::pipeline::{Callees, Shared};
use crate::secrets::References;
use crate::settings::{AgentSettings, MeshSettings, ProbeSettings, Role};
use crate::tables::{Compiler, Tables};
use crate::upstream::{Clusters, Context, HealthEvent};
use troubles::Troubles;

/// The folder below `data_dir` in which filters keep files.
const FILTERS_FOLDER: &str = "filters";
/// The file below `data_dir` with the last good configuration.
const LAST_GOOD_FILE: &str = "last-good.xds";
/// The folder below `data_dir` where `$secret://file/` references are looked up.
const SECRETS_FOLDER: &str = "secrets";
/// Batches between discovery and the feed; one is compiled while the next one arrives.
const BATCHES: usize = 1;

/// Writes further metrics of the process.
pub type MoreMetrics = Arc<dyn Fn() -> String + Send + Sync>;

/// What an agent is made of.
pub struct Parts {
    /// What it was told.
    pub settings: AgentSettings,
    /// Who it is.
    pub node: NodeInfo,
    /// Variables for `$env://` references.
    pub environment: Arc<dyn Environment + Send + Sync>,
    /// How it reaches its control plane.
    pub connector: Connector,
    /// Where it keeps its last good configuration.
    pub data_dir: PathBuf,
    /// Traces requests, when that is configured.
    pub tracer: Option<Tracer>,
    /// Name of this host, for the variable `hostname`.
    pub hostname: Arc<str>,
    /// Further metrics of this process, written behind those of the agent.
    pub more_metrics: Option<MoreMetrics>,
    /// What `/ready` shows.
    pub readiness: Readiness,
    /// Begins a drain (`/drain`).
    pub trigger: DrainTrigger,
    /// Ends everything.
    pub drain: DrainWatch,
    /// Who this process is in the mesh; somebody else keeps it.
    pub identity: Identity,
    /// Who else belongs to the fleet; somebody else carries what is said.
    pub membership: Membership,
    /// What an Envoy's bootstrap said; the control plane that it names is that of `settings`.
    pub envoy: Option<EnvoySource>,
    /// Where is told with whom to begin to gossip, when the control plane says so.
    pub seeds: Option<watch::Sender<Vec<String>>>,
}

/// An agent that runs.
pub struct Running {
    /// Where its own endpoint really listens.
    pub admin: SocketAddr,
    /// What it runs on.
    pub tables: watch::Receiver<Arc<Tables>>,
}

/// Why an agent does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address of its own endpoint is taken or not ours.
    #[error("the agent's admin endpoint cannot listen on {address}: {source}; change agent.admin or stop what listens there")]
    Admin {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The endpoint for probes cannot be opened.
    #[error(
        "the agent's endpoint for probes cannot listen on port {port}: {source}; change agent.probes.port or stop what listens there"
    )]
    Probes {
        /// Which.
        port: u16,
        /// Why.
        source: std::io::Error,
    },
    /// The access log cannot be opened.
    #[error("access_log.path: {0}; name a file that this user can write")]
    AccessLog(std::io::Error),
    /// `data_dir` cannot be made.
    #[error("data_dir {path}: {source}; name a directory that this user can write with node.data_dir")]
    DataDir {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The address of names of services is taken or not ours.
    #[error("names of services cannot be answered on {address}: {source}; change outbound.dns or stop what listens there")]
    Names {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A thread cannot be started.
    #[error("{what}: {source}")]
    System {
        /// What failed.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

/// What all workers of a node get.
#[derive(Clone)]
struct Common {
    shared: Arc<Shared>,
    doors: listener::Shared,
    counters: Arc<[Arc<listener::Counters>]>,
    tables: watch::Receiver<Arc<Tables>>,
    log: Option<Arc<AccessLog>>,
    tracer: Option<Tracer>,
    settings: AgentSettings,
    readiness: Readiness,
    troubles: Troubles,
    status: watch::Receiver<ClientStatus>,
    /// Listeners by our own settings.
    own: Arc<[Wanted]>,
    mesh: Arc<MeshStats>,
    /// Whom the application beside this node may call.
    callees: Callees,
}

impl Common {
    /// What is there before anything has been told.
    fn new(
        settings: AgentSettings,
        hostname: Arc<str>,
        log: Option<Arc<AccessLog>>,
        tracer: Option<Tracer>,
        readiness: Readiness,
        (identity, tables): (&Identity, &Tables),
    ) -> Common {
        let (workers, mesh) = (settings.workers, Arc::<MeshStats>::default());
        let application = tables.application.as_ref().map(|application| application.ports.clone());
        let shared = Shared {
            counters: Sharded::new(workers),
            unmatched: Arc::new(RouteStats::new(workers)),
            details: Sharded::new(workers),
            hostname,
            identity: identity.clone(),
        };
        Common {
            shared: Arc::new(shared),
            doors: listener::Shared::default(),
            counters: (0..workers).map(|_| Arc::default()).collect(),
            tables: watch::channel(Arc::default()).1,
            log,
            tracer,
            troubles: Troubles::new(readiness.clone()),
            readiness,
            status: watch::channel(ClientStatus::default()).1,
            own: doors::all(&settings.mesh, doors::Behind { identity, application, stats: &mesh }, has_ipv6()).into(),
            callees: outward::callees(&settings.mesh, &Demand::default(), &mesh),
            mesh,
            settings,
        }
    }
}

impl Common {
    /// What the fleet is told of.
    fn fleet_sources(&self) -> fleet::Sources {
        fleet::Sources { shared: self.shared.clone(), counters: self.counters.clone(), status: self.status.clone() }
    }
}

/// The endpoint for those who may only ask, when it is configured.
async fn open_probes(settings: Option<ProbeSettings>) -> Result<Option<(TcpListener, ProbeSettings)>, StartError> {
    let Some(settings) = settings else { return Ok(None) };
    let listener = admin::probes::bind(settings.port).await;
    let listener = listener.map_err(|source| StartError::Probes { port: settings.port, source })?;
    Ok(Some((listener, settings)))
}

/// Starts an agent: its control side on the present runtime, its workers on threads of their own.
///
/// # Errors
/// Nothing is left running.
pub async fn start(parts: Parts) -> Result<Running, StartError> {
    let Parts { settings, node, environment, connector, data_dir, tracer, hostname, .. } = parts;
    let Parts { more_metrics, readiness, trigger, drain, identity, membership, seeds, envoy, .. } = parts;
    let owner = owner(settings.mesh.role, &data_dir)?;
    let endpoint =
        TcpListener::bind(settings.admin).await.map_err(|source| StartError::Admin { address: settings.admin, source })?;
    let admin = endpoint.local_addr().unwrap_or(settings.admin);
    let probes = open_probes(settings.probes.clone()).await?;
    let log = open_log(&settings).map_err(StartError::AccessLog)?;
    let outbound = Outbound::new(names(&settings));
    let references = References::new(environment, data_dir.join(SECRETS_FOLDER), outbound.clone());
    let kept =
        references.keep().map_err(|source| StartError::System { what: "the keeper of secrets cannot be started", source })?;
    let (clusters, context) = clusters(&settings, &identity, &membership);
    let compiler = Compiler::new(settings.workers, clusters, outbound, references).identified_by(identity.clone());
    let mut compiler = beside(compiler.keeping_below(data_dir.join(FILTERS_FOLDER)), &settings.mesh);
    let (sender, tables) = watch::channel(compiler.tables());
    let (status_sender, status) = watch::channel(ClientStatus::default());
    let common = Common {
        tables: tables.clone(),
        status: status.clone(),
        ..Common::new(settings, hostname, log, tracer, readiness.clone(), (&identity, &tables.borrow()))
    };
    tokio::spawn(compiler.uses().clone().keep_shared(membership.clone()));
    let compiler = Arc::new(Mutex::new(compiler));
    let (updates, batches) = mpsc::channel(BATCHES);
    outward::answer_names(&common, envoy.is_some()).await?;
    let mut config = outward::follows(ClientConfig::new(node, connector), &common.settings, envoy);
    config.interests = outward::interests(common.settings.mesh.role);
    config.demand = common.callees.demand.clone();
    config.last_good = Some(data_dir.join(LAST_GOOD_FILE));
    config.gossip = seeds;
    config.cell = membership.facts().cell.clone();
    let certificates = certificates::Keeper::new(common.doors.certificates.clone());
    let (ends, own) = (certificates.ends(), common.own.clone());
    let follow = move |tables: &Arc<Tables>| {
        certificates.follow(tables);
        doors::obey(&own, tables);
    };
    tokio::spawn(feed::run(batches, compiler.clone(), kept, sender, follow));
    tokio::spawn(until(drain.clone(), first_configuration(status, readiness.guard("configuration"))));
    // The page below lives as long as the process: it must hold no watch, or no drain would ever be over.
    let (closing, inbound) = Closing::new(common.settings.drain_timeout);
    let (keeper, doors) = presence::doors(config.node.instance.is_some(), &readiness);
    worker::start_all(&common, &drain, &inbound, keeper)?;
    let watches = (&drain, &inbound);
    let more_metrics = registration::begin(&common.settings, &config.node.scope, &readiness, watches, more_metrics);
    tokio::spawn(presence::leave(membership.clone(), drain.clone()));
    tokio::spawn(fleet::tell_ports(membership.clone(), common.own.clone(), tables.clone()));
    tokio::spawn(fleet::tell(membership, common.fleet_sources()));
    tokio::spawn(presence::follow(config, updates, status_sender, (drain.clone(), inbound), doors));
    let shown = Page { common, compiler, context, ends, more_metrics, started_ms: clock::unix_ms() };
    let shown: Arc<dyn Shown> = Arc::new(shown);
    if let Some((listener, settings)) = probes {
        let (readiness, shown) = (readiness.clone(), shown.clone());
        tokio::spawn(async move { admin::probes::serve(listener, readiness, shown, &settings).await });
    }
    tokio::spawn(admin::serve(endpoint, readiness, Draining { trigger, closing, owner }, shown));
    Ok(Running { admin, tables })
}

/// Makes the folder. Whoever can read that of a sidecar may drain it, by a token there; where that cannot be written, signals are left, which is no reason
/// not to serve.
fn owner(role: Role, folder: &Path) -> Result<Option<PathBuf>, StartError> {
    std::fs::create_dir_all(folder).map_err(|source| StartError::DataDir { path: folder.to_owned(), source })?;
    if role != Role::Sidecar {
        return Ok(None);
    }
    if let Err(error) = Token::keep(folder) {
        tracing::warn!(%error, file = %token::path(folder).display(), "the token by which a drain is asked for cannot be written");
    }
    Ok(Some(folder.to_owned()))
}

/// A sidecar stands beside an application.
fn beside(compiler: Compiler, mesh: &MeshSettings) -> Compiler {
    match mesh.application() {
        Some(ports) => compiler.beside(Arc::new(ports)),
        None => compiler,
    }
}

fn open_log(settings: &AgentSettings) -> std::io::Result<Option<Arc<AccessLog>>> {
    let Some(log) = &settings.access_log else { return Ok(None) };
    let sink = log.path.clone().map_or(Sink::Stdout, Sink::File);
    AccessLog::open(&sink, log.format.as_deref()).map(|log| Some(Arc::new(log)))
}

/// How names are looked up.
fn names(settings: &AgentSettings) -> ResolverSettings {
    ResolverSettings { servers: settings.resolvers.clone(), ..ResolverSettings::default() }
}

/// The run-time side of upstreams, with its tasks on the present runtime. Without a usable resolver, addresses still work.
fn clusters(settings: &AgentSettings, identity: &Identity, membership: &Membership) -> (Clusters, Arc<Context>) {
    let resolver = Resolver::new(names(settings))
        .inspect_err(|error| tracing::warn!(%error, "names of endpoints cannot be looked up; set agent.resolvers"))
        .ok();
    let on_health = Box::new(|event: &HealthEvent| {
        let HealthEvent { upstream, address, change, .. } = event;
        if change.from != change.to {
            let (cause, found) = (change.cause.as_str(), change.finding.map(tracing::field::display));
            tracing::info!(%upstream, endpoint = %address, from = ?change.from, to = ?change.to, cause, found, "the health of an endpoint has changed");
        }
    });
    let context = Context { on_health, identity: identity.clone(), membership: membership.clone(), ..Context::default() };
    let context = Arc::new(context);
    (Clusters::new(context.clone(), resolver, tokio::runtime::Handle::current()), context)
}

/// Whether everything that there is to know has been taken over, from a control plane or from disk.
fn is_configured(status: &ClientStatus) -> bool {
    status.synced || status.last_good
}

/// Holds the guard until the first whole configuration is there.
async fn first_configuration(mut status: watch::Receiver<ClientStatus>, guard: Guard) {
    // An error means that discovery has ended, which only a drain does.
    let _ = status.wait_for(is_configured).await;
    drop(guard);
}

/// Runs something until the drain begins.
async fn until(mut drain: DrainWatch, work: impl Future) {
    tokio::select! {
        _ = work => {}
        () = drain.draining() => {}
    }
}

/// What the agent's endpoint shows.
struct Page {
    common: Common,
    compiler: Arc<Mutex<Compiler>>,
    context: Arc<Context>,
    ends: certificates::Ends,
    more_metrics: Option<MoreMetrics>,
    started_ms: u64,
}

impl Shown for Page {
    fn metrics(&self) -> String {
        let tables = self.common.tables.borrow().clone();
        let sum = |count: listener::Count| self.common.counters.iter().map(|counters| counters.get(count)).sum();
        let own = metrics::page(&metrics::Sources {
            tables: &tables,
            context: &self.context,
            shared: &self.common.shared,
            discovery: &self.common.status.borrow(),
            access_log: self.common.log.as_deref(),
            listeners: listener::Count::ALL.iter().map(|count| (count.name(), sum(*count))).collect(),
            certificates: self.ends.load().to_vec(),
            started_ms: self.started_ms,
            mesh: (!self.common.own.is_empty()).then_some(&*self.common.mesh),
        });
        own + self.more_metrics.as_ref().map(|more| more()).unwrap_or_default().as_str()
    }

    fn config_dump(&self) -> Value {
        self.compiler.lock().dump()
    }

    fn endpoints(&self, upstream: Option<&str>) -> Option<Value> {
        endpoints::show(&self.common.tables.borrow().clone(), &self.context.membership, upstream)
    }

    fn members(&self) -> Value {
        membership::json(&self.context.membership.fleet(), clock::unix_ms())
    }

    fn callers_in_clear(&self) -> Value {
        self.common.mesh.callers_in_clear()
    }
}
