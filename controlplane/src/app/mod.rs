//! The control plane put together: store, keeper, translation, providers and the two Admin APIs, each a task of the present runtime.

mod advice;
mod consul;
mod cutoff;
mod identities;
mod kept;
mod keys;
mod loads;
mod metrics;
mod nodes;
mod translation;
mod views;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use heddle_node::clock;
use heddle_node::consul::{Consul, ConsulError};
use heddle_node::drain::DrainWatch;
use heddle_node::identity::Identity;
use heddle_node::membership::{self, Membership};
use heddle_node::readiness::{Guard, Readiness};
use heddle_xds::catalog::Catalog;
use heddle_xds::dialect::envoy::encode::Gap;
use heddle_xds::link::{self, Connector, MemoryIncoming};
use heddle_xds::server::{AdsService, CDS, EDS, Gate, LDS, NodeRegistry, RDS, SDS, Seeds, Tuned, tuned};
use heddle_xds::snapshot::SnapshotStore;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_stream::Stream;
use tonic::transport::server::Connected;

use crate::access::Keys;
use crate::ca::{CaError, Fellows};
use crate::discovery::Watchers;
use crate::grpc::{AdminService, AuthorityService, Explainer, StatusService};
use crate::mesh::Mesh;
use crate::model::Key;
use crate::provider::{self, FileProvider, FixedProvider, Memory, Provider};
use crate::rest;
use crate::seal::{Seal, SealError, Sealed};
use crate::settings::{ControlPlaneSettings, SecretsKey};
use crate::state::{Content, Keeper, Places, Refused, Update, keep_house};
use crate::store::{Clock, Store, StoreError};
use crate::validate::Rules;

use cutoff::CutOff;
pub use identities::Beside;
use identities::Identities;
use kept::Kept;
pub use keys::GeneratedKey;
use translation::{Known, Translation};
use views::{Comparing, Shown};

/// The file below `data_dir` with the key that encrypts secrets in the store.
const SEAL_FILE: &str = "secrets.key";

/// The role of members that are control planes only.
pub const CONTROL_PLANE: &str = "controlplane";

/// Resources under the name of a provider.
pub type Seed = (Arc<str>, Vec<(Key, Value)>);

