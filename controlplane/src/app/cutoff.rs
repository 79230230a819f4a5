//! A control plane that does not see its store while nodes still see it: it sends them to others, and serves those who find no other one. It knows neither
//! lease nor stream.

use std::collections::HashSet;
use std::sync::Arc;

use heddle_xds::server::Elsewhere;
use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::Status;

/// Nodes of which is remembered that they were sent elsewhere; further ones are served at once.
const MOST: usize = 50_000;

/// Whether this control plane is cut off, and whom it has told so. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct CutOff(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// How often it was cut off.
    times: watch::Sender<u64>,
    /// Nodes that were sent elsewhere, by id; `None`: it sees its store.
    sent: Mutex<Option<HashSet<Arc<str>>>>,
}

impl CutOff {
    pub(super) fn new() -> CutOff {
        CutOff(Arc::new(Inner { times: watch::Sender::new(0), sent: Mutex::new(None) }))
    }

    /// Ends the streams of all nodes that are connected now, which are these. `false`: it was cut off already.
    pub(super) fn begin(&self, connected: impl IntoIterator<Item = Arc<str>>) -> bool {
        let mut sent = self.0.sent.lock();
        if sent.is_some() {
            return false;
        }
        *sent = Some(connected.into_iter().take(MOST).collect());
        self.0.times.send_modify(|times| *times += 1);
        true
    }

    /// The store is seen again. `false`: it always was.
    pub(super) fn end(&self) -> bool {
        self.0.sent.lock().take().is_some()
    }

    /// Whether a node is served now. Whoever comes a second time has found no other control plane: what is known is better than nothing.
    ///
    /// # Errors
    /// It is to go to another one.
    pub(super) fn admit(&self, node: &Arc<str>) -> Result<(), Status> {
        let mut sent = self.0.sent.lock();
        if sent.as_mut().is_some_and(|sent| sent.len() < MOST && sent.insert(node.clone())) {
            return Err(Status::unavailable(
                "this control plane is cut off from its store; connect to another one, or come again",
            ));
        }
        Ok(())
    }

    /// For streams, which end when it is cut off.
    pub(super) fn elsewhere(&self) -> Elsewhere {
        self.0.times.subscribe()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn who_comes_back_is_served_and_who_comes_first_is_sent_on() {
        let cut = CutOff::new();
        let (old, new): (Arc<str>, Arc<str>) = ("old".into(), "new".into());
        let mut streams = cut.elsewhere();
        assert!(cut.admit(&old).is_ok() && cut.admit(&new).is_ok() && !cut.end());
        assert!(cut.begin([old.clone()]) && streams.has_changed().unwrap());
        streams.mark_unchanged();
        assert!(!cut.begin([]) && !streams.has_changed().unwrap(), "streams that came since stay");
        assert!(cut.admit(&old).is_ok(), "its stream was ended, and it found nobody else");
        assert_eq!(cut.admit(&new).unwrap_err().code(), tonic::Code::Unavailable);
        assert!(cut.admit(&new).is_ok());
        assert!(cut.end() && cut.admit(&"third".into()).is_ok());
        assert!(cut.begin([]) && cut.admit(&new).is_err(), "another time is another time");
    }
}
