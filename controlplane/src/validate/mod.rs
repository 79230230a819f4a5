//! Judges whole configurations: each changed resource by its model and plugins, then what it refers to and what must be unique. It neither stores nor translates.

mod references;
mod unique;

use std::sync::Arc;

use heddle_xds::catalog::Catalog;

use crate::model::{Fault, Key, ResourceKind, validate};
use crate::state::{State, Validator};

/// The rules of a configuration.
#[derive(Clone)]
pub struct Rules {
    catalog: Arc<dyn Catalog>,
}

impl Rules {
    /// Rules for a data plane that runs the plugins of `catalog`.
    pub fn new(catalog: Arc<dyn Catalog>) -> Rules {
        Rules { catalog }
    }
}

impl Validator for Rules {
    fn check(&self, candidate: &State, changed: &[Key]) -> Vec<(Key, Fault)> {
        let mut faults = Vec::new();
        let mut removed = Vec::new();
        for key in changed {
            match candidate.get(key) {
                Some(stored) => {
                    let found = validate(key.kind, &key.id, &stored.value, self.catalog.as_ref()).err().unwrap_or_default();
                    let missing = references::missing(candidate, key, &stored.value);
                    faults.extend(found.into_iter().chain(missing).map(|fault| (key.clone(), fault)));
                }
                None => removed.push(key),
            }
        }
        if !removed.is_empty() {
            faults.extend(references::still_used(candidate, &removed));
        }
        let of_kind = |kinds: &[ResourceKind]| changed.iter().filter(|key| kinds.contains(&key.kind)).collect::<Vec<_>>();
        faults.extend(unique::consumer_keys(
            candidate,
            &of_kind(&[ResourceKind::Consumer, ResourceKind::Credential]),
            self.catalog.as_ref(),
        ));
        faults.extend(unique::usernames(candidate, &of_kind(&[ResourceKind::Consumer])));
        faults.extend(unique::global_plugins(candidate, &of_kind(&[ResourceKind::GlobalRule])));
        faults.extend(unique::mesh_services(candidate, &of_kind(&[ResourceKind::MeshService])));
        faults.extend(unique::mesh_addresses(candidate, &of_kind(&[ResourceKind::MeshService])));
        faults.extend(unique::peer_authentications(candidate, &of_kind(&[ResourceKind::PeerAuthentication])));
        faults.extend(unique::addresses(candidate, &of_kind(&[ResourceKind::Listener])));
        faults
    }
}

#[cfg(test)]
mod tests;
