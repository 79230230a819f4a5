//! From providers to the keeper, with a word in the log about what became of it. It knows no particular provider.

use std::collections::BTreeMap;
use std::sync::Arc;

use heddle_node::drain::DrainWatch;
use heddle_node::readiness::{Guard, Readiness};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::supervise::supervise;
use super::{Batch, Provider};
use crate::state::{Keeper, SourceStatus};

/// Batches of one provider that may wait for the keeper.
const QUEUE: usize = 4;
/// Faults of one source that are written to the log at once; `GET /admin/status` has them all.
const LOGGED: usize = 20;

/// Providers at work.
#[derive(Debug)]
pub struct Providers {
    tasks: Vec<JoinHandle<()>>,
}

/// Starts `providers` on the present runtime. Each holds `readiness` back until its first report was judged. They end when `shutdown` drains.
pub fn start(
    providers: Vec<Box<dyn Provider>>,
    keeper: &Keeper,
    readiness: &Readiness,
    shutdown: &DrainWatch,
    rng: &mut fastrand::Rng,
) -> Providers {
    let mut tasks = Vec::new();
    for provider in providers {
        let guard = readiness.guard(&format!("first report of the provider `{}`", provider.name()));
        let (updates, batches) = mpsc::channel(QUEUE);
        tasks.push(tokio::spawn(supervise(provider, updates, shutdown.clone(), rng.fork())));
        tasks.push(tokio::spawn(feed(keeper.clone(), batches, guard)));
    }
    Providers { tasks }
}

impl Providers {
    /// Waits until all have ended.
    pub async fn ended(self) {
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a provider's task did not end well");
            }
        }
    }
}

/// Hands batches over until the provider or the keeper is gone.
async fn feed(keeper: Keeper, mut batches: mpsc::Receiver<Batch>, guard: Guard) {
    let mut guard = Some(guard);
    while let Some(batch) = batches.recv().await {
        let before = keeper.sources();
        let providers: Vec<Arc<str>> = batch.iter().map(|update| update.provider.clone()).collect();
        if keeper.offer(batch).await.is_err() {
            return;
        }
        report(&before, &keeper.sources(), |status| providers.contains(&status.provider));
        drop(guard.take());
    }
}

/// Says what has changed for the sources that `ours` picks.
fn report(before: &[SourceStatus], after: &[SourceStatus], ours: impl Fn(&SourceStatus) -> bool) {
    let earlier: BTreeMap<(&str, &str), &SourceStatus> =
        before.iter().map(|status| ((&*status.provider, &*status.source), status)).collect();
    for status in after.iter().filter(|status| ours(status)) {
        let old = earlier.get(&(&*status.provider, &*status.source));
        if old.is_some_and(|old| old.errors == status.errors && old.accepted_ms == status.accepted_ms) {
            continue;
        }
        let (provider, source, resources) = (&*status.provider, &*status.source, status.resources);
        if status.errors.is_empty() {
            tracing::info!(provider, source, resources, "configuration taken over");
            continue;
        }
        let faults = status.errors.len();
        tracing::error!(provider, source, faults, resources, "configuration refused; the last good version stays");
        for fault in status.errors.iter().take(LOGGED) {
            tracing::error!(provider, "{fault}");
        }
    }
}
