//! What filters ask of the way to an endpoint, beyond what the upstream's configuration says. It knows no endpoints and sends nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::http::{Method, Name, ResponseHead};

/// What filters ask of the way to an endpoint. It lies beside the exchange, so that a request for which nobody asks pays one look.
#[derive(Debug, Default, Clone)]
pub struct Steering {
    /// Token of the endpoint that is chosen for as long as it may be.
    pub preferred: Option<u64>,
    /// When and how often the request is tried again; replaces what the upstream says.
    pub retry: Option<Arc<Retry>>,
    /// Where the request goes when its upstream fails it.
    pub failover: Option<Arc<Failover>>,
}

/// When and how often a request is tried again.
#[derive(Debug)]
pub struct Retry {
    /// Most tries, the first one included.
    pub attempts: u32,
    /// Rest before the second try; it doubles from try to try.
    pub initial_interval: Duration,
    /// Longest rest.
    pub max_interval: Duration,
    /// No try begins later than this after the first one; zero is no limit.
    pub timeout: Duration,
    /// How long all tries together may take until an answer begins, from the end of the request; zero is no limit.
    pub total_timeout: Duration,
    /// What is safe to be sent again, and after what.
    pub after: Repeat,
    /// Whether one that no endpoint has seen is sent again, whatever `after` says of those without an answer.
    pub on_unseen: bool,
    /// The field that tells the endpoint which try this is.
    pub attempt_header: Option<Arc<str>>,
    /// Bounds repeats in share of requests.
    pub budget: Arc<Budget>,
}

/// Where a request goes when its upstream fails it.
#[derive(Debug)]
pub struct Failover {
    /// Resource name of the other upstream.
    pub upstream: Arc<str>,
    /// What is safe to be sent again, and after what.
    pub after: Repeat,
}

/// After what a request is sent a second time, and which requests may be.
#[derive(Debug)]
pub struct Repeat {
    /// Answers that are as bad as none.
    pub statuses: Statuses,
    /// Calls of gRPC that ended at once with what is as bad as none.
    pub grpc_statuses: GrpcStatuses,
    /// Whether no answer at all is a reason.
    pub on_network_error: bool,
    /// Methods that may be sent twice; idempotent ones when empty. One of which no endpoint has seen a byte always may.
    pub methods: Vec<Method>,
    /// Longest body that is kept to be sent again.
    pub max_body_size: u64,
}

impl Repeat {
    /// Whether a request with this method may be sent twice.
    pub fn may_send_twice(&self, method: &Method) -> bool {
        if self.methods.is_empty() { method.is_idempotent() } else { self.methods.contains(method) }
    }

    /// Whether an answer is as bad as none.
    pub fn is_bad(&self, answer: &ResponseHead) -> bool {
        self.statuses.has(answer.status) || self.grpc_statuses.are_told_by(answer)
    }
}

/// A set of statuses, 100 to 599.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statuses([u64; 8]);

impl Statuses {
    /// Adds all from `first` to `last`, both included; those that are no statuses are left out.
    pub fn add(&mut self, first: u16, last: u16) {
        for status in first.max(100)..=last.min(599) {
            let at = usize::from(status - 100);
            self.0[at / 64] |= 1 << (at % 64);
        }
    }

    /// Whether it is among them.
    pub fn has(&self, status: u16) -> bool {
        let at = usize::from(status.wrapping_sub(100));
        self.0.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0 == [0; 8]
    }
}

/// A set of statuses of gRPC, 0 to 31.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GrpcStatuses(u32);

impl GrpcStatuses {
    /// Adds one; what is none is left out.
    pub fn add(&mut self, code: u8) {
        self.0 |= 1_u32.checked_shl(code.into()).unwrap_or(0);
    }

