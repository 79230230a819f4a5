//! How a node follows its control plane: as an instance that can be called for as long as its door is open, and no longer. It knows no protocol.

use std::convert::Infallible;
use std::time::Duration;

use heddle_node::clock;
use heddle_node::drain::DrainWatch;
use heddle_node::membership::Membership;
use heddle_node::readiness::{Guard, Readiness};
use heddle_xds::client::{self, Batch, ClientConfig, ClientStatus};
use tokio::sync::{mpsc, watch};

/// How long those who call an instance have to hear that it goes, before its door is closed. What they send meanwhile is served.
const FAREWELL: Duration = Duration::from_millis(500);

/// How long a node that could serve waits to be known before it says that it is ready: a control plane that does not answer at all must not keep it.
const PATIENCE: Duration = Duration::from_secs(3);

/// A worker's end: it says that its door is open, and hears when it may be closed.
#[derive(Clone)]
pub(super) struct Doorkeeper {
    /// Dropped as soon as the door is open.
    pub(super) shut: Option<mpsc::Sender<Infallible>>,
    told: watch::Receiver<bool>,
}

impl Doorkeeper {
    /// Waits until callers have been told that the door is about to be closed.
    pub(super) async fn told(&mut self) {
        // An error means that nobody is left who could tell them.
        let _ = self.told.wait_for(|told| *told).await;
    }

    /// Whether callers have been told.
    pub(super) fn has_told(&self) -> bool {
        *self.told.borrow() || self.told.has_changed().is_err()
    }
}

/// What is known of the doors of all workers.
pub(super) struct Doors {
    shut: mpsc::Receiver<Infallible>,
    told: watch::Sender<bool>,
    /// Dropped as soon as this node may be counted on.
    ready: Guard,
}

/// Both ends; a door that nobody calls by the control plane may be closed at once.
pub(super) fn doors(is_called: bool, readiness: &Readiness) -> (Doorkeeper, Doors) {
    let (shut, is_shut) = mpsc::channel(1);
    let (told, hears) = watch::channel(!is_called);
    let ready = readiness.guard("registration with the control plane");
    (Doorkeeper { shut: Some(shut), told: hears }, Doors { shut: is_shut, told, ready })
}

/// Follows until the drain begins. A node beside an instance is none that takes requests before its door is open. It goes on when the drain or the end of what
/// comes in has begun, and says so: others stop calling it, then the door is closed, while its application still finds those that it calls.
pub(super) async fn follow(
    mut config: ClientConfig,
    updates: mpsc::Sender<Batch>,
    status: watch::Sender<ClientStatus>,
    (mut drain, inbound): (DrainWatch, DrainWatch),
    doors: Doors,
) {
    let Some(instance) = &mut config.node.instance else {
        let work = client::run(config, updates, status, fastrand::Rng::new());
        // Nobody calls it by its instance: the end of what comes in is none of the control plane's business.
        drop((inbound, doors));
        tokio::select! {
            () = work => {}
            () = drain.draining() => {}
        }
        return;
    };
    instance.process = clock::unix_ms();
    let (takes_requests, said) = watch::channel(false);
    config.takes_requests = Some(said);
    // Control planes of Envoy's know no instances.
    let standing = config.envoy.is_none().then(|| status.subscribe());
    let life = live((drain, inbound), doors, takes_requests, standing);
    tokio::join!(client::run(config, updates, status, fastrand::Rng::new()), life);
}

/// Says that the instance takes requests as soon as its door is open, and that it takes none when it is to be closed. `standing` is how those stand who hear of it.
async fn live(
    (mut drain, mut inbound): (DrainWatch, DrainWatch),
    mut doors: Doors,
    takes_requests: watch::Sender<bool>,
    mut standing: Option<watch::Receiver<ClientStatus>>,
) {
    let ready = doors.ready;
    let open = async {
        // Nothing is ever sent there: it ends when all have let go of it.
        let _ = doors.shut.recv().await;
        let _ = takes_requests.send(true);
        // Who is ready may be counted on: the one whose place it takes may go. Without a control plane nobody can be told.
        if let Some(standing) = &mut standing {
            let said = standing.wait_for(|status| status.takes_requests || (!status.connected && status.failures > 0));
            let _ = tokio::time::timeout(PATIENCE, said).await;
        }
        drop(ready);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = open => {}
        () = drain.draining() => {}
        () = inbound.draining() => {}
    }
    let was_called = takes_requests.send_replace(false);
    // Whoever holds a watch keeps the process alive.
    drop((drain, inbound));
    if let Some(mut standing) = standing.filter(|standing| was_called && standing.borrow().connected) {
        let heard = async {
            let _ = standing.wait_for(|status| !status.takes_requests || !status.connected).await;
            tokio::time::sleep(FAREWELL).await;
        };
        let _ = tokio::time::timeout(2 * FAREWELL, heard).await;
    }
    let _ = doors.told.send(true);
}

/// Tells the fleet of the drain when it begins: others stop counting on this node.
pub(super) async fn leave(membership: Membership, mut drain: DrainWatch) {
    drain.draining().await;
    membership.say(|facts| facts.draining = true);
}
