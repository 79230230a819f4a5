//! The snapshot in memory, built by changes. It knows neither where they come from nor who reads them.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::watch;

use super::{Changes, Kindred, NodeScope, SnapshotFeed, SnapshotSource, Versioned, View};
use crate::model::{Kind, Resource};

/// Changes that are remembered by name, for readers that look every few milliseconds. One that lags further, or for which this much came at once,
/// looks at everything again. 2,048 names are about 120 KiB.
const LOG: usize = 2_048;

/// One change of the snapshot.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "short-lived, and nearly always Set")]
pub enum Change {
    /// Adds or replaces a resource.
    Set(Resource),
    /// Removes a resource; nothing happens when there is none.
    Remove(Kind, Arc<str>),
}

/// The snapshot in memory. The cost of a change is that of the changed resources, however many others there are.
#[derive(Debug)]
pub struct SnapshotStore {
    inner: RwLock<Inner>,
    signal: watch::Sender<u64>,
    log: usize,
}

#[derive(Debug, Default)]
struct Inner {
    /// What readers hold on to is copied before it changes, as far as it changes.
    view: Arc<View>,
    /// The newest changes; the last one has the number of the view's position.
    log: VecDeque<(Kind, Arc<str>)>,
}

impl Default for SnapshotStore {
    fn default() -> Self {
        SnapshotStore::new()
    }
}

impl SnapshotStore {
    /// An empty snapshot.
    pub fn new() -> SnapshotStore {
        SnapshotStore::with_log(LOG)
    }

    /// An empty snapshot that remembers `log` changes by name.
    pub fn with_log(log: usize) -> SnapshotStore {
        SnapshotStore { inner: RwLock::default(), signal: watch::Sender::new(0), log }
    }

    /// A snapshot that holds what a view holds, at its position.
    pub fn from_view(view: &View) -> SnapshotStore {
        let inner = Inner { view: Arc::new(view.clone()), log: VecDeque::new() };
        SnapshotStore { inner: RwLock::new(inner), signal: watch::Sender::new(view.position), log: LOG }
    }

