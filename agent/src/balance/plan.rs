//! What follows from health, ramps and zones at one moment: in which order the parts of a view are tried, and how requests are split between zones. Computed
//! when something has changed, never for a request.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::spread::Piece;
use super::view::Tier;
use super::zones::{Level, shares};
use super::{State, View};

/// Shares closer to all than this are all.
const ALL: f64 = 1.0 - 1e-9;
/// A ramp is followed in so many steps …
const RAMP_STEPS: u32 = 64;
/// … of this length at least and at most.
const RAMP_STEP: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// What follows from health at one moment.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Parts in the order in which they are tried.
    pub(super) order: Vec<u32>,
    /// Parts in which every member counts, whatever its health; one for each part of the view.
    pub(super) ignore_health: Vec<bool>,
    /// Where in the order zones are drawn by their shares; beyond its end when they are not.
    pub(super) split_at: usize,
    /// Upper ends of the shares in 2^32, and the part that each is for.
    pub(super) split: Vec<(u64, u32)>,
    /// Share of its weight that counts, in 1/256, by node; empty when all count whole.
    pub(super) shares: Vec<u32>,
    /// When ramps have gone on so far that all this is to be computed anew.
    pub(super) due: Option<Instant>,
}

/// Why a zone has its share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// It is the own one.
    Own,
    /// It helps, because the zones before it cannot carry all.
    Spill,
    /// Zones do not matter: they are switched off, or this node or the upstream has none.
    Any,
    /// So few endpoints stand that health and zones are ignored.
    Panic,
    /// It is not needed.
    Spare,
    /// The policy forbids it.
    Barred,
}

impl Why {
    /// Its name for people and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Why::Own => "own",
            Why::Spill => "spill",
            Why::Any => "any",
            Why::Panic => "panic",
            Why::Spare => "spare",
            Why::Barred => "barred",
        }
    }
}

/// What one zone carries of an upstream.
#[derive(Debug, Clone, PartialEq)]
pub struct ZoneShare {
    /// The zone, empty when unknown.
    pub zone: Arc<str>,
    /// Endpoints with a weight.
    pub endpoints: usize,
    /// Those of them that stand.
    pub standing: usize,
    /// Its share of the requests, 0 to 1.
    pub share: f64,
    /// Why.
    pub why: Why,
}

/// What a tier is used for.
enum Use {
    /// Health and zones are ignored in it.
    Panic,
    /// Nothing of it stands.
    None,
    /// Levels by their shares.
    Levels(Vec<f64>),
}

impl View {
    /// What follows from health at `now`.
    pub(super) fn plan(&self, now: Instant) -> Plan {
        let mut plan = Plan { split_at: usize::MAX, ignore_health: vec![false; self.parts.len()], ..Plan::default() };
        let none_up = self.none_up();
        if let Some(pieces) = self.spread(none_up) {
            for piece in pieces.iter().filter(|piece| piece.panics) {
                plan.ignore_health[piece.part] = true;
            }
            if pieces.first().is_some_and(|piece| piece.share < ALL) {
                let levels: Vec<(f64, u32)> = pieces.iter().map(|piece| (piece.share, piece.part as u32)).collect();
                (plan.split_at, plan.split) = (0, ends(&levels));
            }
            plan.order = pieces.into_iter().map(|piece| piece.part as u32).collect();
            self.weigh(&mut plan, now);
            return plan;
        }
        let mut first = true;
        for tier in &self.tiers {
            match self.use_of(tier, none_up, now) {
                Use::Panic => {
                    plan.ignore_health[tier.levels.start..=tier.whole].fill(true);
                    plan.order.push(tier.whole as u32);
                    first = false;
                }
                Use::None => plan.order.extend(tier.levels.clone().map(|part| part as u32)),
                Use::Levels(shares) => {
                    let mut levels: Vec<(f64, u32)> =
                        shares.into_iter().zip(tier.levels.clone().map(|part| part as u32)).collect();
                    // stable: those that carry something stay in their order, the others come behind them
                    levels.sort_by_key(|(share, _)| *share <= 0.0);
                    if self.serves(tier) && std::mem::take(&mut first) && levels.first().is_some_and(|(share, _)| *share < ALL) {
                        (plan.split_at, plan.split) = (plan.order.len(), ends(&levels));
                    }
                    plan.order.extend(levels.into_iter().map(|(_, part)| part));
                }
            }
        }
        self.weigh(&mut plan, now);
        plan
    }

