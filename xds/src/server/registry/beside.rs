//! What the streams of one node have to tell each other: which clusters it has taken, and how it stands to what it was told. It knows no protocol.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::server::refused::Stands;
use crate::snapshot::NodeScope;

/// Streams of a node that tell each other how it stands: those for five types, and as many that have not ended yet. More are of nodes that say the same id.
const MOST_TOGETHER: usize = 16;

/// Whose streams they are. The certificate is the same, or nobody could tell.
pub(super) type Owner = (Arc<str>, Arc<str>, Arc<str>);

pub(super) fn owner(scope: &NodeScope) -> Owner {
    (scope.id.clone(), scope.namespace.clone(), scope.service.clone())
}

/// What other streams of its node have left for a stream.
#[derive(Debug, Default)]
pub(in crate::server) struct Word {
    /// Clusters that the node has taken.
    pub(in crate::server) clusters: BTreeSet<Arc<str>>,
    /// How they all stand now, where that has changed.
    pub(in crate::server) stands: Option<Box<Stands>>,
}

/// Where they leave it.
#[derive(Debug, Default)]
pub(super) struct Beside {
    word: Mutex<Word>,
    bell: Notify,
}

impl Beside {
    fn lock(&self) -> MutexGuard<'_, Word> {
        // Nothing can fail while this is held.
        self.word.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is something; nothing is lost when it is not looked at for long, and nothing is there twice.
    pub(super) async fn look(&self) -> Word {
        self.bell.notified().await;
        std::mem::take(&mut *self.lock())
    }
}

/// A stream among those of its node.
#[derive(Debug)]
struct Stream {
    beside: Arc<Beside>,
    /// Where it looks: positions are those of that place.
    stage: usize,
    stands: Stands,
    /// What it knows of the others.
    knows: Stands,
}

/// All streams of a node.
#[derive(Debug, Default)]
struct Streams {
    open: BTreeMap<u64, Stream>,
    /// What stays of those that have ended.
    ended: Stands,
    /// They are too many, and know nothing of each other.
    is_crowd: bool,
}

impl Streams {
    /// Tells each of the others what is new to it.
    fn tell(&mut self) {
        let was_crowd = std::mem::replace(&mut self.is_crowd, self.open.len() > MOST_TOGETHER);
        if self.is_crowd && was_crowd {
            return;
        }
        let known = self.open.iter().filter(|_| !self.is_crowd);
        let all: Vec<(u64, usize, Stands)> = known.map(|(id, stream)| (*id, stream.stage, stream.stands.clone())).collect();
        for (id, stream) in &mut self.open {
            let mut others = if self.is_crowd { Stands::default() } else { self.ended.clone() };
            // Positions of another place mean nothing; what is refused there is refused.
            for (_, stage, stands) in all.iter().filter(|(other, stage, _)| other != id && *stage != 0) {
                match *stage == stream.stage {
                    true => others.add(stands),
                    false => others.add(&stands.clone().ended()),
                }
            }
            if others != stream.knows {
                stream.knows = others.clone();
                stream.beside.lock().stands = Some(Box::new(others));
                stream.beside.bell.notify_one();
            }
        }
    }
}

/// The streams of all nodes.
#[derive(Debug, Default)]
pub(super) struct Company(HashMap<Owner, Streams>);

impl Company {
    /// A stream has begun.
    pub(super) fn enter(&mut self, id: u64, owner: Owner) -> Arc<Beside> {
        let beside: Arc<Beside> = Arc::default();
        let stream = Stream { beside: beside.clone(), stage: 0, stands: Stands::default(), knows: Stands::default() };
        self.0.entry(owner).or_default().open.insert(id, stream);
        beside
    }

    /// A stream has ended.
    pub(super) fn leave(&mut self, id: u64, owner: &Owner) {
        let Some(streams) = self.0.get_mut(owner) else { return };
        let left = streams.open.remove(&id);
        if streams.open.is_empty() {
            self.0.remove(owner);
            return;
        }
        let mut ended = left.map(|stream| stream.stands).unwrap_or_default().ended();
        streams.open.values().for_each(|stream| ended.leave_to(&stream.stands));
        streams.ended.add(&ended);
        streams.tell();
    }

    /// How a stream stands now that looks there.
    pub(super) fn note(&mut self, id: u64, owner: &Owner, (stage, stands): (usize, &Stands)) {
        let Some(streams) = self.0.get_mut(owner) else { return };
        let Some(stream) = streams.open.get_mut(&id) else { return };
        (stream.stage, stream.stands) = (stage, stands.clone());
        streams.ended.leave_to(stands);
        streams.tell();
    }

    /// Its node has taken clusters by a stream: the others hear of it.
    pub(super) fn taken(&self, id: u64, owner: &Owner, clusters: &[Arc<str>]) {
        let open = self.0.get(owner).into_iter().flat_map(|streams| &streams.open);
        for (_, stream) in open.filter(|(other, _)| **other != id) {
            stream.beside.lock().clusters.extend(clusters.iter().cloned());
            stream.beside.bell.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::model::Kind;
    use crate::server::refused::Leads;

    #[test]
    fn a_crowd_that_says_the_same_id_is_not_taken_for_one_node() {
        let (mut company, owner) = (Company::default(), owner(&NodeScope::default()));
        let routes = Stands::new(7, [(Kind::Route, Leads::Refused, true)].into_iter());
        let first = company.enter(0, owner.clone());
        company.note(0, &owner, (1, &Stands::default()));
        let heard = || first.lock().stands.take().map(|stands| *stands);
        company.enter(1, owner.clone());
        company.note(1, &owner, (1, &routes));
        assert_eq!(heard(), Some(routes.clone()));
        for id in 2..100 {
            company.enter(id, owner.clone());
            company.note(id, &owner, (1, &Stands::default()));
        }
        assert_eq!(heard(), Some(Stands::default()));
        company.note(1, &owner, (1, &Stands::new(8, [(Kind::Route, Leads::Refused, true)].into_iter())));
        assert_eq!(heard(), None);
        (2..100).for_each(|id| company.leave(id, &owner));
        assert_eq!(heard().map(|stands| stands.position()), Some(8), "it may be one again");
        (0..2).for_each(|id| company.leave(id, &owner));
        assert!(company.0.is_empty());
    }
}