    /// Makes these resources what they are in another view, untold where they are that, as one step, without a copy. When that differs, the position is
    /// that of the other view at least, where one is said. Says whether anything changed.
    pub fn take_over<'a>(
        &self,
        names: impl IntoIterator<Item = &'a (Kind, Arc<str>)>,
        from: &View,
        position: Option<u64>,
    ) -> bool {
        let mut inner = self.write();
        let before = inner.view.position;
        for (kind, name) in names {
            match from.find(*kind, name) {
                Some(versioned) => inner.share(versioned),
                None if from.is_untold(*kind, name) => inner.leave(*kind, name.clone()),
                None => inner.remove(*kind, name.clone()),
            }
            let surplus = inner.log.len().saturating_sub(self.log);
            inner.log.drain(..surplus);
        }
        let changed = inner.view.position != before;
        if changed {
            inner.advance(position.unwrap_or_default(), self.log);
            self.signal.send_replace(inner.view.position);
        }
        changed
    }

    /// Says nothing of these resources any more, until they are set or removed: who has them keeps them, in whichever version.
    pub(crate) fn leave<'a>(&self, names: impl IntoIterator<Item = &'a (Kind, Arc<str>)>) {
        let mut inner = self.write();
        names.into_iter().for_each(|(kind, name)| inner.leave(*kind, name.clone()));
        self.signal.send_replace(inner.view.position);
    }

    /// Applies changes as one step and wakes the readers. A resource equal to the present one is no change. Says whether anything
    /// changed.
    pub fn apply(&self, changes: Vec<Change>) -> bool {
        let encoded: Vec<Result<Versioned, (Kind, Arc<str>)>> = changes
            .into_iter()
            .map(|change| match change {
                Change::Set(resource) => Ok(Versioned::new(resource)),
                Change::Remove(kind, name) => Err((kind, name)),
            })
            .collect();
        self.apply_encoded(encoded)
    }

    /// The same for what is encoded already, and for names that are gone.
    pub fn apply_encoded(&self, encoded: Vec<Result<Versioned, (Kind, Arc<str>)>>) -> bool {
        let mut inner = self.write();
        let before = inner.view.position;
        for change in encoded {
            match change {
                Ok(versioned) => inner.set(versioned),
                Err((kind, name)) => inner.remove(kind, name),
            }
            let surplus = inner.log.len().saturating_sub(self.log);
            inner.log.drain(..surplus);
        }
        let position = inner.view.position;
        if position != before {
            // Under the lock, so that the signal never goes back.
            self.signal.send_replace(position);
        }
        position != before
    }

    /// Makes the snapshot hold exactly these resources; equal ones keep their version. Says whether anything changed.
    pub fn replace_all(&self, resources: Vec<Resource>) -> bool {
        let mut gone: Vec<(Kind, Arc<str>)> = Vec::new();
        {
            let keep: std::collections::HashSet<(Kind, &str)> =
                resources.iter().map(|resource| (resource.kind(), &**resource.name())).collect();
            let inner = self.read();
            for kind in Kind::ALL {
                let names = inner.view.kinds[kind.index()].iter().map(|(name, _)| name);
                gone.extend(names.filter(|name| !keep.contains(&(kind, &***name))).map(|name| (kind, name.clone())));
            }
        }
        let removals = gone.into_iter().map(|(kind, name)| Change::Remove(kind, name));
        self.apply(resources.into_iter().map(Change::Set).chain(removals).collect())
    }

    /// Number of resources of a kind, whoever may see them.
    pub fn count(&self, kind: Kind) -> usize {
        self.read().view.kinds[kind.index()].len()
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn set(&mut self, versioned: Versioned) {
        if !self.has(&versioned) {
            let (kind, name) = (versioned.resource.kind(), versioned.resource.name().clone());
            self.change(kind, name, Some(Arc::new(versioned)));
        }
    }

    fn share(&mut self, versioned: &Arc<Versioned>) {
        if !self.has(versioned) {
            self.change(versioned.resource.kind(), versioned.resource.name().clone(), Some(versioned.clone()));
        }
    }

    fn has(&self, versioned: &Versioned) -> bool {
        let present = self.view.kinds[versioned.resource.kind().index()].get(versioned.resource.name());
        present.is_some_and(|present| present.version == versioned.version)
    }

    /// Counts on to a position: the last change is said again, which is no harm, unless that would be more than the log holds.
    fn advance(&mut self, position: u64, log: usize) {
        let gap = position.saturating_sub(self.view.position);
        let Some(last) = self.log.back().cloned().filter(|_| gap > 0) else { return };
        Arc::make_mut(&mut self.view).position = position;
        match usize::try_from(gap) {
            Ok(gap) if gap < log => {
                self.log.extend(std::iter::repeat_n(last, gap));
                let surplus = self.log.len().saturating_sub(log);
                self.log.drain(..surplus);
            }
            _ => self.log.clear(),
        }
    }

    fn remove(&mut self, kind: Kind, name: Arc<str>) {
        if self.view.kinds[kind.index()].contains_key(&name) || self.view.is_untold(kind, &name) {
            self.change(kind, name, None);
        }
    }

    fn leave(&mut self, kind: Kind, name: Arc<str>) {
        if !self.view.is_untold(kind, &name) {
            self.change(kind, name.clone(), None);
            Arc::make_mut(&mut self.view).untold.insert((kind, name));
        }
    }

    fn change(&mut self, kind: Kind, name: Arc<str>, versioned: Option<Arc<Versioned>>) {
        let view = Arc::make_mut(&mut self.view);
        view.position += 1;
        if !view.untold.is_empty() {
            view.untold.remove(&(kind, name.clone()));
        }
        let kindred = &mut view.kinds[kind.index()];
        match versioned {
            Some(versioned) => kindred.insert(name.clone(), versioned),
            None => kindred.remove(&name),
        };
        self.log.push_back((kind, name));
    }
}

impl SnapshotSource for SnapshotStore {
    fn get(&self, kind: Kind, name: &str, scope: &NodeScope) -> Option<Arc<Versioned>> {
        self.read().view.get(kind, name, scope)
    }

    fn all(&self, kind: Kind) -> (u64, Kindred) {
        self.read().view.all(kind)
    }

    fn position(&self) -> u64 {
        self.read().view.position
    }

    fn is_untold(&self, kind: Kind, name: &str) -> bool {
        self.read().view.is_untold(kind, name)
    }

    fn leaves(&self, kind: Kind) -> bool {
        self.read().view.leaves(kind)
    }
}

impl SnapshotFeed for SnapshotStore {
    fn view(&self) -> Arc<View> {
        self.read().view.clone()
    }

    fn changed_between(&self, after: u64, to: u64) -> Changes {
        let inner = self.read();
        let newest = inner.view.position;
        let since = |position: u64| usize::try_from(newest.saturating_sub(position)).unwrap_or(usize::MAX);
        let (missed, late, known) = (since(after), since(to), inner.log.len());
        let names = (missed <= known && after <= to && to <= newest)
            .then(|| inner.log.range(known.saturating_sub(missed)..known.saturating_sub(late)).cloned().collect());
        Changes { position: to.min(newest), names }
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.signal.subscribe()
    }
}
