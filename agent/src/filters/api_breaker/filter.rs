//! The filter of `api-breaker`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use heddle_node::clock::{self, Instant};
use parking_lot::Mutex;
use serde_json::Value;
use xxhash_rust::xxh3::Xxh3;

use super::super::fields::FieldValue;
use super::super::limits::{Stays, Store, state_key};
use super::super::{BuildContext, Built, Filter, Flow, Phases, check};
use super::circuit::{Condition, Machine, Seen, Spans};
use super::config::Config;
use super::health::{Health, Policy};
use crate::exchange::{Answer, Attempt, Exchange, Reason};
use crate::http::FieldName;

struct ApiBreaker {
    kind: Kind,
    answer: Answer,
    fields: Vec<(FieldName, FieldValue)>,
}

enum Kind {
    /// As APISIX: failures and successes of each host and path.
    Counts(Counts),
    /// As Traefik: a condition over all requests.
    Circuit(Circuit),
}

struct Counts {
    policy: Policy,
    unhealthy: Vec<u16>,
    healthy: Vec<u16>,
    state: Arc<Targets>,
}

/// What outlives a change of tables.
struct Targets {
    by_key: Store<Health>,
    epoch: Instant,
}

struct Circuit {
    condition: Condition,
    spans: Spans,
    state: Arc<Breaker>,
}

/// What outlives a change of tables. Written at the end of each request; asked only while it is not closed.
struct Breaker {
    machine: Mutex<Machine>,
    closed: AtomicBool,
    epoch: Instant,
}

/// The properties that state depends on; a change of others leaves it alone.
const COUNTS: &[&str] = &["unhealthy", "healthy"];
const CIRCUIT: &[&str] = &["expression"];

pub(super) fn build(value: &Value, context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let mut answer = Answer::empty(config.break_response_code.unwrap_or(503), Reason::Plugin);
    let mut fields = Vec::new();
    if let Some(body) = &config.break_response_body {
        answer.body = Bytes::from(body.clone());
        let field = |header: &super::config::Header| (FieldName::new(header.key.clone()), FieldValue::new(&header.value));
        fields = config.break_response_headers.iter().map(field).collect();
    }
    let condition = config.expression.as_deref().and_then(|text| Condition::parse(text).ok());
    let kind = match condition {
        Some(condition) => {
            Kind::Circuit(Circuit::new(&config, condition, &state_key("api-breaker", context.origin(), value, CIRCUIT), context))
        }
        None => Kind::Counts(Counts::new(config, &state_key("api-breaker", context.origin(), value, COUNTS), context)),
    };
    Ok(Arc::new(ApiBreaker { kind, answer, fields }))
}

impl Filter for ApiBreaker {
    fn phases(&self) -> Phases {
        Phases::ACCESS.and(Phases::LOG)
    }

    fn access(&self, x: &mut Exchange) -> Flow {
        let passes = match &self.kind {
            Kind::Counts(counts) => counts.passes(x),
            Kind::Circuit(circuit) => circuit.passes(),
        };
        if passes { Flow::Continue } else { Flow::Answer(Box::new(self.answer(x))) }
    }

    fn log(&self, x: &Exchange) {
        let Some(seen) = seen(x) else { return };
        match &self.kind {
            Kind::Counts(counts) => counts.record(x, seen.status),
            Kind::Circuit(circuit) => circuit.record(seen),
        }
    }
}

impl ApiBreaker {
    fn answer(&self, x: &Exchange) -> Answer {
        let mut answer = self.answer.clone();
        for (name, value) in &self.fields {
            answer.head.fields.append_named(name, value.get(x, &[]));
        }
        answer
    }
}

/// What the upstream did at last; `None` when it was not asked, or not to its end because the client went away.
fn seen(x: &Exchange) -> Option<Seen> {
    let Attempt { outcome, failure, header, total, .. } = x.attempts.last()?;
    let status = outcome.or(failure.filter(|reason| reason.is_upstream()).map(Reason::status))?;
    Some(Seen { status, took: header.or(*total).unwrap_or_default() })
}

impl Counts {
    fn new(config: Config, key: &str, context: &BuildContext<'_>) -> Counts {
        let policy = Policy {
            failures: config.unhealthy.failures,
            successes: config.healthy.successes,
            longest_ms: config.max_breaker_sec.saturating_mul(1000),
        };
        let state = context.keep.get_or(key, || Targets { by_key: Store::default(), epoch: clock::now() });
        Counts { policy, unhealthy: config.unhealthy.http_statuses, healthy: config.healthy.http_statuses, state }
    }

    fn passes(&self, x: &Exchange) -> bool {
        let now = self.state.now_ms();
        let broken = |health: &mut Health| (health.is_broken(self.policy, now), Stays::Yes);
        !self.state.by_key.with_known(target(x), broken).unwrap_or(false)
    }

    fn record(&self, x: &Exchange, status: u16) {
        let now = self.state.now_ms();
        if self.unhealthy.contains(&status) {
            self.state.by_key.with(target(x), now, Health::default, |health| health.failed(self.policy, now));
        } else if self.healthy.contains(&status) {
            let forgive = |health: &mut Health| ((), if health.succeeded(self.policy, now) { Stays::No } else { Stays::Yes });
            self.state.by_key.with_known(target(x), forgive);
        }
    }
}

/// The hash of host and path as the client asked for them.
fn target(x: &Exchange) -> u128 {
    let mut hasher = Xxh3::new();
    hasher.update(x.request.host().as_bytes());
    hasher.update(b" ");
    hasher.update(x.original.path.as_bytes());
    hasher.digest128()
}

impl Targets {
    fn now_ms(&self) -> u64 {
        u64::try_from(clock::now().saturating_duration_since(self.epoch).as_millis()).unwrap_or(u64::MAX)
    }
}

impl Circuit {
    fn new(config: &Config, condition: Condition, key: &str, context: &BuildContext<'_>) -> Circuit {
        let span = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::from_secs(10));
        let spans = Spans {
            check: span(config.check_period),
            fallback: span(config.fallback_duration),
            recovery: span(config.recovery_duration),
        };
        let state = context.keep.get_or(key, || Breaker {
            machine: Mutex::new(Machine::new(&condition)),
            closed: AtomicBool::new(true),
            epoch: clock::now(),
        });
        Circuit { condition, spans, state }
    }

    fn passes(&self) -> bool {
        // A request that comes in the very moment in which it opens may pass; nothing else depends on the order.
        self.state.closed.load(Ordering::Relaxed) || self.state.change(|machine, now| machine.admit(self.spans, now))
    }

    fn record(&self, seen: Seen) {
        self.state.change(|machine, now| machine.record(&self.condition, self.spans, now, seen));
    }
}

impl Breaker {
    fn change<R>(&self, act: impl FnOnce(&mut Machine, Duration) -> R) -> R {
        let mut machine = self.machine.lock();
        let result = act(&mut machine, clock::now().saturating_duration_since(self.epoch));
        self.closed.store(machine.is_closed(), Ordering::Relaxed);
        result
    }
}
