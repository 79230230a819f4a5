//! Several control planes of which one is enough: which is tried first, and how the connections of one agent stay together. It opens nothing itself.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tonic::transport::Channel;

use super::{Connector, LinkError, bad};

/// Several ways, of which one is enough.
#[derive(Debug)]
pub(super) struct Several {
    ways: Vec<Connector>,
    dice: Mutex<fastrand::Rng>,
    /// Which was taken last.
    last: watch::Sender<Option<usize>>,
}

impl Several {
    pub(super) fn new(ways: Vec<Connector>, dice: fastrand::Rng) -> Several {
        Several { ways, dice: Mutex::new(dice), last: watch::Sender::new(None) }
    }

    /// Nothing can fail while this is held, so that it is never half changed.
    fn dice(&self) -> MutexGuard<'_, fastrand::Rng> {
        self.dice.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which was taken last.
    pub(super) fn last(&self) -> Option<usize> {
        *self.last.borrow()
    }

    /// All ways by chance, so that a fleet spreads, but the one that was taken last: that one comes `first`, or at the end.
    fn order(&self, first: bool) -> Vec<usize> {
        let last = self.last();
        let mut order: Vec<usize> = (0..self.ways.len()).filter(|way| Some(*way) != last).collect();
        self.dice().shuffle(&mut order);
        order.splice(if first { 0..0 } else { order.len()..order.len() }, last);
        order
    }

    async fn take(&self, order: Vec<usize>) -> Result<(usize, Channel), LinkError> {
        let mut result = Err(bad(""));
        for at in order {
            result = Box::pin(self.ways[at].connect()).await.map(|channel| (at, channel));
            if result.is_ok() {
                break;
            }
        }
        result
    }

    /// To another one than the last time, for that connection was lost, as long as another one answers.
    pub(super) async fn connect(&self) -> Result<Channel, LinkError> {
        let (at, channel) = self.take(self.order(false)).await?;
        self.last.send_replace(Some(at));
        Ok(channel)
    }
}

/// What goes beside a connection to one of several.
#[derive(Debug)]
pub(super) struct Beside {
    several: Arc<Several>,
    /// Where the last connection went.
    at: Mutex<Option<usize>>,
}

impl Beside {
    pub(super) fn new(several: Arc<Several>) -> Beside {
        Beside { several, at: Mutex::new(None) }
    }

    pub(super) async fn connect(&self) -> Result<Channel, LinkError> {
        let (at, channel) = self.several.take(self.several.order(true)).await?;
        *self.at.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
        Ok(channel)
    }

    /// Ready when the other connection goes elsewhere by now.
    pub(super) async fn strayed(&self) {
        let at = *self.at.lock().unwrap_or_else(PoisonError::into_inner);
        let mut last = self.several.last.subscribe();
        let elsewhere = last.wait_for(|last| last.is_some() && *last != at).await.is_ok();
        if !elsewhere {
            std::future::pending().await
        }
    }
}
