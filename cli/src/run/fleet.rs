//! A process as a member of the fleet: what it says of itself from the start, and the gossip that carries it, when that is configured.

use std::sync::{Arc, OnceLock};

use heddle_node::drain::DrainWatch;
use heddle_node::identity::Identity;
use heddle_node::membership::gossip::{self, Bridge, Gossip, Parts};
use heddle_node::membership::{CONTROL_PLANE, Facts, Membership};
use tokio::sync::watch;

use super::start::Failure;
use crate::configuration::Configuration;

/// Writes metrics.
pub(super) type Page = Arc<dyn Fn() -> String + Send + Sync>;

/// A member.
pub(super) struct Fleet {
    pub(super) membership: Membership,
    gossip: Option<Gossip>,
    /// Further cells of a control plane.
    bridge: Option<Bridge>,
    /// What is said and heard in these, in the order of the settings.
    pub(super) cells: Vec<Membership>,
    page: Arc<OnceLock<Page>>,
}

impl Fleet {
    /// Alone at first.
    pub(super) fn new(configuration: &Configuration, role: &str) -> Fleet {
        let node = &configuration.node.node;
        let facts = Facts {
            role: role.into(),
            zone: node.zone.as_deref().unwrap_or_default().into(),
            version: env!("CARGO_PKG_VERSION").into(),
            ..Facts::default()
        };
        let gossip = configuration.node.gossip.as_ref();
        let in_cell = |cell: &str| Membership::alone(&node.id, Facts { cell: cell.into(), ..facts.clone() });
        let cells = gossip.into_iter().flat_map(|gossip| &gossip.bridges).map(|bridge| in_cell(&bridge.cell)).collect();
        let membership = in_cell(gossip.map(|gossip| gossip.cell.as_str()).unwrap_or_default());
        Fleet { membership, gossip: None, bridge: None, cells, page: Arc::default() }
    }

    /// Metrics of gossip; empty without it.
    pub(super) fn metrics(&self) -> Page {
        let page = self.page.clone();
        Arc::new(move || page.get().map(|page| page()).unwrap_or_default())
    }

    /// Begins to gossip, when that is configured. Without an identity it stays within this host.
    pub(super) async fn join(&mut self, configuration: &Configuration, identity: Option<Identity>) -> Result<(), Failure> {
        let Some(settings) = configuration.node.gossip.clone() else { return Ok(()) };
        if !settings.bridges.is_empty() && &*self.membership.facts().role != CONTROL_PLANE {
            return Err("gossip.bridges: only `heddle controlplane` joins several cells; give this node the gossip.cell that it belongs to".into());
        }
        let shared = settings.clone();
        let control_plane = configuration.agent.control_plane.address.to_string();
        let towards = control_plane.rsplit("://").next().map(|host| host.trim_end_matches('/').to_owned());
        let parts = Parts {
            settings,
            membership: self.membership.clone(),
            identity: identity.clone(),
            towards: towards.into_iter().collect(),
        };
        let gossip = gossip::start(parts).await?;
        if let Some(address) = gossip.address() {
            tracing::info!(%address, "gossiping with the fleet");
        }
        // It is joined once.
        let _ = self.page.set(gossip.page());
        self.gossip = Some(gossip);
        let mut others = Vec::new();
        for (cell, membership) in shared.bridges.iter().zip(&self.cells) {
            let (settings, membership, identity) = (shared.in_cell(cell), membership.clone(), identity.clone());
            let parts = Parts { settings, membership, identity, towards: Vec::new() };
            others.push(gossip::start(parts).await?);
            tracing::info!(cell = cell.cell, "gossiping with a further cell");
        }
        self.bridge = (!others.is_empty()).then(|| Bridge::between(self.membership.clone(), others));
        Ok(())
    }

    /// Where is told with whom to begin to gossip, when there is gossip.
    pub(super) fn seeds(&self) -> Option<watch::Sender<Vec<String>>> {
        self.gossip.as_ref().map(Gossip::seeds)
    }

    /// Tells the others of the drain when it begins.
    pub(super) fn announce_drain(&self, mut drain: DrainWatch) {
        let membership = self.membership.clone();
        tokio::spawn(async move {
            drain.draining().await;
            membership.say(|facts| facts.draining = true);
        });
    }

    /// Says good-bye.
    pub(super) async fn leave(self) {
        if let Some(bridge) = self.bridge {
            bridge.leave().await;
        }
        if let Some(gossip) = self.gossip {
            gossip.leave().await;
        }
    }
}
