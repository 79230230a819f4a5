//! How a node follows its control plane: as an instance that can be called, and from its drain on as one that no longer can. It knows no protocol.

use std::sync::Arc;

use heddle_node::drain::DrainWatch;
use heddle_node::membership::Membership;
use heddle_xds::client::{self, Batch, ClientConfig, ClientStatus};
use heddle_xds::model::Instance;
use heddle_xds::protocol::NodeInfo;
use tokio::sync::{mpsc, watch};

/// Follows until the drain begins. A node beside an instance goes on after that, or after the end of what comes in, and says that it drains: others stop
/// calling it at once, while its application still finds those that it calls.
pub(super) async fn follow(
    config: ClientConfig,
    updates: mpsc::Sender<Batch>,
    status: watch::Sender<ClientStatus>,
    mut drain: DrainWatch,
    mut inbound: DrainWatch,
) {
    let work = client::run(config.clone(), updates.clone(), status.clone(), fastrand::Rng::new());
    let Some(farewell) = farewell(&config) else {
        // Nobody calls it by its instance: the end of what comes in is none of the control plane's business.
        drop((inbound, updates));
        tokio::select! {
            () = work => {}
            () = drain.draining() => {}
        }
        return;
    };
    tokio::select! {
        () = work => {}
        () = drain.draining() => {}
        () = inbound.draining() => {}
    }
    // Whoever holds a watch keeps the process alive.
    drop((drain, inbound));
    client::run(farewell, updates, status, fastrand::Rng::new()).await;
}

/// Tells the fleet of the drain when it begins: others stop counting on this node.
pub(super) async fn leave(membership: Membership, mut drain: DrainWatch) {
    drain.draining().await;
    membership.say(|facts| facts.draining = true);
}

/// The same node, draining. What is on disk stays as it is: the next start begins with it.
fn farewell(config: &ClientConfig) -> Option<ClientConfig> {
    let instance = Instance { draining: true, ..config.node.instance.clone()? };
    let node = NodeInfo {
        instance: Some(instance),
        version: Arc::clone(&config.node.version),
        scope: config.node.scope.clone(),
        ..NodeInfo::default()
    };
    Some(ClientConfig { node, last_good: None, ..config.clone() })
}
