//! How requests are spread over priorities and localities where the upstream says that they are to be, as Envoy does: pure arithmetic over those that
//! stand. It knows no requests.
//!
//! A priority can carry `overprovisioning × standing / all` of the requests, all of them at most; the priorities are filled in their order. What one carries
//! is shared out to its localities by `weight × min(1, overprovisioning × standing / all)`. A priority of which too few stand, while all of them together
//! cannot carry everything, uses all of its endpoints whatever their health. Where the upstream says so, what a priority can carry goes by the weights of its
//! endpoints instead of their number; what its localities are given and whether too few stand goes by their number all the same, as in Envoy.

use super::View;
use super::view::Tier;

/// What one part of the view gets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Piece {
    /// Its share of the requests, 0 to 1.
    pub(super) share: f64,
    /// The part.
    pub(super) part: usize,
    /// Health is ignored in it.
    pub(super) panics: bool,
}

/// Endpoints of one priority.
struct Load {
    standing: u64,
    all: u64,
}

impl Load {
    /// The part of all requests that it can carry.
    fn carries(&self, headroom: f64) -> f64 {
        if self.all == 0 { 0.0 } else { (headroom * self.standing as f64 / self.all as f64).min(1.0) }
    }
}

impl View {
    /// What each part gets, those first that get something; `None` where the upstream does not spread so.
    pub(super) fn spread(&self, none_up: bool) -> Option<Vec<Piece>> {
        let by_weight = self.zones.policy.spread.as_ref()?.health_by_weight;
        let headroom = self.zones.headroom();
        let carries = |tier: &Tier| {
            let load = self.load(tier.whole);
            let carried = if by_weight { self.weighed(tier.whole).carries(headroom) } else { load.carries(headroom) };
            (load, carried)
        };
        let loads: Vec<(Load, f64)> = self.tiers.iter().map(carries).collect();
        let all = loads.iter().map(|(_, carried)| carried).sum::<f64>().min(1.0);
        let mut left = 1.0;
        let mut pieces = Vec::new();
        for (nth, (tier, (load, carried))) in self.tiers.iter().zip(&loads).enumerate() {
            let share = match all > 0.0 {
                true => (carried / all).min(left),
                false if nth == 0 => 1.0,
                false => 0.0,
            };
            left -= share;
            let too_few = load.standing * 100 < load.all * u64::from(self.panic_threshold.unwrap_or(0));
            if none_up || (too_few && all < 1.0) {
                pieces.push(Piece { share, part: tier.whole, panics: true });
            } else {
                self.share_out_localities(tier, share, headroom, &mut pieces);
            }
        }
        // Stable: those that carry something stay in their order.
        pieces.sort_by_key(|piece| piece.share <= 0.0);
        Some(pieces)
    }

    fn share_out_localities(&self, tier: &Tier, share: f64, headroom: f64, pieces: &mut Vec<Piece>) {
        let weight = |part: usize| {
            let Some(&first) = self.parts[part].members.first() else { return 0.0 };
            let node = &self.nodes[first as usize];
            f64::from(self.zones.weight(&node.zone, node.priority)) * self.load(part).carries(headroom)
        };
        let weights: Vec<f64> = tier.levels.clone().map(weight).collect();
        let sum: f64 = weights.iter().sum();
        if tier.levels.len() < 2 || sum <= 0.0 {
            pieces.push(Piece { share, part: tier.whole, panics: false });
            return;
        }
        let piece = |(part, weight): (usize, f64)| Piece { share: share * weight / sum, part, panics: false };
        pieces.extend(tier.levels.clone().zip(weights).map(piece));
    }

    fn load(&self, part: usize) -> Load {
        self.loaded(part, |_| 1)
    }

    /// The same with the weights of endpoints in the place of their number.
    fn weighed(&self, part: usize) -> Load {
        self.loaded(part, |index| self.nodes[index as usize].weight.into())
    }

    fn loaded(&self, part: usize, weight: impl Fn(u32) -> u64) -> Load {
        let mut load = Load { standing: 0, all: 0 };
        for &index in &self.parts[part].members {
            load.all += weight(index);
            load.standing += if self.is_up(index) { weight(index) } else { 0 };
        }
        load
    }
}
