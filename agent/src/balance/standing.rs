//! Whether an endpoint may be chosen: one small atomic that health writes and every worker reads. It knows no reasons.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

const UP: u8 = 0;
const DOWN: u8 = 1;
const TRIAL: u8 = 2;
const TRIAL_TAKEN: u8 = 3;

/// Counts changes of standing and weight in one cluster, so that a worker sees with one load that nothing has changed.
#[derive(Debug, Default)]
pub struct Epoch(AtomicU64);

impl Epoch {
    /// Number of changes so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Says that something has changed.
    pub fn bump(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

/// What [`Standing`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// May be chosen.
    Up,
    /// Is left out.
    Down,
    /// Half open: one request at a time may try it.
    Trial,
}

/// Whether an endpoint may be chosen, and since when it is (for slow start).
#[derive(Debug)]
pub struct Standing {
    state: AtomicU8,
    /// Milliseconds from `anchor` to the last time that it came up; `u64::MAX` when it never was anything else.
    up_since: AtomicU64,
    anchor: Instant,
    /// Share of the weight that the load of the fleet leaves, in 1/256.
    tilt: AtomicU32,
    epoch: Arc<Epoch>,
}

impl Standing {
    /// Up, at full weight from the start.
    pub fn new(epoch: Arc<Epoch>, now: Instant) -> Standing {
        Standing { state: AtomicU8::new(UP), up_since: AtomicU64::new(u64::MAX), anchor: now, tilt: AtomicU32::new(256), epoch }
    }

    /// Up, but ramping to its weight from `now` on: an endpoint that joins others which already serve.
    pub fn joining(epoch: Arc<Epoch>, now: Instant) -> Standing {
        Standing { up_since: AtomicU64::new(0), ..Standing::new(epoch, now) }
    }

    /// The state.
    pub fn state(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            UP => State::Up,
            DOWN => State::Down,
            _ => State::Trial,
        }
    }

    /// Changes the state; coming up starts the ramp.
    pub fn set(&self, state: State, now: Instant) {
        let next = match state {
            State::Up => UP,
            State::Down => DOWN,
            State::Trial => TRIAL,
        };
        if next == UP && self.state.load(Ordering::Acquire) != UP {
            self.up_since.store(now.saturating_duration_since(self.anchor).as_millis() as u64, Ordering::Release);
        }
        if self.state.swap(next, Ordering::AcqRel) != next {
            self.epoch.bump();
        }
    }

    /// Share of the weight that the load of the fleet leaves, in 1/256.
    pub fn tilt(&self) -> u32 {
        self.tilt.load(Ordering::Acquire)
    }

    /// Says what share of the weight the load of the fleet leaves, in 1/256.
    pub fn lean(&self, tilt: u32) {
        if self.tilt.swap(tilt, Ordering::AcqRel) != tilt {
            self.epoch.bump();
        }
    }

    /// Whether a request may go there now. In [`State::Trial`] this takes the one permit, which comes back by [`Standing::give_back`] or a new `set`.
    pub fn admit(&self) -> Admission {
        match self.state.load(Ordering::Acquire) {
            UP => Admission::Free,
            TRIAL if self.state.compare_exchange(TRIAL, TRIAL_TAKEN, Ordering::AcqRel, Ordering::Acquire).is_ok() => {
                Admission::Trial
            }
            _ => Admission::Refused,
        }
    }

    /// Returns the permit of a trial that ended without a verdict.
    pub fn give_back(&self) {
        let _ = self.state.compare_exchange(TRIAL_TAKEN, TRIAL, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Share of the weight that counts at `now`, 0 to 256. The ramp is linear and starts at a tenth.
    pub fn ramp(&self, slow_start: Duration, now: Instant) -> u32 {
        match self.ramp_left(slow_start, now) {
            None => 256,
            Some(left) => {
                let done = 1.0 - left.as_secs_f64() / slow_start.as_secs_f64();
                (256.0 * done.max(0.1)) as u32
            }
        }
    }

    /// How long the ramp still lasts.
    pub fn ramp_left(&self, slow_start: Duration, now: Instant) -> Option<Duration> {
        let since = self.up_since.load(Ordering::Acquire);
        if slow_start.is_zero() || since == u64::MAX {
            return None;
        }
        let end = self.anchor + Duration::from_millis(since) + slow_start;
        end.checked_duration_since(now).filter(|left| !left.is_zero())
    }
}

/// Answer of [`Standing::admit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Go.
    Free,
    /// Go, and report what happened: this is the trial.
    Trial,
    /// Do not.
    Refused,
}
