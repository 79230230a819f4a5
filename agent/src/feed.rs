//! From discovery to tables: takes batches of typed updates, compiles them, swaps the tables once per batch and says what cannot be used.

use std::sync::Arc;

use heddle_xds::client::{Batch, Origin};
use heddle_xds::codec::InvalidResource;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use crate::tables::{Compiler, Tables};

/// Feeds a compiler until discovery ends.
pub async fn run(
    mut batches: mpsc::Receiver<Batch>,
    compiler: Arc<Mutex<Compiler>>,
    tables: watch::Sender<Arc<Tables>>,
    on_tables: impl Fn(&Arc<Tables>),
) {
    while let Some(batch) = batches.recv().await {
        let (rejected, next) = take(&mut compiler.lock(), &batch);
        for one in &rejected {
            tracing::warn!(kind = one.kind.as_str(), name = %one.name, field = %one.field, reason = %one.reason, "a resource is refused; its last good version stays");
        }
        if batch.origin == Origin::LastGood {
            tracing::info!("running on the last good configuration from disk until a control plane answers");
        }
        on_tables(&next);
        tables.send_replace(next);
        batch.reject(rejected);
    }
}

/// Compiles a batch.
fn take(compiler: &mut Compiler, batch: &Batch) -> (Vec<InvalidResource>, Arc<Tables>) {
    let mut rejected = Vec::new();
    for update in &batch.updates {
        for set in &update.set {
            rejected.extend(compiler.set(set.resource.clone()).err());
        }
        for name in &update.removed {
            compiler.remove(update.kind, name);
        }
    }
    (rejected, compiler.tables())
}
