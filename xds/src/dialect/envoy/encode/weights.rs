//! Weights that Envoys and clients of gRPC can add up: they do so in 32 bits, and refuse what does not fit. It knows no message.

/// Makes weights whose sum is more than 32 bits smaller, all alike: exactly where a divisor of all of them is enough, else each by less than one of what is
/// left. What weighed something does so still. Whether they changed.
pub(super) fn fit(weights: &mut [&mut u32]) -> bool {
    let total = |weights: &[&mut u32]| weights.iter().map(|weight| u64::from(**weight)).sum::<u64>();
    if total(weights) <= u64::from(u32::MAX) {
        return false;
    }
    let divisor = weights.iter().fold(0, |divisor, weight| gcd(divisor, **weight)).max(1);
    weights.iter_mut().for_each(|weight| **weight /= divisor);
    let before = total(weights);
    // What falls below one is one, for which there is room.
    let count = u64::try_from(weights.len()).unwrap_or(u64::MAX);
    let room = u64::from(u32::MAX).saturating_sub(count).max(1);
    if before > u64::from(u32::MAX) {
        for weight in weights.iter_mut().filter(|weight| ***weight > 0) {
            let scaled = u128::from(**weight) * u128::from(room) / u128::from(before);
            **weight = u32::try_from(scaled).unwrap_or(u32::MAX).max(1);
        }
    }
    true
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn fitted(mut weights: Vec<u32>) -> Vec<u32> {
        fit(&mut weights.iter_mut().collect::<Vec<_>>());
        weights
    }

    #[test]
    fn what_fits_stays_and_what_can_be_divided_stays_exact() {
        assert_eq!(fitted(vec![u32::MAX - 1, 1, 0]), [u32::MAX - 1, 1, 0]);
        assert_eq!(fitted(vec![4_000_000_000, 2_000_000_000, 0]), [2, 1, 0]);
        assert_eq!(fitted(vec![u32::MAX, u32::MAX, 1])[2], 1);
        assert!(fitted(Vec::new()).is_empty());
    }

    proptest! {
        #[test]
        fn shares_stay_and_can_be_added_up(weights in prop::collection::vec(prop_oneof![any::<u32>(), 0..4u32, 4_000_000_000..=u32::MAX], 0..400)) {
            let after = fitted(weights.clone());
            let (whole, sum) = (weights.iter().map(|w| f64::from(*w)).sum::<f64>(), after.iter().map(|w| u64::from(*w)).sum::<u64>());
            prop_assert!(sum <= u64::from(u32::MAX));
            for (then, now) in weights.iter().zip(&after) {
                prop_assert_eq!(*then == 0, *now == 0);
                let (share, is) = (f64::from(*then) / whole.max(1.0), f64::from(*now) / (sum as f64).max(1.0));
                prop_assert!((share - is).abs() < 1e-6, "{} of {}, now {} of {}", then, whole, now, sum);
            }
            for (one, other) in weights.windows(2).zip(after.windows(2)) {
                prop_assert!(one[0].cmp(&one[1]).is_le() == other[0].cmp(&other[1]).is_le() || other[0] == other[1]);
            }
            prop_assert_eq!(fitted(after.clone()), after, "once is enough");
        }
    }
}
