//! Gossip: how members of the fleet hear of each other. It fills a [`Membership`] and knows nobody who reads it.
//!
//! chitchat (scuttlebutt reconciliation) carries small keys and values of every node to every other one. Around it stand: a [`codec`] that bounds what is
//! said and heard, a [`doorman`] that bounds who is in, transports of our own, and a [`roll`] that judges who is alive.

pub(crate) mod bridge;
pub mod codec;
mod delta;
mod doorman;
mod ledger;
mod node;
mod page;
mod pulse;
mod roll;
mod seeds;
mod settings;
mod transport;
mod wire;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chitchat::ChitchatId;
use chitchat::transport::Transport;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

pub use bridge::Bridge;
pub use doorman::{Count, Counters, Doorman, Refusal};
pub use ledger::Peer;
pub use pulse::{Judge, Pulse};
pub use settings::{BridgeSettings, DEFAULT_PORT, GossipSettings, MAX_MEMBERS, MAX_SEEDS, is_seed};
pub use transport::{MemoryNet, MemoryTransport, Security, StreamTransport, Timing};

use super::Membership;
use crate::identity::Identity;

/// What gossip is made of.
#[derive(Debug, Clone)]
pub struct Parts {
    /// What it was told.
    pub settings: GossipSettings,
    /// What is filled, and what says who we are.
    pub membership: Membership,
    /// Who this process is; `None`: nobody, and gossip stays within this host.
    pub identity: Option<Identity>,
    /// Hosts (`host:port`) by the way to which our own address is found, beside the seeds: mostly the control plane.
    pub towards: Vec<String>,
}

/// Why there is no gossip.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// In clear it must not leave the host.
    #[error(
        "gossip.listen {0} is beyond this host, and this node has no identity: get one from the control plane (controlplane.address with https://, or \
         identity.enabled where the control plane runs in the same process), or listen on 127.0.0.1"
    )]
    Clear(SocketAddr),
    /// The address is taken or not ours.
    #[error("gossip cannot listen on {address}: {source}; change gossip.listen or stop what listens there")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Nobody knows where this node is reached.
    #[error(
        "gossip.advertise must say where other nodes reach this one: gossip.listen {0} does not, and there is nobody to ask the way to"
    )]
    Advertise(SocketAddr),
    /// chitchat does not start.
    #[error("gossip does not start: {0}")]
    Chitchat(String),
}

/// Gossip that runs; without it, it ends.
#[derive(Debug)]
pub struct Gossip {
    address: Arc<OnceLock<SocketAddr>>,
    membership: Membership,
    doorman: Arc<Doorman>,
    seeds: watch::Sender<Vec<String>>,
    leave: oneshot::Sender<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

/// How long to wait before the way is asked again, at first and at most.
const ASK_THE_WAY: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];
/// How long a good-bye may take.
const FAREWELL: Duration = Duration::from_secs(3);

/// Begins to gossip over streams, on the present runtime.
///
/// # Errors
/// Nothing is left running.
pub async fn start(parts: Parts) -> Result<Gossip, StartError> {
    let listen = parts.settings.listen;
    let security = match &parts.identity {
        Some(identity) => Security::Identity(identity.clone()),
        None if listen.ip().is_loopback() => Security::Loopback,
        None => return Err(StartError::Clear(listen)),
    };
    let failed = |source| StartError::Listen { address: listen, source };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let address = match parts.settings.advertise {
        Some(address) => Some(address),
        None if !bound.ip().is_unspecified() => Some(bound),
        None if parts.settings.seeds.is_empty() && parts.towards.is_empty() => return Err(StartError::Advertise(listen)),
        None => own_ip(&parts, bound).await.map(|ip| SocketAddr::new(ip, bound.port())),
    };
    let doorman = Arc::new(Doorman::new(parts.settings.max_members).paced(parts.settings.interval));
    let cluster = parts.settings.cluster_id();
    let shared = doorman.clone();
    let transport =
        move |address| Arc::new(StreamTransport::new(listener, address, &cluster, security, shared)) as Arc<dyn Transport>;
    match address {
        Some(address) => join(parts, address, doorman, transport(address)).await,
        None => Ok(join_later(parts, bound, doorman, transport)),
    }
}

/// Begins to gossip as soon as it is known where this node is reached: names that cannot be looked up now can be later.
fn join_later(
    parts: Parts,
    bound: SocketAddr,
    doorman: Arc<Doorman>,
    transport: impl FnOnce(SocketAddr) -> Arc<dyn Transport> + Send + 'static,
) -> Gossip {
    let (seeds, seeded) = watch::channel(Vec::new());
    let (leave, mut leaving) = oneshot::channel::<oneshot::Sender<()>>();
    let (membership, known, counted) = (parts.membership.clone(), Arc::new(OnceLock::new()), doorman.clone());
    let (found, asked) = (known.clone(), seeded.clone());
    let task = tokio::spawn(async move {
        let address = tokio::select! {
            address = find_own(&parts, &asked, bound) => address,
            // Nobody has heard of this node: there is nobody to say good-bye to, and who waits sees that the sender is gone.
            _ = &mut leaving => return,
        };
        tracing::info!(%address, "found out where other nodes reach this one");
        // It is found once.
        let _ = found.set(address);
        let node = introduce(&parts.settings, &parts.membership, address, counted, transport(address));
        node.run(None, seeded, leaving).await;
    });
    Gossip { address: known, membership, doorman, seeds, leave, task }
}