    /// What each zone carries at `now`, and why, by name.
    pub fn zone_shares(&self, now: Instant) -> Vec<ZoneShare> {
        let mut out: BTreeMap<Arc<str>, ZoneShare> = BTreeMap::new();
        for node in self.nodes.iter().filter(|node| node.weight > 0) {
            let why = if self.zones.allows(&node.zone) { Why::Spare } else { Why::Barred };
            let new = || ZoneShare { zone: node.zone.clone(), endpoints: 0, standing: 0, share: 0.0, why };
            let entry = out.entry(node.zone.clone()).or_insert_with(new);
            entry.endpoints += 1;
            entry.standing += usize::from(node.standing.state() != State::Down);
        }
        let none_up = self.none_up();
        if let Some(pieces) = self.spread(none_up) {
            pieces.iter().for_each(|piece| self.share_out_piece(piece, now, &mut out));
            return out.into_values().collect();
        }
        let used = self.tiers.iter().map(|tier| (tier, self.use_of(tier, none_up, now)));
        if let Some((tier, used)) = used
            .into_iter()
            .find(|(tier, used)| matches!(used, Use::Panic) || matches!(used, Use::Levels(_)) && self.serves(tier))
        {
            self.share_out(tier, &used, now, &mut out);
        }
        out.into_values().collect()
    }

    /// The shares of the zones in one part of requests that are spread over priorities and localities.
    fn share_out_piece(&self, piece: &Piece, now: Instant, out: &mut BTreeMap<Arc<str>, ZoneShare>) {
        let members = &self.parts[piece.part].members;
        let counts = |index: u32| {
            if piece.panics { f64::from(self.nodes[index as usize].weight) } else { self.standing(index, 256.0, now) }
        };
        let all: f64 = members.iter().map(|&index| counts(index)).sum();
        for &index in members.iter().filter(|_| piece.share > 0.0 && all > 0.0) {
            if let Some(entry) = out.get_mut(&self.nodes[index as usize].zone) {
                entry.share += piece.share * counts(index) / all;
                entry.why = if piece.panics { Why::Panic } else { Why::Any };
            }
        }
    }

    /// The shares of the zones of the tier that is used.
    fn share_out(&self, tier: &Tier, used: &Use, now: Instant, out: &mut BTreeMap<Arc<str>, ZoneShare>) {
        let best = self.best_ramp(tier, now);
        let levels: Vec<(usize, f64)> = match used {
            Use::Levels(shares) => tier.levels.clone().zip(shares.iter().copied()).collect(),
            _ => vec![(tier.whole, 1.0)],
        };
        for (nth, (part, share)) in levels.into_iter().enumerate() {
            let why = match used {
                Use::Levels(_) if share <= 0.0 => Why::Spare,
                Use::Levels(_) if nth == 0 && tier.at_home => Why::Own,
                Use::Levels(_) if self.zones.matter() && self.is_zoned(tier) => Why::Spill,
                Use::Levels(_) => Why::Any,
                _ => Why::Panic,
            };
            let members = &self.parts[part].members;
            let counts = |index: u32| {
                if why == Why::Panic { f64::from(self.nodes[index as usize].weight) } else { self.standing(index, best, now) }
            };
            let all: f64 = members.iter().map(|&index| counts(index)).sum();
            for &index in members {
                let node = &self.nodes[index as usize];
                if let Some(entry) = out.get_mut(&node.zone) {
                    entry.share += if all > 0.0 { share * counts(index) / all } else { 0.0 };
                    entry.why = why;
                }
            }
        }
    }

