//! Agents without a data plane that know several control planes; what they hold counts.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use heddle_xds::client::{Batch, ClientConfig, ClientStatus, run};
use heddle_xds::link::Connector;
use heddle_xds::protocol::NodeInfo;
use heddle_xds::snapshot::NodeScope;
use tokio::sync::{mpsc, watch};

/// How long a fleet may take to connect, or to notice that it is not.
const PATIENCE: Duration = Duration::from_secs(120);

/// Agents on the present runtime.
pub struct Agents(Vec<watch::Receiver<ClientStatus>>);

impl Agents {
    /// So many agents, each of which knows all of these control planes.
    pub fn start(count: usize, planes: &[SocketAddr]) -> Agents {
        Agents((0..count).map(|number| follow(number, planes)).collect())
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Waits until all are connected and have everything, or until none is; how long that took.
    pub async fn all(&self, connected: bool) -> Result<Duration, String> {
        let begun = Instant::now();
        loop {
            let there = self.0.iter().filter(|agent| {
                let status = agent.borrow();
                status.connected && status.synced && status.failures == 0
            });
            let there = there.count();
            if there == if connected { self.count() } else { 0 } {
                return Ok(begun.elapsed());
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("{there} of {} agents are connected after {PATIENCE:?}", self.count()));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn follow(number: usize, planes: &[SocketAddr]) -> watch::Receiver<ClientStatus> {
    let ways = planes.iter().filter_map(|plane| Connector::tcp(&plane.to_string()).ok()).collect();
    let connector = Connector::any(ways, fastrand::Rng::with_seed(number as u64));
    let scope = NodeScope { id: format!("agent-{number}").into(), role: "gateway".into(), ..NodeScope::default() };
    let node = NodeInfo { scope, version: "1".into(), ..NodeInfo::default() };
    let (updates, mut batches) = mpsc::channel::<Batch>(1);
    let (status, watched) = watch::channel(ClientStatus::default());
    tokio::spawn(run(ClientConfig::new(node, connector), updates, status, fastrand::Rng::new()));
    tokio::spawn(async move {
        while let Some(batch) = batches.recv().await {
            batch.accept();
        }
    });
    watched
}
