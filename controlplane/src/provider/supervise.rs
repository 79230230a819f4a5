//! Keeps a provider running. It does not know what the provider does.

use std::time::Duration;

use heddle_node::clock;
use heddle_node::drain::DrainWatch;
use tokio::sync::mpsc;

use super::{Batch, Provider};

/// First pause after a failure.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause: a provider that is back is noticed within this.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A run that lasted this long was a success; the next failure starts with the first pause again.
const STABLE: Duration = Duration::from_secs(60);

/// Runs `provider` until it ends by itself or `shutdown` drains, again and again after failures.
pub(super) async fn supervise(
    mut provider: Box<dyn Provider>,
    updates: mpsc::Sender<Batch>,
    mut shutdown: DrainWatch,
    mut rng: fastrand::Rng,
) {
    let mut failures = 0;
    while !shutdown.is_draining() && !updates.is_closed() {
        let begun = clock::now();
        let Err(error) = provider.run(updates.clone(), shutdown.clone()).await else { return };
        if clock::now().duration_since(begun) >= STABLE {
            failures = 0;
        }
        let wait = pause(failures, &mut rng);
        failures += 1;
        tracing::error!(provider = provider.name(), %error, ?wait, "a provider failed and is started again; what it reported stays");
        tokio::select! {
            () = shutdown.draining() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Exponential with the upper half random, so that many nodes do not come back at once.
fn pause(failures: u32, rng: &mut fastrand::Rng) -> Duration {
    let whole = FIRST_PAUSE.saturating_mul(1 << failures.min(16)).min(LONGEST_PAUSE);
    whole.mul_f64(0.5 + rng.f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound() {
        let mut rng = fastrand::Rng::with_seed(7);
        for failures in 0..40 {
            let wait = pause(failures, &mut rng);
            let whole = FIRST_PAUSE.saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE);
            assert!(wait >= whole / 2 && wait <= whole, "{failures}: {wait:?}");
        }
    }
}
