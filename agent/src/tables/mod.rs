//! What one node runs on: immutable, indexed, swapped whole. Compiled from the data-plane model; it serves lookups and does nothing by itself.

mod application;
mod compile;
mod consumers;
mod mesh;
mod names;
mod peers;
mod references;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use heddle_xds::model::{self, Timeouts};

use crate::authorize::Policies;
use crate::filters::Chain;
use crate::observe::{RouteStats, TcpStats};
use crate::route::RouteTable;
use crate::upstream::Edition;

pub use application::{Application, Place, Port, Ports};
pub use compile::Compiler;
pub use consumers::Consumers;
pub use mesh::MeshService;
pub use names::{Called, Ending, host_of};
pub use peers::PeerModes;

/// What this revision makes of upstreams, by resource name.
pub type Clusters = HashMap<Arc<str>, Arc<Edition>, RandomState>;

/// Key material by name.
pub type Secrets = HashMap<Arc<str>, Arc<model::Secret>, RandomState>;

/// Services of the mesh by name.
pub type MeshServices = HashMap<Arc<str>, Arc<MeshService>, RandomState>;

/// What one node runs on at one moment. Parts that have not changed are shared with the tables before.
#[derive(Default)]
pub struct Tables {
    /// Grows with every swap.
    pub generation: u64,
    /// Listeners by name.
    pub listeners: BTreeMap<Arc<str>, Arc<model::Listener>>,
    /// What is counted of TCP listeners.
    pub tcp: BTreeMap<Arc<str>, Arc<TcpStats>>,
    /// Routes.
    pub routes: Arc<RouteTable<Action>>,
    /// Upstreams by resource name. An edition is the same object until a revision changes the upstream or its endpoints; discovery changes it in place.
    pub clusters: Arc<Clusters>,
    /// Filters of all global rules, fused.
    pub global: Arc<Chain>,
    /// Consumers.
    pub consumers: Arc<Consumers>,
    /// Which certificates are shown for which names.
    pub certificates: Arc<BTreeMap<Arc<str>, Arc<model::Certificate>>>,
    /// Key material by name.
    pub secrets: Arc<Secrets>,
    /// Services of the mesh by name, `<namespace>/<service>`, as far as this node asked for them.
    pub mesh: Arc<MeshServices>,
    /// The application beside which this node stands.
    pub application: Option<Arc<Application>>,
    /// Who may call the service beside which this node stands.
    pub authorization: Arc<Policies>,
    /// Who is let in by this node without an identity.
    pub peers: Arc<PeerModes>,
}

/// What a route leads to.
#[derive(Clone)]
pub struct Action {
    /// Its filters.
    pub chain: Arc<Chain>,
    /// Resource name of its upstream; `None` when filters answer everything.
    pub upstream: Option<Arc<str>>,
    /// Overrides the upstream's timeouts.
    pub timeouts: Option<Timeouts>,
    /// Whether WebSocket upgrades pass.
    pub enable_websocket: bool,
    /// How long a whole exchange may take; `None` is no limit.
    pub max_duration: Option<Duration>,
    /// Counters.
    pub stats: Arc<RouteStats>,
}
