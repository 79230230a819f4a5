//! What the configuration needs from time to time: expiry and compaction, by whoever leads. It decides when, the keeper does it.

use std::time::Duration;

use heddle_node::drain::DrainWatch;

use super::{Keeper, Refused};
use crate::leader::Leader;

/// How late an expired resource is deleted at most.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Sweeps between two compactions: an hour. What is forgotten is at least a month old, so there is no hurry.
const SWEEPS_PER_COMPACTION: u32 = 3_600;

/// Revisions that are kept at most, however young, unless more are asked for by number: protects the disk from a script
/// that writes all day (at 1 KiB each about 100 MiB).
const MOST_REVISIONS: u64 = 100_000;

/// Keeps house until the drain begins or the keeper is gone: revisions stay when they are among the newest
/// `keep_revisions` or younger than `keep_for`.
pub async fn keep_house(keeper: Keeper, (keep_revisions, keep_for): (u64, Duration), leader: Leader, mut drain: DrainWatch) {
    let mut sweeps = 0;
    loop {
        tokio::select! {
            () = drain.draining() => return,
            () = tokio::time::sleep(SWEEP_EVERY) => {}
        }
        match keeper.sweep(leader.leads()).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "expired resources were deleted"),
            Err(Refused::Closed) => return,
            Err(error) => tracing::warn!(%error, "expired resources could not be deleted"),
        }
        sweeps += 1;
        if sweeps % SWEEPS_PER_COMPACTION == 1 && leader.leads() {
            compact(&keeper, keep_revisions, keep_for).await;
        }
    }
}

async fn compact(keeper: &Keeper, keep_revisions: u64, keep_for: Duration) {
    let keep_ms = u64::try_from(keep_for.as_millis()).unwrap_or(u64::MAX);
    for (revisions, age_ms) in [(keep_revisions, keep_ms), (keep_revisions.max(MOST_REVISIONS), 0)] {
        match keeper.compact(revisions, age_ms).await {
            Ok(floor) => tracing::debug!(floor, "old revisions were forgotten"),
            Err(error) => tracing::warn!(%error, "old revisions could not be forgotten"),
        }
    }
}
