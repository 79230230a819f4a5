//! Listeners that cannot be opened: told once, shown by `/ready` while the node starts, forgotten when they open. It opens nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use heddle_node::readiness::{Guard, Readiness};
use parking_lot::Mutex;

use crate::listener::ListenFault;

/// What stands between the workers and their listeners. Clones share it.
#[derive(Clone)]
pub(super) struct Troubles {
    readiness: Readiness,
    open: Arc<Mutex<BTreeMap<Arc<str>, Trouble>>>,
}

struct Trouble {
    text: String,
    workers: BTreeSet<usize>,
    /// Only while the node starts: a listener that is added later and cannot be opened is no reason to lose the traffic of the others.
    pending: Option<Guard>,
}

impl Troubles {
    /// None yet.
    pub(super) fn new(readiness: Readiness) -> Troubles {
        Troubles { readiness, open: Arc::default() }
    }

    /// Takes what one worker could not open; what it does not name any more is over for it.
    pub(super) fn report(&self, worker: usize, faults: &[ListenFault], starting: bool) {
        let mut open = self.open.lock();
        open.retain(|name, trouble| {
            let still = faults.iter().any(|fault| fault.name == *name);
            let over = !still && trouble.workers.remove(&worker) && trouble.workers.is_empty();
            if over {
                tracing::info!(listener = %name, "the listener is open, or not wanted any more");
            }
            !over
        });
        for fault in faults {
            let text = fault.to_string();
            match open.get_mut(&fault.name) {
                Some(trouble) if trouble.text == text => {
                    trouble.workers.insert(worker);
                }
                _ => {
                    tracing::error!("{text}; free the address or change it, it is tried again every second");
                    let awaited = starting || open.get(&fault.name).is_some_and(|before| before.pending.is_some());
                    let pending = awaited.then(|| self.readiness.guard(&text));
                    open.insert(fault.name.clone(), Trouble { text, workers: BTreeSet::from([worker]), pending });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn fault(name: &str) -> ListenFault {
        let error = std::io::Error::from(std::io::ErrorKind::AddrInUse);
        ListenFault { name: name.into(), address: "127.0.0.1:9080".parse().unwrap(), error }
    }

    #[test]
    fn a_listener_is_pending_once_until_the_last_worker_has_it() {
        let readiness = Readiness::new();
        let troubles = Troubles::new(readiness.clone());
        troubles.report(0, &[fault("http@config")], true);
        troubles.report(1, &[fault("http@config")], true);
        let verdict = readiness.verdict().to_string();
        assert_eq!(verdict, "pending: listener http@config: cannot listen on 127.0.0.1:9080: address in use");
        troubles.report(0, &[], false);
        assert!(!readiness.verdict().is_ready(), "worker 1 still waits");
        troubles.report(1, &[], false);
        assert!(readiness.verdict().is_ready());
    }

    #[test]
    fn a_listener_that_is_added_later_does_not_make_the_node_unready() {
        let readiness = Readiness::new();
        let troubles = Troubles::new(readiness.clone());
        troubles.report(0, &[fault("new")], false);
        assert!(readiness.verdict().is_ready());
    }
}