    fn is_zoned(&self, tier: &Tier) -> bool {
        self.parts[tier.whole].members.iter().any(|&index| !self.nodes[index as usize].zone.is_empty())
    }

    /// Whether health is ignored because nobody is up. Trials are for one request at a time: where there is nothing else, the others need somebody, too. Not
    /// where it is said that health is never ignored: who is down is then given nothing, whatever comes of it.
    fn none_up(&self) -> bool {
        self.panic_threshold != Some(0) && !self.tiers.iter().any(|tier| self.serves(tier))
    }

    fn serves(&self, tier: &Tier) -> bool {
        self.parts[tier.whole].members.iter().any(|&index| self.nodes[index as usize].standing.state() == State::Up)
    }

    pub(super) fn is_up(&self, index: u32) -> bool {
        self.nodes[index as usize].standing.state() != State::Down
    }

    fn use_of(&self, tier: &Tier, none_up: bool, now: Instant) -> Use {
        let members = &self.parts[tier.whole].members;
        let standing = members.iter().filter(|&&index| self.is_up(index)).count();
        if standing == 0 && !none_up {
            // The next one takes over, which is what it is there for.
            return Use::None;
        }
        if none_up || standing * 100 < members.len() * usize::from(self.panic_threshold.unwrap_or(0)) {
            return Use::Panic;
        }
        let best = self.best_ramp(tier, now);
        let weight = |members: &[u32]| members.iter().map(|&index| f64::from(self.nodes[index as usize].weight)).sum::<f64>();
        let all = weight(members);
        let level = |part: usize| {
            let members = &self.parts[part].members;
            let (weight, at_home) = (weight(members), tier.at_home && part == tier.levels.start);
            let room = if at_home { self.zones.room(weight, all) } else { 1.0 };
            Level { weight, standing: members.iter().map(|&index| self.standing(index, best, now)).sum(), room }
        };
        let levels: Vec<Level> = tier.levels.clone().map(level).collect();
        Use::Levels(shares(&levels, self.zones.headroom()))
    }

    /// The ramp of the node that stands and is furthest: newcomers are measured by it, so that where all are new nothing spills over.
    fn best_ramp(&self, tier: &Tier, now: Instant) -> f64 {
        let members = self.parts[tier.whole].members.iter().filter(|&&index| self.is_up(index));
        members.map(|&index| self.nodes[index as usize].standing.ramp(self.slow_start, now)).max().unwrap_or(256).max(1).into()
    }

    fn standing(&self, index: u32, best: f64, now: Instant) -> f64 {
        let node = &self.nodes[index as usize];
        let ramp = f64::from(node.standing.ramp(self.slow_start, now)) / best;
        if self.is_up(index) { f64::from(node.weight) * ramp.min(1.0) } else { 0.0 }
    }

    /// What of its weight each node gets, and until when that holds.
    fn weigh(&self, plan: &mut Plan, now: Instant) {
        let share = |node: &super::Node| node.standing.ramp(self.slow_start, now) * node.standing.tilt() / 256;
        let shares: Vec<u32> = self.nodes.iter().map(share).collect();
        if shares.iter().any(|share| *share != 256) {
            plan.shares = shares;
        }
        if self.nodes.iter().any(|node| node.standing.ramp_left(self.slow_start, now).is_some()) {
            plan.due = Some(now + (self.slow_start / RAMP_STEPS).clamp(RAMP_STEP.0, RAMP_STEP.1));
        }
    }
}

/// Upper ends of the shares in 2^32; the last one is the end of all.
fn ends(levels: &[(f64, u32)]) -> Vec<(u64, u32)> {
    let mut sum = 0.0;
    let used = levels.iter().filter(|(share, _)| *share > 0.0);
    let mut ends: Vec<(u64, u32)> = used
        .map(|(share, part)| {
            sum += share;
            ((sum * 4_294_967_296.0) as u64, *part)
        })
        .collect();
    if let Some(last) = ends.last_mut() {
        last.0 = 1 << 32;
    }
    ends
}
