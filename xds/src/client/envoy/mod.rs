//! Following a control plane of Envoy's: its resources become resources of our model, and the consumer cannot tell the difference. It knows no tables.
//!
//! Pieces are read one by one ([`crate::dialect::envoy::decode`]), the [`World`] puts them together and lets each go live when what it names is there, the
//! [`Follower`] holds the conversation; none of them does input or output.

mod clusters;
mod compose;
mod disk;
mod follower;
mod hosts;
mod kept;
mod order;
mod parts;
mod shell;
mod stream;
#[cfg(test)]
mod tests;
mod versions;
mod world;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value};

pub use follower::{Follower, Open, Raw, Says, Told};
pub(super) use shell::run;
pub use world::{Owner, World};

use crate::dialect::envoy::decode::Piece;
use crate::dialect::envoy::kind::EnvoyKind;

/// Where resources of Envoy's come from.
#[derive(Debug, Clone)]
pub struct EnvoySource {
    /// What a bootstrap holds itself.
    pub statics: Arc<[Piece]>,
    /// Kinds that the control plane is asked for as a whole; without any, none is followed.
    pub whole: BTreeSet<EnvoyKind>,
    /// How control planes of Envoy's know this node, besides its id and its zone.
    pub who: Who,
}

/// What an Envoy says of itself besides its id and its zone.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Who {
    /// The group of nodes that it belongs to.
    pub cluster: Arc<str>,
    /// Its region.
    pub region: Arc<str>,
    /// A part of its zone.
    pub sub_zone: Arc<str>,
    /// Whatever else.
    pub metadata: Map<String, Value>,
}

impl EnvoySource {
    /// A control plane that is asked for everything.
    pub fn followed(cluster: Arc<str>) -> EnvoySource {
        let who = Who { cluster, ..Who::default() };
        EnvoySource { statics: Arc::new([]), whole: BTreeSet::from([EnvoyKind::Cluster, EnvoyKind::Listener]), who }
    }
}