/// What a control plane is made of.
pub struct Parts {
    /// What it was told.
    pub settings: ControlPlaneSettings,
    /// Where it keeps its data.
    pub data_dir: PathBuf,
    /// The plugins of the data plane.
    pub catalog: Arc<dyn Catalog>,
    /// Answers `heddle explain`.
    pub explainer: Arc<dyn Explainer>,
    /// Variables for resource files.
    pub environment: Arc<dyn heddle_node::config::Environment + Send + Sync>,
    /// The configuration file's name, for faults of its listeners.
    pub file: String,
    /// Resources that come with the start itself, under the name of a provider (the demo).
    pub seed: Option<Seed>,
    /// What `/ready` shows.
    pub readiness: Readiness,
    /// Ends everything.
    pub drain: DrainWatch,
    /// Who else belongs to the fleet; somebody else carries what is said.
    pub membership: Membership,
    /// The further cells in which it is a member too, each of a name of its own.
    pub cells: Vec<Membership>,
    /// The agent in the same process, when it is to have an identity without asking for it.
    pub beside: Option<Beside>,
    /// Further metrics of this process, written behind those of the control plane.
    pub more_metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

/// A control plane that runs.
pub struct Running {
    /// The configuration.
    pub keeper: Keeper,
    /// The way for an agent in the same process.
    pub connector: Connector,
    /// Where the Admin API really listens.
    pub admin: SocketAddr,
    /// Where xDS and the gRPC API really listen.
    pub xds: SocketAddr,
    /// The metrics page.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// The admin key, when it had to be generated.
    pub generated: Option<GeneratedKey>,
    /// Who the control plane is, when there are identities.
    pub identity: Option<Identity>,
    /// Who the agent in the same process is, when there are identities.
    pub agent: Option<Identity>,
}

/// Why a control plane does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The authority cannot be used.
    #[error(transparent)]
    Authority(#[from] CaError),
    /// The key of the secrets cannot be used.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// Another control plane has sealed secrets with another key.
    #[error(
        "{0} is not the one of the other control planes beside this store: they could not read each other's secrets. \
         Copy secrets.key from the data_dir of one of them, or give all of them the same store.secrets_key"
    )]
    OtherSeal(String),
    /// There are secrets in the store, and nobody has said yet with which key they were sealed.
    #[error(
        "secrets of the store cannot be read with {0}: it is not the one that they were sealed with. Copy the secrets.key that was kept with the \
         store or its backup into the data_dir, and start again"
    )]
    UnreadableSecrets(String),
    /// Another control plane uses `data_dir`.
    #[error("another control plane is running with data_dir {0}: give each of them a node.data_dir of its own")]
    Taken(PathBuf),
    /// `data_dir` cannot be made or written.
    #[error("data_dir {path}: {source}; name a directory that this user can write with node.data_dir")]
    DataDir {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// An address is taken or not ours.
    #[error("{what} cannot listen on {address}: {source}; change {key} or stop what listens there")]
    Listen {
        /// Who wants to listen.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// The setting.
        key: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// Resources that come with the start (the listeners of the configuration file) are not valid; one fault a line.
    #[error("{0}")]
    Resources(String),
    /// Consul cannot be asked the way the settings say.
    #[error(transparent)]
    Consul(#[from] ConsulError),
    /// The keeper went away.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// Starts a control plane on the present runtime.
///
/// # Errors
/// Nothing is left running.
pub async fn start(parts: Parts) -> Result<Running, StartError> {
    let Parts { settings, data_dir, catalog, explainer, environment, file, seed, readiness, drain, .. } = parts;
    let Parts { membership, cells, beside, more_metrics, .. } = parts;
    let in_data_dir = |source| StartError::DataDir { path: data_dir.clone(), source };
    std::fs::create_dir_all(&data_dir).map_err(in_data_dir)?;
    let (admin, xds) = doors(&settings).await?;
    let (keys, generated) = keys::keys(&settings.admin.keys, &data_dir).map_err(in_data_dir)?;
    let (keys, clock): (Keys, Clock) = (Keys::new(&keys), Arc::new(clock::unix_ms));
    let (kept, seal) = opened(&settings, &data_dir, &clock, &drain).await?;
    let identities = Identities::open(&settings, beside, kept.records.clone(), seal.clone(), clock.clone()).await?;
    let mesh = remembered(identities.trust_domain(), &settings, &kept).await?;
    let store: Arc<dyn Store> = Arc::new(Sealed::new(kept.store.clone(), seal.clone(), catalog.clone()));
    let keeper = Keeper::start(store, Arc::new(Rules::new(catalog.clone())), clock.clone()).await?;
    offer(&keeper, FixedProvider::listeners(&file, settings.listeners).update()).await?;
    plant(&keeper, seed).await?;
    let first = Readiness::new();
    let (consul, mut providers) = consul::open(settings.consul, Memory { records: kept.records.clone(), seal: seal.clone() })?;
    providers.extend(settings.file.map(|file| Box::new(FileProvider::new(file, environment)) as Box<dyn Provider>));
    provider::start(providers, &keeper, &first, &drain, &mut fastrand::Rng::new());
    let keep = (settings.store.keep_revisions, settings.store.keep_for);
    tokio::spawn(keep_house(keeper.clone(), keep, kept.leader.clone(), drain.clone()));
    let (registry, (connector, within)) = (Arc::new(NodeRegistry::new()), link::memory());
    let differences = compared(&kept, &keeper, &drain);
    let metrics = metrics::writer(&keeper, &registry, &mesh, identities.authority.clone(), &differences, more_metrics);
    identities.keep_house(registry.clone(), &kept, &data_dir, drain.clone());
    let running = Running {
        keeper: keeper.clone(),
        connector,
        admin: local(&admin, settings.admin.address),
        xds: local(&xds, settings.xds.address),
        metrics: metrics.clone(),
        generated,
        identity: identities.identity(),
        agent: identities.agent(),
    };
    let ((cut, others), explaining) = (kept.others(&registry, &membership, &drain), (explainer, mesh.clone()));
    let service = AdminService::new(keeper.clone(), keys.clone(), registry.clone(), explaining, catalog.clone(), drain.clone());
    let operators = AuthorityService::new(identities.authority.clone(), keys.clone(), registry.clone());
    let inspection = StatusService::new(registry.clone(), keys.clone(), drain.clone());
    let discovery = Discovery {
        keeper: keeper.clone(),
        catalog: catalog.clone(),
        registry: registry.clone(),
        known: Known { mesh: mesh.clone(), records: kept.records.clone(), others },
        seeds: advice::of_cells(membership.clone(), cells),
        identities,
        consul,
        cut,
        others: (settings.xds.withheld, settings.xds.canaries),
        drain: drain.clone(),
    };
    let pending = readiness.guard("first reports of the providers");
    tokio::spawn(discovery.serve(first, pending, within, xds, (service, operators, inspection)));
    tokio::spawn(loads::tell(registry.loads().clone(), membership.clone(), drain.clone()));
    let (rollouts, settings) = (registry.rollouts().clone(), rest::Settings::default());
    let [nodes, mesh, differences, members] = shows(registry, mesh, differences, membership);
    let api = rest::Admin { keeper, catalog, seal, keys, settings, nodes, rollouts, members, mesh, differences, metrics, clock };
    tokio::spawn(rest::serve(admin, api, drain));
    Ok(running)
}

/// What the Admin API shows of nodes, the mesh, differences between control planes, and the fleet.
fn shows(
    registry: Arc<NodeRegistry>,
    mesh: Arc<Mutex<Mesh>>,
    differences: Shown,
    membership: Membership,
) -> [Arc<dyn Fn() -> Value + Send + Sync>; 4] {
    [
        Arc::new(move || nodes::json(&registry)),
        Arc::new(move || mesh.lock().shown(clock::unix_ms())),
        Arc::new(move || differences.json()),
        Arc::new(move || membership::json(&membership.fleet(), clock::unix_ms())),
    ]
}

/// Compares what providers say here with what they say to other control planes; what differs is shown.
fn compared(kept: &Kept, keeper: &Keeper, drain: &DrainWatch) -> Shown {
    let shown = Shown::default();
    if let Some(among) = &kept.among {
        let Fellows { name, present } = among.fellows();
        let (keeper, records, news) = (keeper.clone(), kept.records.clone(), kept.records.news());
        let comparing = Comparing { name, keeper, records, news, present, leader: kept.leader.clone(), shown: shown.clone() };
        tokio::spawn(comparing.run(drain.clone()));
    }
    shown
}

/// The store, and the key of its secrets, which is that of all control planes beside it.
async fn opened(
    settings: &ControlPlaneSettings,
    data_dir: &Path,
    clock: &Clock,
    drain: &DrainWatch,
) -> Result<(Kept, Arc<Seal>), StartError> {
    let (seal, place) = sealing(&settings.store.secrets_key, data_dir)?;
    let kept = Kept::open(&settings.store, data_dir, clock.clone(), drain).await?;
    kept.same_seal(&seal, &place).await?;
    Ok((kept, Arc::new(seal)))
}

/// What encrypts secrets in the store, and where its key is.
fn sealing(key: &SecretsKey, data_dir: &Path) -> Result<(Seal, String), StartError> {
    match key {
        SecretsKey::Made => {
            let path = data_dir.join(SEAL_FILE);
            Ok((Seal::open(&path)?, format!("the key file {}", path.display())))
        }
        SecretsKey::File(path) => Ok((Seal::read(path)?, format!("the key file {}", path.display()))),
        SecretsKey::Given(text) => {
            let seal = Seal::of_text(text.reveal()).map_err(|_| SealError::Crypto)?;
            Ok((seal, "the key of store.secrets_key".to_owned()))
        }
    }
}

/// The ports of the Admin API and of xDS.
async fn doors(settings: &ControlPlaneSettings) -> Result<(TcpListener, TcpListener), StartError> {
    let admin = bind("the Admin API", settings.admin.address, "admin.address").await?;
    Ok((admin, bind("xDS", settings.xds.address, "xds.address").await?))
}

/// What was known of the mesh before a restart.
async fn remembered(trust_domain: &str, settings: &ControlPlaneSettings, kept: &Kept) -> Result<Arc<Mutex<Mesh>>, StoreError> {
    let name = kept.among.as_ref().map(|among| among.name.clone()).unwrap_or_default();
    let federated = settings.identity.iter().flat_map(|identity| &identity.federation);
    let partners = federated.map(|partner| partner.trust_domain.as_str().into()).collect();
    let mut mesh = Mesh::of(trust_domain, settings.mesh.vip_range, name).beside(partners);
    mesh.restore(&kept.records.records().await?, clock::unix_ms());
    Ok(Arc::new(Mutex::new(mesh)))
}

/// Offers what comes with the start itself.
async fn plant(keeper: &Keeper, seed: Option<Seed>) -> Result<(), StartError> {
    let Some((provider, resources)) = seed else { return Ok(()) };
    let content = Content::Whole(resources);
    offer(keeper, Update { source: provider.clone(), provider, content, places: Places::default() }).await
}

/// Offers resources that come with the start and tells what is wrong with them.
async fn offer(keeper: &Keeper, update: Update) -> Result<(), StartError> {
    let (provider, source) = (update.provider.clone(), update.source.clone());
    keeper.offer(vec![update]).await?;
    let sources = keeper.sources();
    let own = sources.iter().find(|status| status.provider == provider && status.source == source);
    let errors = own.map(|status| status.errors.join("\n")).unwrap_or_default();
    if errors.is_empty() { Ok(()) } else { Err(StartError::Resources(errors)) }
}

async fn bind(what: &'static str, address: SocketAddr, key: &'static str) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { what, address, key, source })
}

fn local(listener: &TcpListener, asked: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(asked)
}

/// What the discovery services are made of.
struct Discovery {
    keeper: Keeper,
    catalog: Arc<dyn Catalog>,
    registry: Arc<NodeRegistry>,
    known: Known,
    seeds: Seeds,
    identities: Identities,
    consul: Option<Consul>,
    cut: CutOff,
    /// What stands in the place of what is withheld, and how long nodes wait for their canary.
    others: (Gap, Option<Duration>),
    drain: DrainWatch,
}

impl Discovery {
    /// Serves agents of this process and of others, once the snapshot is whole: an agent that is shown a part of it would drop the rest.
    async fn serve(
        self,
        first: Readiness,
        pending: Guard,
        within: MemoryIncoming,
        listener: TcpListener,
        (admin, operators, inspection): (AdminService, AuthorityService, StatusService),
    ) {
        first.settled().await;
        let snapshot = Arc::new(SnapshotStore::new());
        let consul = Watchers::new(self.consul, fastrand::Rng::new());
        let translation =
            Translation::begin(&self.keeper, self.catalog, self.known, &self.registry, (snapshot.clone(), consul)).await;
        drop(pending);
        let ads = || {
            let ads = AdsService::new(snapshot.clone(), self.registry.clone(), self.drain.clone());
            ads.seeding(self.seeds.clone()).leaving(self.others.0).trying_first(self.others.1)
        };
        // Who is of this process has no other control plane.
        let within_process = (ads().behind(self.identities.gate()), self.identities.service(None, &self.drain));
        let memory = tuned().add_service(within_process.0.into_server()).add_optional_service(within_process.1);
        let ads = ads().behind(unless_sent(self.identities.gate(), self.cut.clone())).sending(self.cut.elsewhere()).into_server();
        let network = tuned().add_service(ads.of_type::<CDS>()).add_service(ads.of_type::<EDS>());
        let network = network.add_service(ads.of_type::<LDS>()).add_service(ads.of_type::<RDS>());
        let network = network.add_service(ads.of_type::<SDS>()).add_service(ads.loads()).add_service(ads);
        let network = network.add_service(admin.into_server()).add_service(operators.into_server());
        let network = network.add_service(inspection.into_server());
        let network = network.add_optional_service(self.identities.service(Some(self.cut.elsewhere()), &self.drain));
        let incoming = link::accept(listener, self.identities.speaks(), self.identities.turned(), self.drain.clone());
        tokio::join!(
            translation.run(self.drain.clone()),
            finish("xDS within the process", serve(memory, within, self.drain.clone())),
            finish("xDS", serve(network, incoming, self.drain.clone())),
        );
    }
}

/// Lets in whom `gate` lets in, unless they are to go to another control plane.
fn unless_sent(gate: Gate, cut: CutOff) -> Gate {
    Arc::new(move |peer, node| {
        gate(peer, node)?;
        cut.admit(&node.scope.id)
    })
}

async fn serve<I, S>(
    router: tonic::transport::server::Router<Tuned>,
    incoming: I,
    drain: DrainWatch,
) -> Result<(), tonic::transport::Error>
where
    I: Stream<Item = std::io::Result<S>>,
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Connected + Unpin + Send + 'static,
{
    let mut watch = drain;
    router.serve_with_incoming_shutdown(incoming, async move { watch.draining().await }).await
}

/// Tells when a server ends by a fault; the others go on.
async fn finish<E: std::fmt::Display>(what: &str, serving: impl Future<Output = Result<(), E>>) {
    if let Err(error) = serving.await {
        tracing::error!(%error, "{what} has ended");
    }
}