/// Asks the way until it is known.
async fn find_own(parts: &Parts, seeded: &watch::Receiver<Vec<String>>, bound: SocketAddr) -> SocketAddr {
    let mut pause = ASK_THE_WAY[0];
    loop {
        tracing::warn!(
            seeds = ?parts.settings.seeds,
            "gossip waits: where other nodes reach this one is not known, since no name of those it knows can be looked up; it is tried again, or set gossip.advertise"
        );
        tokio::time::sleep(pause).await;
        let mut parts = parts.clone();
        parts.settings.seeds.extend(seeded.borrow().iter().cloned());
        if let Some(ip) = own_ip(&parts, bound).await {
            return SocketAddr::new(ip, bound.port());
        }
        pause = (pause * 2).min(ASK_THE_WAY[1]);
    }
}

/// Says where this node is reached, and makes it.
fn introduce(
    settings: &GossipSettings,
    membership: &Membership,
    address: SocketAddr,
    doorman: Arc<Doorman>,
    transport: Arc<dyn Transport>,
) -> node::Node {
    membership.say(|facts| {
        facts.address = Some(address);
        facts.group = settings.group.as_str().into();
        facts.cell = settings.cell.as_str().into();
    });
    node::Node::new(settings.clone(), membership.clone(), address, doorman, transport)
}

/// Begins to gossip over a transport that shares `doorman`; others reach this node at `address`.
///
/// # Errors
/// The transport cannot be opened.
pub async fn join(
    parts: Parts,
    address: SocketAddr,
    doorman: Arc<Doorman>,
    transport: Arc<dyn Transport>,
) -> Result<Gossip, StartError> {
    let Parts { settings, membership, .. } = parts;
    let (seeds, seeded) = watch::channel(Vec::new());
    let (leave, leaving) = oneshot::channel();
    let node = introduce(&settings, &membership, address, doorman.clone(), transport);
    let first = node.open().await.map_err(|error| StartError::Chitchat(error.to_string()))?;
    let task = tokio::spawn(node.run(Some(first), seeded, leaving));
    Ok(Gossip { address: Arc::new(address.into()), membership, doorman, seeds, leave, task })
}

impl Gossip {
    /// Where others reach this node; `None` while it is looked for.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.address.get().copied()
    }

    /// The members that it fills.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Where further nodes to begin with are told, beside those of the settings: what a control plane hands out.
    #[must_use]
    pub fn seeds(&self) -> watch::Sender<Vec<String>> {
        self.seeds.clone()
    }

    /// What is counted.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.doorman.counters
    }

    /// Writes its metrics, for as long as the process lives.
    #[must_use]
    pub fn page(&self) -> Arc<dyn Fn() -> String + Send + Sync> {
        let (membership, doorman) = (self.membership.clone(), self.doorman.clone());
        Arc::new(move || page::page(&membership, &doorman))
    }

    /// Says good-bye and ends.
    pub async fn leave(self) {
        let (done, said) = oneshot::channel();
        if self.leave.send(done).is_ok() {
            // Whether it was heard or not, this node goes.
            let _ = tokio::time::timeout(FAREWELL, said).await;
        }
        self.task.abort();
    }

    /// Ends without a word, as a crash does.
    pub fn abort(self) {
        self.task.abort();
    }
}

/// The address by which this host reaches those that it knows. Nothing is sent.
async fn own_ip(parts: &Parts, bound: SocketAddr) -> Option<IpAddr> {
    for host in parts.settings.seeds.iter().chain(&parts.towards) {
        let Ok(addresses) = tokio::net::lookup_host(host.as_str()).await else { continue };
        for address in addresses.filter(|address| address.is_ipv4() == bound.is_ipv4()) {
            let Ok(socket) = UdpSocket::bind(SocketAddr::new(bound.ip(), 0)).await else { continue };
            if socket.connect(address).await.is_ok()
                && let Ok(own) = socket.local_addr()
                && !own.ip().is_unspecified()
            {
                return Some(own.ip());
            }
        }
    }
    None
}

/// The name that chitchat has for a node: short and of one length, so that a digest of all members fits its message. The id itself is one of its facts.
fn short_name(id: &str) -> String {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, id.as_bytes());
    base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, &hash.as_ref()[..8])
}

/// A life of a node that begins now: it takes the place of former ones.
fn life(id: &str, now: SystemTime, address: SocketAddr) -> ChitchatId {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    ChitchatId::new(short_name(id), u64::try_from(since.as_micros()).unwrap_or(u64::MAX), address)
}
