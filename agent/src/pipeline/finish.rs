//! The end of a request: counted, logged and given to the log filters exactly once, also when the client goes away before its answer.

use std::rc::Rc;
use std::time::Duration;

use heddle_node::clock;

use super::plan::Plan;
use super::worker::Worker;
use crate::exchange::{Ending, Exchange, MetricLabels, Reason, Sent};
use crate::http::{Fields, RequestHead};
use crate::observe::Counted;

/// An exchange on its way to its end.
///
/// It is boxed once per request and travels with the response. Dropping it before the response was handed over means that the client
/// went away: the request is then counted and logged with 499.
pub struct Finish {
    /// The exchange.
    pub x: Exchange,
    /// The filters that run for it.
    pub plan: Plan,
    worker: Rc<Worker>,
    done: bool,
}

impl Finish {
    /// Counts the request as in flight.
    #[inline]
    pub fn begin(x: Exchange, plan: Plan, worker: Rc<Worker>) -> Box<Finish> {
        worker.counters().active.inc();
        Box::new(Finish { x, plan, worker, done: false })
    }

    /// The worker that the request lives on.
    pub fn worker(&self) -> &Worker {
        &self.worker
    }

    fn conclude(&mut self, sent: Sent) {
        self.done = true;
        let x = &mut self.x;
        x.answer.bytes_sent = sent.sent;
        x.answer.bytes_received = sent.received;
        if sent.reason != Reason::None && !x.answer.reason.is_upstream() {
            x.answer.reason = sent.reason;
        }
        let duration = clock::now().saturating_duration_since(x.started);
        x.answer.took = duration;
        self.plan.redact(x);
        self.plan.log(x);
        self.count(duration);
        self.worker.log(&self.x, duration);
    }

    fn count(&self, duration: Duration) {
        let (x, index) = (&self.x, self.worker.index);
        let counters = self.worker.counters();
        counters.active.dec();
        counters.reasons.add(x.answer.reason);
        let shard = self.plan.route().map_or_else(|| self.worker.shared().unmatched.own(index), |seen| &seen.stats);
        shard.count(&Counted {
            status: x.answer.status,
            duration,
            upstream: x.attempts.last().and_then(|attempt| attempt.header),
            bytes_in: x.answer.bytes_received,
            bytes_out: x.answer.bytes_sent,
            retries: x.attempts.len().saturating_sub(1) as u64,
        });
        if x.metrics != MetricLabels::Totals {
            self.worker.shared().details.own(index).count(x, duration);
        }
    }
}

impl Ending for Finish {
    fn ended(mut self: Box<Self>, sent: Sent) -> Option<Box<RequestHead>> {
        self.conclude(sent);
        let mut head = std::mem::take(&mut self.x.request);
        head.clear();
        Some(head)
    }
}

impl Drop for Finish {
    fn drop(&mut self) {
        if !self.done {
            self.x.answer.status = Reason::ClientClosed.status();
            self.conclude(Sent { reason: Reason::ClientClosed, ..Sent::default() });
        }
    }
}

/// Appends to `Via` (RFC 9110 section 7.6.3).
pub fn append_via(fields: &mut Fields, version: &str, pseudonym: &str) {
    fields.append("via", format!("{} {pseudonym}", version.trim_start_matches("HTTP/")));
}
