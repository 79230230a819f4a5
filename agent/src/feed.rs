//! From discovery to tables: takes batches of typed updates, compiles them, swaps the tables once per batch and says what cannot be used.

use std::collections::BTreeSet;
use std::sync::Arc;

use heddle_xds::client::{Batch, Origin, TypedUpdate};
use heddle_xds::codec::InvalidResource;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use crate::secrets::Kept;
use crate::tables::{Compiler, Tables};

/// Feeds a compiler until discovery ends, and compiles anew what refers to secrets that have changed.
pub async fn run(
    mut batches: mpsc::Receiver<Batch>,
    compiler: Arc<Mutex<Compiler>>,
    mut secrets: Kept,
    tables: watch::Sender<Arc<Tables>>,
    on_tables: impl Fn(&Arc<Tables>),
) {
    loop {
        let batch = tokio::select! {
            batch = batches.recv() => batch,
            Some(changed) = secrets.changed() => {
                let next = anew(&mut compiler.lock(), &changed);
                on_tables(&next);
                tables.send_replace(next);
                continue;
            }
        };
        let Some(mut batch) = batch else { break };
        let wanted = wanted(&compiler.lock(), &batch);
        secrets.ready(wanted).await;
        let (rejected, next) = take(&mut compiler.lock(), std::mem::take(&mut batch.views));
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

/// The secrets that a batch refers to.
fn wanted(compiler: &Compiler, batch: &Batch) -> BTreeSet<String> {
    batch.updates().flat_map(|update| &update.set).flat_map(|set| compiler.wants(&set.resource)).collect()
}

/// Compiles what refers to these.
fn anew(compiler: &mut Compiler, changed: &BTreeSet<String>) -> Arc<Tables> {
    for one in compiler.referred_changed(changed) {
        tracing::warn!(kind = one.kind.as_str(), name = %one.name, field = %one.field, reason = %one.reason, "a resource cannot be used with its new secret; its last good version stays");
    }
    compiler.tables()
}

/// Compiles the views of a batch.
fn take(compiler: &mut Compiler, views: Vec<Vec<TypedUpdate>>) -> (Vec<InvalidResource>, Arc<Tables>) {
    let mut rejected = Vec::new();
    for view in views {
        for update in view {
            for set in update.set {
                rejected.extend(compiler.set(set.resource).err());
            }
            for name in update.removed {
                compiler.remove(update.kind, &name);
            }
        }
        compiler.end_view();
    }
    (rejected, compiler.tables())
}
