//! How the load that a fleet tells of shifts the weights of endpoints: pure arithmetic over hints, none of which can move a weight far.

/// Least that is left of a weight and most that it becomes, in 1/256: half and one and a half.
const BOUNDS: (f64, f64) = (128.0, 384.0);
/// Weights shift in steps of 1/256 so large: a difference of less than a quarter in load is none.
const STEP: f64 = 32.0;
/// What one member says counts up to so many times the median of what all say of the endpoint …
const OF_MEDIAN: u64 = 4;
/// … and up to this in any case, as medians of quiet fleets are zero.
const ALWAYS: u64 = 16;

/// Requests in flight at one endpoint, from what this node knows of itself and what each other member says. One that lies counts as much as a few others,
/// however many it claims.
pub fn joint_load(own: u32, others: &[u32]) -> u64 {
    let mut all: Vec<u64> = others.iter().copied().chain([own]).map(u64::from).collect();
    all.sort_unstable();
    let median = all.get((all.len() - 1) / 2).copied().unwrap_or_default();
    let most = (median * OF_MEDIAN).max(ALWAYS);
    u64::from(own) + others.iter().map(|load| u64::from(*load).min(most)).sum::<u64>()
}

/// What share of its weight each endpoint gets, in 1/256, from its weight and its joint load.
///
/// Load is compared by weight: who has `r` times the mean gets `1 - (r - 1) / 2` of its weight. All members shift at once and on the same news, so each
/// corrects half of the difference: with more they would swing. Whatever is said, an endpoint keeps half of its weight and gains half at most.
pub fn tilts(endpoints: &[(u32, u64)]) -> Vec<u32> {
    let counted = || endpoints.iter().filter(|(weight, _)| *weight > 0);
    let (weights, loads) =
        counted().fold((0.0, 0.0), |(weights, loads), (weight, load)| (weights + f64::from(*weight), loads + *load as f64));
    let tilt = |(weight, load): &(u32, u64)| {
        if *weight == 0 || loads <= 0.0 {
            return 256;
        }
        let relative = *load as f64 / f64::from(*weight) / (loads / weights);
        let share = 256.0 * (1.0 - (relative - 1.0) / 2.0);
        ((share / STEP).round() * STEP).clamp(BOUNDS.0, BOUNDS.1) as u32
    };
    endpoints.iter().map(tilt).collect()
}
