//! What one worker knows of the load on one endpoint: requests in flight and decayed response time.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

/// Time constant of the decayed response time, as in Finagle's and ingress-nginx's peak EWMA.
const DECAY: Duration = Duration::from_secs(10);
/// How long an endpoint that has answered nothing is spared, before it is given one more request.
const PATIENCE: Duration = Duration::from_secs(5);

/// What one worker knows of the load on one endpoint. It outlives changes of the endpoint list.
#[derive(Debug, Default)]
pub struct Load {
    active: Cell<u32>,
    /// Seconds.
    ewma: Cell<f64>,
    touched: Cell<Option<Instant>>,
    /// When it was first seen that requests are in flight and none was ever answered.
    unanswered: Cell<Option<Instant>>,
}

impl Load {
    /// Requests in flight.
    pub fn active(&self) -> u32 {
        self.active.get()
    }

    /// Notes a response time. Slow answers count at once, fast ones only slowly (peak sensitive): the average decays by the time that has passed
    /// since the last response.
    pub fn observe(&self, rtt: Duration, now: Instant) {
        let sample = rtt.as_secs_f64();
        let average = self.ewma(now).unwrap_or_default();
        let next = match self.touched.get() {
            None => sample,
            Some(_) if sample > average => sample,
            Some(then) => {
                let keep = (-now.saturating_duration_since(then).as_secs_f64() / DECAY.as_secs_f64()).exp();
                self.ewma.get() * keep + sample * (1.0 - keep)
            }
        };
        self.ewma.set(next);
        self.touched.set(Some(now));
    }

    /// The decayed response time in seconds: it fades to zero while nothing is observed, so that a slow endpoint is tried again. `None` until there is one.
    pub fn ewma(&self, now: Instant) -> Option<f64> {
        let age = now.saturating_duration_since(self.touched.get()?).as_secs_f64();
        Some(self.ewma.get() * (-age / DECAY.as_secs_f64()).exp())
    }

    /// Whether one that has answered nothing yet is to be spared: it has one request, and one more for each time that it was waited for in vain. Some requests
    /// are not meant to be answered soon (watches, long polls, uploads), and must not keep all others away.
    #[cold]
    pub fn is_spared(&self, now: Instant) -> bool {
        let since = self.unanswered.get().unwrap_or(now);
        self.unanswered.set(Some(since));
        let risked = now.saturating_duration_since(since).as_secs() / PATIENCE.as_secs();
        u64::from(self.active.get()) > risked
    }
}

/// One request in flight; dropping it ends that.
#[derive(Debug)]
pub struct InFlight(Rc<Load>);

impl InFlight {
    /// Counts one request.
    pub fn start(load: &Rc<Load>) -> InFlight {
        load.active.set(load.active.get() + 1);
        InFlight(load.clone())
    }

    /// The load that it counts in.
    pub fn load(&self) -> &Load {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let left = self.0.active.get().saturating_sub(1);
        self.0.active.set(left);
        if left == 0 {
            self.0.unanswered.set(None);
        }
    }
}
