//! How far what others say may go: a pure function over the endpoints of one upstream.

/// Hints take down at most this share of the endpoints of one priority, in percent: a fleet that is wrong, or lies, leaves the other half.
pub const HINTED_PERCENT: usize = 50;

/// One endpoint in the eyes of the clamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// Endpoints of one priority stand for each other.
    pub priority: i32,
    /// Whether it takes new requests at all: it has a weight and does not drain.
    pub counts: bool,
    /// Whether it is down for another reason than hints.
    pub out: bool,
    /// Whether enough of those who check it call it down.
    pub doubted: bool,
    /// Whether it is down by hints already: who is, stays so before others get their turn.
    pub acting: bool,
}

/// Which endpoints hints may take down, index for index.
///
/// In each priority that is at most [`HINTED_PERCENT`] of the endpoints, and never so many that fewer would stand than the panic threshold asks for, nor
/// the last one.
pub fn admitted(cases: &[Case], panic_threshold: u8) -> Vec<bool> {
    let mut admitted = vec![false; cases.len()];
    let mut priorities: Vec<i32> = cases.iter().map(|case| case.priority).collect();
    priorities.sort_unstable();
    priorities.dedup();
    for priority in priorities {
        let members = || cases.iter().enumerate().filter(move |(_, case)| case.priority == priority && case.counts);
        let all = members().count();
        let standing = members().filter(|(_, case)| !case.out).count();
        let must_stand = (all * usize::from(panic_threshold)).div_ceil(100).max(1);
        let most = (all * HINTED_PERCENT / 100).min(standing.saturating_sub(must_stand));
        let doubted = |acting: bool| members().filter(move |(_, case)| case.doubted && !case.out && case.acting == acting);
        for (index, _) in doubted(true).chain(doubted(false)).take(most) {
            admitted[index] = true;
        }
    }
    admitted
}
