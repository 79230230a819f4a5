//! What outlives a change of tables: run-time state of filters, and filters themselves. What is used again is kept, what nobody holds any more goes.

mod shared;

use std::any::Any;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::{Filter, Uses};
use shared::Shared;
pub(super) use shared::{Layer, Source};

/// Run-time state by key. Written only while tables are compiled, never on the request path.
#[derive(Default)]
pub struct Keep {
    entries: Mutex<HashMap<String, Weak<dyn Any + Send + Sync>>>,
    filters: Shared,
    folder: Option<PathBuf>,
    uses: Arc<Uses>,
}

impl Keep {
    /// One whose filters may keep files below this folder, which outlive the process.
    pub fn below(folder: PathBuf) -> Keep {
        Keep { folder: Some(folder), ..Keep::default() }
    }

    /// Where filters may keep files.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// What has been let through of limits that the fleet shares.
    pub fn uses(&self) -> &Arc<Uses> {
        &self.uses
    }

    /// The state under `key`, made by `make` when nobody holds one of this type. Choose the key so that a changed configuration that must start
    /// afresh has another one.
    pub fn get_or<T: Any + Send + Sync>(&self, key: &str, make: impl FnOnce() -> T) -> Arc<T> {
        let mut entries = self.entries.lock();
        let held = entries.get(key).and_then(Weak::upgrade).and_then(|state| state.downcast::<T>().ok());
        if let Some(state) = held {
            return state;
        }
        let state = Arc::new(make());
        let weak: Weak<dyn Any + Send + Sync> = Arc::downgrade(&(state.clone() as Arc<dyn Any + Send + Sync>));
        entries.insert(key.to_owned(), weak);
        state
    }

    /// The filter that was compiled of this, while some tables hold it.
    pub(super) fn filter(&self, source: &Source) -> Option<Arc<dyn Filter>> {
        self.filters.get(source)
    }

    /// Takes note of a filter that may serve all places with an equal configuration.
    pub(super) fn share(&self, source: Source, filter: &Arc<dyn Filter>) {
        self.filters.put(source, filter);
    }

    /// How many filters may serve further places, some of which may have gone since the last [`Keep::sweep`].
    #[cfg(test)]
    pub(crate) fn shared(&self) -> usize {
        self.filters.len()
    }

    /// Forgets what nobody holds any more; called after tables were swapped.
    pub fn sweep(&self) {
        self.entries.lock().retain(|_, state| state.strong_count() > 0);
        self.filters.sweep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_is_shared_while_held_and_made_anew_afterwards() {
        let keep = Keep::default();
        let first = keep.get_or("k", || 1u32);
        assert_eq!(*keep.get_or("k", || 2u32), 1);
        drop(first);
        keep.sweep();
        assert_eq!(*keep.get_or("k", || 3u32), 3);
    }
}
