//! From the messages of Envoy to pieces of our model, one file per matter. What cannot be done as it is meant is refused by field; it knows no stream.

pub mod bootstrap;
mod cluster;
mod listener;
pub mod material;
pub mod piece;
mod program;
mod protocol;
pub mod read;
mod route;
pub mod source;
pub mod statics;
#[cfg(test)]
pub(crate) mod tests;
mod tls;
pub mod wire;

use std::sync::Arc;

use serde_json::Value;

use crate::dialect::envoy::kind::EnvoyKind;
use cluster::endpoints::{self, Lookup};
use piece::{Assignment, Cluster, Door, Extension, RouteTable};
use read::{Fault, Fields, Read, message};

pub(crate) use listener::limit::is_shared;
pub use read::Fault as DecodeFault;
pub(crate) use route::action::answer;
pub(crate) use route::matching::{AUTHORITY, escaped};
pub(crate) use route::retry::all_tries_within;

/// One resource of Envoy, read.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// Of CDS.
    Cluster(Arc<Cluster>),
    /// Of EDS.
    Endpoints(Arc<Assignment>),
    /// Of SDS.
    Secret(Arc<crate::model::Secret>),
    /// Of RDS.
    Routes(Arc<RouteTable>),
    /// Of LDS.
    Listener(Arc<Door>),
    /// Of ECDS.
    Extension(Arc<Extension>),
}

impl Piece {
    /// The kind.
    pub fn kind(&self) -> EnvoyKind {
        match self {
            Piece::Cluster(_) => EnvoyKind::Cluster,
            Piece::Endpoints(_) => EnvoyKind::Endpoints,
            Piece::Secret(_) => EnvoyKind::Secret,
            Piece::Routes(_) => EnvoyKind::Routes,
            Piece::Listener(_) => EnvoyKind::Listener,
            Piece::Extension(_) => EnvoyKind::Extension,
        }
    }

    /// The name that it gives itself.
    pub fn name(&self) -> &Arc<str> {
        match self {
            Piece::Cluster(cluster) => &cluster.upstream.name,
            Piece::Endpoints(assignment) => &assignment.name,
            Piece::Secret(secret) => &secret.name,
            Piece::Routes(table) => &table.name,
            Piece::Listener(door) => &door.listener.name,
            Piece::Extension(extension) => &extension.name,
        }
    }
}

/// Reads a resource from its tree, as YAML, JSON or [`wire::tree`] give it.
///
/// # Errors
/// The first field that is wrong or that cannot be done as it is meant.
pub fn decode(kind: EnvoyKind, tree: &Value) -> Read<Piece> {
    read_whole(kind, tree, &[])
}

/// A resource as it came over the wire, of which its name can be read whatever else is wrong with it.
pub struct Unread<'b> {
    kind: EnvoyKind,
    tree: Value,
    /// Virtual hosts of a table of routes, which are taken apart one by one.
    hosts: Vec<&'b [u8]>,
}

impl<'b> Unread<'b> {
    /// Takes the bytes of a resource.
    ///
    /// # Errors
    /// They are no such message.
    pub fn new(kind: EnvoyKind, bytes: &'b [u8]) -> Read<Unread<'b>> {
        let (tree, hosts) = match kind {
            EnvoyKind::Routes => wire::tree_without(kind.message(), route::HOSTS, bytes)?,
            _ => (wire::tree(kind.message(), bytes)?, Vec::new()),
        };
        Ok(Unread { kind, tree, hosts })
    }

    /// The name that the resource gives itself.
    pub fn name(&self) -> Option<Arc<str>> {
        name_of(self.kind, &self.tree)
    }

    /// Reads it.
    ///
    /// # Errors
    /// As [`decode`].
    pub fn read(&self) -> Read<Piece> {
        read_whole(self.kind, &self.tree, &self.hosts)
    }
}

fn read_whole(kind: EnvoyKind, tree: &Value, hosts: &[&[u8]]) -> Read<Piece> {
    let mut programs = program::Together::default();
    let whole = |fields: &mut Fields<'_>| {
        fields.ignore(&[read::TYPE]);
        Ok(match kind {
            EnvoyKind::Cluster => Piece::Cluster(Arc::new(cluster::read(fields)?)),
            EnvoyKind::Endpoints => Piece::Endpoints(Arc::new(endpoints::read(fields, Lookup::Never)?)),
            EnvoyKind::Secret => Piece::Secret(Arc::new(tls::secret(fields)?)),
            EnvoyKind::Routes => Piece::Routes(Arc::new(route::read_apart(fields, hosts, &mut programs)?)),
            EnvoyKind::Listener => Piece::Listener(Arc::new(listener::read(fields)?)),
            EnvoyKind::Extension => Piece::Extension(Arc::new(listener::filters::extension(fields)?)),
        })
    };
    let piece = message(tree, whole)?;
    programs.add(tree).map_err(|reason| Fault::new("", reason))?;
    if piece.name().is_empty() {
        return Err(Fault::new("name", "must not be empty"));
    }
    Ok(piece)
}

/// The name that bytes give themselves which are no such message.
pub fn name_in(kind: EnvoyKind, bytes: &[u8]) -> Option<Arc<str>> {
    wire::text_in(kind.message(), name_fields(kind)[0], bytes).filter(|name| !name.is_empty()).map(Arc::from)
}

/// Where a name stands.
fn name_fields(kind: EnvoyKind) -> [&'static str; 2] {
    if kind == EnvoyKind::Endpoints { ["cluster_name", "clusterName"] } else { ["name", "name"] }
}

/// The name that a resource gives itself, also when something else is wrong with it.
fn name_of(kind: EnvoyKind, tree: &Value) -> Option<Arc<str>> {
    let field = name_fields(kind);
    field.iter().find_map(|field| tree.get(field)?.as_str()).map(Arc::from)
}