    /// Whether the head of an answer says one of them. Where messages came before it, a call says its status behind them, and is not sent again.
    pub fn are_told_by(self, answer: &ResponseHead) -> bool {
        let told = || std::str::from_utf8(answer.fields.get_known(Name::GrpcStatus)?).ok()?.parse::<u32>().ok();
        self.0 != 0 && told().and_then(|code| self.0.checked_shr(code)).is_some_and(|rest| rest & 1 == 1)
    }
}

/// How many repeats may be made, shared by all workers: each request earns a share of one, up to a bound; each repeat costs one.
#[derive(Debug)]
pub struct Budget {
    /// In hundredths of a repeat.
    saved: AtomicU64,
    /// What a request earns.
    percent: u64,
    most: u64,
}

impl Budget {
    /// What one repeat costs.
    const COST: u64 = 100;

    /// A budget of `percent` repeats per hundred requests. `burst` repeats may be saved up, and are there from the start.
    pub fn new(percent: u32, burst: u32) -> Budget {
        let most = u64::from(burst) * Budget::COST;
        Budget { saved: AtomicU64::new(most), percent: u64::from(percent), most }
    }

    /// Notes a request.
    pub fn earn(&self) {
        let more = |saved: u64| (saved < self.most).then(|| (saved + self.percent).min(self.most));
        let _ = self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Takes a repeat out; false when it is used up.
    pub fn spend(&self) -> bool {
        self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |saved| saved.checked_sub(Budget::COST)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_a_set() {
        let mut set = Statuses::default();
        assert!(set.is_empty());
        set.add(502, 503);
        set.add(100, 100);
        set.add(599, 700);
        set.add(0, 0);
        let all: Vec<u16> = (0..=u16::MAX).filter(|status| set.has(*status)).collect();
        assert_eq!(all, [100, 502, 503, 599]);
    }

    #[test]
    fn repeats_never_exceed_their_share() {
        let budget = Budget::new(10, 3);
        assert_eq!((0..10).filter(|_| budget.spend()).count(), 3);
        let mut spent = 0;
        for _ in 0..1000 {
            budget.earn();
            spent += usize::from(budget.spend());
        }
        assert_eq!(spent, 100);
        (0..1000).for_each(|_| budget.earn());
        assert_eq!((0..10).filter(|_| budget.spend()).count(), 3, "no more than the burst is saved up");
    }

    #[test]
    fn listed_methods_replace_the_idempotent_ones() {
        let repeat = |methods| Repeat {
            statuses: Statuses::default(),
            grpc_statuses: GrpcStatuses::default(),
            on_network_error: true,
            methods,
            max_body_size: 0,
        };
        assert!(repeat(Vec::new()).may_send_twice(&Method::Put) && !repeat(Vec::new()).may_send_twice(&Method::Post));
        assert!(
            repeat(vec![Method::Post]).may_send_twice(&Method::Post) && !repeat(vec![Method::Post]).may_send_twice(&Method::Get)
        );
    }

    #[test]
    fn a_call_is_judged_by_what_it_says_of_itself_and_no_status_of_http_stands_for_another() {
        let (mut statuses, mut grpc_statuses) = (Statuses::default(), GrpcStatuses::default());
        statuses.add(503, 503);
        [14, 1, 16, 32, 255].into_iter().for_each(|code| grpc_statuses.add(code));
        let repeat =
            |grpc_statuses| Repeat { statuses, grpc_statuses, on_network_error: true, methods: Vec::new(), max_body_size: 0 };
        let says = |status, code: Option<&str>| {
            let mut head = ResponseHead::new(status);
            code.into_iter().for_each(|code| head.fields.append("grpc-status", code));
            (repeat(grpc_statuses).is_bad(&head), repeat(GrpcStatuses::default()).is_bad(&head))
        };
        let all = ["14", "1", "16", "0", "13", "32", "33", "4294967310", "", "x"].map(|code| says(200, Some(code)).0);
        assert_eq!(all, [true, true, true, false, false, false, false, false, false, false]);
        assert_eq!([says(200, None), says(503, None), says(200, Some("14"))], [(false, false), (true, true), (true, false)]);
    }
}
