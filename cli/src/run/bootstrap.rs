//! `heddle agent --envoy-bootstrap FILE`: what an Envoy starts with, taken over into our settings. It starts nothing.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use heddle_agent::identity;
use heddle_agent::settings::{ControlPlaneAddress, Served};
use heddle_node::clock;
use heddle_node::config::{Document, Expansion, Format};
use heddle_xds::client::envoy::{EnvoySource, Follower, Who};
use heddle_xds::dialect::envoy::decode::bootstrap::{self, Bootstrap, BootstrapNode, Follows};
use heddle_xds::dialect::envoy::decode::read::Fault;
use heddle_xds::dialect::envoy::decode::statics;
use heddle_xds::link::{Connector, LinkError};
use heddle_xds::protocol::Dialect;

use crate::configuration::Configuration;

/// Bytes of a bootstrap, and of each file that it names.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// Why a bootstrap is of no use.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The file cannot be read.
    #[error("{path}: {source}; give the bootstrap of an Envoy, as YAML or JSON")]
    Unreadable {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is no YAML or JSON, or something in it cannot be done; one a line.
    #[error("{0}")]
    Mistakes(String),
}

/// What a bootstrap adds to the settings.
pub struct Taken {
    /// What there is, and what is asked for.
    pub source: EnvoySource,
    /// The way to the control plane, where its cluster says that it is over TLS.
    pub connector: Option<Connector>,
}

/// Reads a bootstrap, and what it says of this node and its control plane goes before what the settings say.
///
/// # Errors
/// Everything that is wrong, each with file, line, column and path.
pub fn take(path: &Path, configuration: &mut Configuration) -> Result<Taken, BootstrapError> {
    let file = path.display().to_string();
    let text = read_file(path).map_err(|source| BootstrapError::Unreadable { path: file.clone(), source })?;
    let format = Format::of(path).unwrap_or(Format::Yaml);
    let document = Document::parse(&file, &text, format, Expansion::Off)
        .map_err(|mistakes| BootstrapError::Mistakes(mistakes.to_string()))?;
    let told = |faults: Vec<Fault>| {
        let line = |fault: &Fault| {
            let place = document.locate(&without_names(&fault.field));
            let field = if fault.field.is_empty() { String::new() } else { format!("{}: ", fault.field) };
            format!("{file}:{}:{}: {field}{}", place.line, place.column, fault.reason)
        };
        BootstrapError::Mistakes(faults.iter().map(line).collect::<Vec<_>>().join("\n"))
    };
    let mut tree = document.to_json();
    let near = |name: &str| read_file(Path::new(name)).map_err(|error| format!("{name}: {error}"));
    bootstrap::inline_files(&mut tree, &near).map_err(|fault| told(vec![fault]))?;
    let whole = bootstrap::read(&tree).map_err(told)?;
    let faults = statics::faults(&whole);
    if !faults.is_empty() {
        return Err(told(faults));
    }
    let Bootstrap { node, admin, statics, follows } = whole;
    if let Some(admin) = admin {
        configuration.agent.admin = admin;
    }
    let who = become_who(node, configuration);
    let whole = follows.as_ref().map(|follows| follows.kinds.iter().copied().collect()).unwrap_or_default();
    let source = EnvoySource { statics: statics.into(), whole, who };
    // What cannot stand beside each other is told now and not when it is too late.
    Follower::new(Dialect::Delta, BTreeSet::new(), &source.statics, clock::now())
        .map_err(|((kind, name), fault)| told(vec![fault.inside(&format!("{kind} {name}"))]))?;
    let connector = follows.map(|follows| follow(follows, configuration)).transpose();
    let connector = connector.map_err(|error| BootstrapError::Mistakes(format!("{file}: {error}")))?;
    Ok(Taken { source, connector: connector.flatten() })
}

/// A file, no longer than a bootstrap and what it names may be.
fn read_file(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(std::io::Error::other(format!("has more than {MAX_FILE} bytes")));
    }
    Ok(bytes)
}

/// Takes over who the node is.
fn become_who(said: BootstrapNode, configuration: &mut Configuration) -> Who {
    let node = &mut configuration.node.node;
    if let Some(id) = said.id {
        node.id = id.to_string();
    }
    node.zone = said.zone.map(|zone| zone.to_string()).or_else(|| node.zone.take());
    Who {
        cluster: said.cluster.unwrap_or_else(|| configuration.agent.mesh.role.as_str().into()),
        region: said.region.unwrap_or_default(),
        sub_zone: said.sub_zone.unwrap_or_default(),
        metadata: said.metadata,
    }
}

/// The control plane of a bootstrap stands instead of that of the settings; the way to it over TLS, where it says so.
fn follow(follows: Follows, configuration: &mut Configuration) -> Result<Option<Connector>, LinkError> {
    let access = &mut configuration.agent.control_plane;
    access.dialect = if follows.delta { Served::Envoy } else { Served::EnvoySotw };
    let connector = follows.tls.as_ref().map(|named| identity::by_name(&follows.authorities, named));
    // Who we are in the mesh is no matter of this control plane: where it is reached in clear or by a name, no identity is asked of it.
    let mut addresses = follows.authorities.into_iter().map(|authority| ControlPlaneAddress { tls: false, authority });
    if let Some(first) = addresses.next() {
        access.address = first;
    }
    access.others = addresses.collect();
    connector.transpose()
}

/// A path without the names of resources that stand in it for people.
fn without_names(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut depth = 0_usize;
    for c in path.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ' ' => {}
            c if depth == 0 => out.push(c),
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_of_resources_are_no_part_of_a_place() {
        assert_eq!(super::without_names("static_resources.clusters[0] (a).lb_policy"), "static_resources.clusters[0].lb_policy");
    }
}
