//! What a cluster shows of its endpoints on metrics and admin pages. It changes nothing.

use std::net::SocketAddr;
use std::sync::Arc;

use super::super::stats::Totals;
use super::state::Cluster;
use super::view::{Endpoint, EndpointView};
use crate::balance::{Node, State};
use crate::health::Look;

/// How an endpoint stands, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Condition {
    /// It is used.
    Up,
    /// One request at a time tries it.
    Trial,
    /// It is about to leave: it gets nothing new, and keeps what it has.
    Draining,
    /// It is left out.
    Down,
    /// It is down but used, because too few others stand.
    Panic,
}

impl Condition {
    /// Its name for people and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Condition::Up => "up",
            Condition::Trial => "trial",
            Condition::Draining => "draining",
            Condition::Down => "down",
            Condition::Panic => "panic",
        }
    }
}

/// One endpoint for the metrics and admin pages.
#[derive(Debug, Clone)]
pub struct EndpointReport {
    /// Node name.
    pub host: Arc<str>,
    /// Address.
    pub address: SocketAddr,
    /// Relative share.
    pub weight: u32,
    /// Higher is used first.
    pub priority: i32,
    /// Locality zone, empty when unknown.
    pub zone: Arc<str>,
    /// Health, as balancing sees it.
    pub state: State,
    /// How it stands.
    pub condition: Condition,
    /// Health, with its reasons.
    pub look: Look,
    /// How often it went down.
    pub ejections: u64,
    /// Traffic counters.
    pub totals: Totals,
}

impl Cluster {
    /// All endpoints for metrics and admin pages.
    pub fn report(&self) -> Vec<EndpointReport> {
        let view = self.view();
        let panics = panics(&view);
        let report = |(endpoint, node): (&Endpoint, &Node)| {
            let look = endpoint.core.health.look();
            EndpointReport {
                host: endpoint.core.host.clone(),
                address: endpoint.core.address,
                weight: endpoint.weight,
                priority: endpoint.priority,
                zone: endpoint.zone.clone(),
                state: look.state,
                condition: match look.state {
                    State::Down if node.weight > 0 && panics.contains(&endpoint.priority) => Condition::Panic,
                    State::Down => Condition::Down,
                    _ if look.draining => Condition::Draining,
                    State::Trial => Condition::Trial,
                    State::Up => Condition::Up,
                },
                look,
                ejections: endpoint.core.health.ejections(),
                totals: endpoint.core.stats.totals(),
            }
        };
        view.endpoints.iter().zip(view.balance.nodes()).map(report).collect()
    }

    /// Whether health is ignored somewhere in it, because too few endpoints stand.
    pub fn panics(&self) -> bool {
        !panics(&self.view()).is_empty()
    }

    /// Probes of this node that have ended.
    pub fn probes(&self) -> u64 {
        self.probes.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// Priorities whose health is ignored: some endpoints stand, fewer than the panic threshold asks for, or none in any priority. None where the threshold is 0.
fn panics(view: &EndpointView) -> Vec<i32> {
    let members = || view.balance.nodes().iter().filter(|node| node.weight > 0);
    let stands = |priority: Option<i32>| {
        let of = members().filter(move |node| priority.is_none_or(|priority| node.priority == priority));
        of.fold((0, 0), |(all, up), node| (all + 1, up + usize::from(node.standing.state() != State::Down)))
    };
    let said = view.spec.config.panic_threshold;
    let none_up = said != Some(0) && stands(None).1 == 0;
    let mut priorities: Vec<i32> = members().map(|node| node.priority).collect();
    priorities.sort_unstable();
    priorities.dedup();
    let threshold = usize::from(said.unwrap_or(0));
    priorities.retain(|priority| {
        let (all, up) = stands(Some(*priority));
        none_up || up > 0 && up * 100 < all * threshold
    });
    priorities
}
