//! The filter of `limit-req`.

use std::sync::Arc;
use std::time::Duration;

use heddle_node::clock;
use heddle_node::clock::Instant;
use serde_json::{Value, json};

use super::super::limits::{Key, Shelf, Store, Waiting, state_key};
use super::super::{BuildContext, Built, Filter, Flow, Phases, Resume, check};
use super::bucket::{Due, Left, NANOS_PER_MS, Pace, Verdict};
use super::config::Config;
use super::elsewhere;
use crate::exchange::{Answer, Exchange, Reason};
use crate::http::digits::Digits;
use crate::http::{FieldName, ResponseHead};

/// What responses tell of a pace, the fields of `limit-count` and of Envoy.
const LIMIT: FieldName = FieldName::of("X-RateLimit-Limit");
const REMAINING: FieldName = FieldName::of("X-RateLimit-Remaining");
const RESET: FieldName = FieldName::of("X-RateLimit-Reset");

struct LimitReq {
    key: Key,
    buckets: Arc<Buckets>,
    rule: Rule,
    /// Where buckets are kept instead, when that is not this node, with the rule once more for those who wait for it.
    elsewhere: Option<Arc<(Shelf, Rule)>>,
    /// Whether responses carry `X-RateLimit-*`.
    shows: bool,
}

/// What becomes of requests.
#[derive(Clone)]
struct Rule {
    pace: Pace,
    waiting: Arc<Waiting>,
    refusal: Answer,
    /// Whether refusals say when to come again.
    tells_when: bool,
    degrades: bool,
}

/// What outlives a change of tables.
struct Buckets {
    by_key: Store<Due>,
    /// What the times of the buckets are counted from.
    epoch: Instant,
    waiting: Arc<Waiting>,
}

/// The properties that buckets depend on; a change of others leaves them alone.
const CONCERNING: &[&str] = &["rate", "burst", "average", "period", "key", "key_type", "ip_strategy"];

pub(super) fn build(value: &Value, context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let (pace, status) = match (config.rate, config.average) {
        (Some(rate), _) => (Pace::leaky(rate, config.burst.unwrap_or(0.0), config.nodelay), 503),
        (None, average) => (Pace::tokens(average.unwrap_or(1.0), config.period, config.burst.unwrap_or(1.0)), 429),
    };
    let status = config.rejected_code.unwrap_or(status);
    let refusal = match (&config.rejected_msg, &config.rejected_body) {
        (Some(text), _) => Answer::json(status, &json!({"error_msg": text}), Reason::Plugin),
        (None, Some(text)) => Answer::text(status, text, Reason::Plugin),
        (None, None) => Answer::empty(status, Reason::Plugin),
    };
    let key = config.key.as_deref().unwrap_or("remote_addr");
    let state = state_key("limit-req", context.origin(), value, CONCERNING);
    let shelf = config.redis().open(context.outbound, "limit-req", &state)?;
    let buckets = context.keep.get_or(&state, Buckets::new);
    let waiting = buckets.waiting.clone();
    let rule = Rule { pace, waiting, refusal, tells_when: config.average.is_some(), degrades: config.allow_degradation };
    Ok(Arc::new(LimitReq {
        key: Key::new(key, config.key_type, config.ip_strategy.as_ref()),
        buckets,
        elsewhere: shelf.map(|shelf| Arc::new((shelf, rule.clone()))),
        rule,
        shows: config.show_limit_quota_header,
    }))
}

impl Buckets {
    fn new() -> Buckets {
        Buckets { by_key: Store::default(), epoch: clock::now(), waiting: Arc::default() }
    }

    /// Nanoseconds, good for 584 years.
    fn now(&self) -> u64 {
        u64::try_from(clock::now().saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Filter for LimitReq {
    fn phases(&self) -> Phases {
        if self.shows { Phases::ACCESS.and(Phases::RESPONSE_HEAD) } else { Phases::ACCESS }
    }

    fn access(&self, x: &mut Exchange) -> Flow {
        let Some(key) = self.key.hash(x, 0) else { return Flow::Continue };
        if let Some(elsewhere) = &self.elsewhere {
            return ask(elsewhere.clone(), key);
        }
        let now = self.buckets.now();
        let pace = &self.rule.pace;
        let admit = |due: &mut Due| (pace.admit(due, now), *due);
        let (verdict, due) = self.buckets.by_key.with(key, now / NANOS_PER_MS, || Due(now), admit);
        if self.shows {
            let Left { limit, remaining, reset } = pace.left(due, now);
            x.note(self.id(), [limit, remaining, reset.div_ceil(NANOS_PER_MS), 0]);
        }
        self.rule.follow(verdict)
    }

    fn response_head(&self, x: &mut Exchange, head: &mut ResponseHead) {
        let mut digits = Digits::default();
        for [limit, remaining, reset_ms, _] in x.notes(self.id()) {
            head.fields.set_own_named(&LIMIT, digits.of(limit));
            head.fields.set_own_named(&REMAINING, digits.of(remaining));
            head.fields.set_own_named(&RESET, digits.of(reset_ms.div_ceil(1000)));
        }
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        self.elsewhere.as_ref().map_or_else(Vec::new, |elsewhere| elsewhere.0.counters())
    }
}

impl LimitReq {
    /// Tells it from another one among the notes of an exchange, since two may run for one request.
    fn id(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

/// The same where another one keeps the buckets.
fn ask(elsewhere: Arc<(Shelf, Rule)>, key: u128) -> Flow {
    Flow::Wait(Box::pin(async move {
        let (shelf, rule) = &*elsewhere;
        let flow = match elsewhere::admit(shelf, key, rule.pace).await {
            Ok(verdict) => rule.follow(verdict),
            Err(_) if rule.degrades => Flow::Continue,
            Err(_) => Flow::Answer(Box::new(Answer::empty(500, Reason::PluginFailed))),
        };
        Box::new(move |_: &mut Exchange| flow) as Resume
    }))
}

impl Rule {
    fn follow(&self, verdict: Verdict) -> Flow {
        match verdict {
            Verdict::Pass => Flow::Continue,
            Verdict::Wait(nanos) => self.hold_up(nanos),
            Verdict::Refuse(nanos) => Flow::Answer(Box::new(self.refuse(nanos))),
        }
    }

    fn hold_up(&self, nanos: u64) -> Flow {
        // As APISIX: what is below the resolution of timers is not waited for.
        if nanos < NANOS_PER_MS {
            return Flow::Continue;
        }
        let Some(ticket) = self.waiting.enter() else {
            return if self.degrades { Flow::Continue } else { Flow::Answer(Box::new(self.refuse(nanos))) };
        };
        Flow::Wait(Box::pin(async move {
            tokio::time::sleep(Duration::from_nanos(nanos)).await;
            drop(ticket);
            Box::new(|_: &mut Exchange| Flow::Continue) as Resume
        }))
    }

    fn refuse(&self, nanos: u64) -> Answer {
        let mut refusal = self.refusal.clone();
        if self.tells_when {
            let seconds = Duration::from_nanos(nanos).as_secs_f64();
            refusal.head.fields.append("retry-after", format!("{:.0}", seconds.ceil()));
            refusal.head.fields.append("x-retry-in", format!("{seconds:.3}s"));
        }
        refusal
    }
}
