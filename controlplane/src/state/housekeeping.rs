//! What the configuration needs from time to time: expiry and compaction. It decides when, the keeper does it.

use std::time::Duration;

use heddle_node::drain::DrainWatch;

use super::{Keeper, Refused};

/// How late an expired resource is deleted at most.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Sweeps between two compactions: an hour. What is forgotten is at least a month old, so there is no hurry.
const SWEEPS_PER_COMPACTION: u32 = 3_600;

/// Revisions that are kept however old they are: at a hundred changes a day a whole quarter.
const KEEP_REVISIONS: u64 = 10_000;

/// Younger revisions are kept however many they are: a month of looking back.
const KEEP_MS: u64 = 30 * 24 * 3_600 * 1_000;

/// Revisions that are kept at most, however young: protects the disk from a script that writes all day
/// (at 1 KiB each about 100 MiB).
const MOST_REVISIONS: u64 = 100_000;

/// Keeps house until the drain begins or the keeper is gone.
pub async fn keep_house(keeper: Keeper, mut drain: DrainWatch) {
    let mut sweeps = 0;
    loop {
        tokio::select! {
            () = drain.draining() => return,
            () = tokio::time::sleep(SWEEP_EVERY) => {}
        }
        match keeper.sweep().await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "expired resources were deleted"),
            Err(Refused::Closed) => return,
            Err(error) => tracing::warn!(%error, "expired resources could not be deleted"),
        }
        sweeps += 1;
        if sweeps % SWEEPS_PER_COMPACTION == 1 {
            compact(&keeper).await;
        }
    }
}

async fn compact(keeper: &Keeper) {
    for (revisions, age_ms) in [(KEEP_REVISIONS, KEEP_MS), (MOST_REVISIONS, 0)] {
        match keeper.compact(revisions, age_ms).await {
            Ok(floor) => tracing::debug!(floor, "old revisions were forgotten"),
            Err(error) => tracing::warn!(%error, "old revisions could not be forgotten"),
        }
    }
}
