//! How listeners of a bootstrap are told from those of a control plane on disk: what a bootstrap no longer has must not come back from there. It reads no file.

use std::sync::Arc;

use super::{Owner, World, compose};
use crate::client::Holdings;
use crate::client::envoy::compose::Shelf;
use crate::codec::encode_body;
use crate::dialect::envoy::decode::piece::Door;
use crate::dialect::envoy::kind::EnvoyKind;
use crate::model::Kind;
use crate::snapshot::{hash_of, written};

/// Between a version and the mark of a listener.
const OF_BOOTSTRAP: &str = " of the bootstrap's ";

impl World {
    /// Notes that a listener is of the bootstrap. Its mark is another one when anything in it changes, key material included.
    pub(in crate::client::envoy) fn mark(&mut self, door: &Door) {
        let shelf = Shelf { table: &|_| None, extension: &|_| None, connect: &|_| None };
        let made = compose::listener(door, &shelf).map(|(resources, _)| resources).unwrap_or_default();
        let mut all = format!("{door:?}").into_bytes();
        made.iter().for_each(|resource| all.extend_from_slice(&encode_body(resource)));
        self.marks.insert(door.listener.name.clone(), written(hash_of(&all)));
    }

    /// A version as it is kept on disk.
    pub(super) fn marked(&self, owner: &Owner, version: &Arc<str>) -> Arc<str> {
        match self.marks.get(&owner.1).filter(|_| owner.0 == EnvoyKind::Listener) {
            Some(mark) => format!("{version}{OF_BOOTSTRAP}{mark}").into(),
            None => version.clone(),
        }
    }

    /// Drops what was of listeners that do not stand in the bootstrap, or not as they did.
    pub(in crate::client::envoy) fn sift(&self, holdings: &mut Holdings) {
        for kind in Kind::ALL {
            let is_gone = |version: &str| {
                version.split_once(OF_BOOTSTRAP).is_some_and(|(_, mark)| !self.marks.values().any(|known| **known == *mark))
            };
            let gone: Vec<Arc<str>> =
                holdings.list(kind).filter(|(_, held)| is_gone(&held.version)).map(|(name, _)| name.clone()).collect();
            gone.iter().for_each(|name| drop(holdings.remove(kind, name)));
        }
    }
}
