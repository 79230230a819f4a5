//! The filter of `limit-conn`.

use std::sync::Arc;
use std::time::Duration;

use heddle_node::clock;
use serde_json::{Value, json};
use smallvec::SmallVec;

use super::super::limits::{Acted, Key, state_key};
use super::super::{BuildContext, Built, Filter, Flow, Phases, Resume, check};
use super::config::Config;
use super::connections::{Bounds, Connections, Place};
use crate::exchange::{Answer, Exchange, Reason, Template};

struct LimitConn {
    limits: Vec<Limit>,
    connections: Arc<Connections>,
    /// What requests are taken to last; `None` where experience tells.
    fixed: Option<Duration>,
    refusal: Answer,
    degrades: bool,
    /// Whether it is the action of a `workflow` rather than a plugin by itself.
    inner: bool,
}

struct Limit {
    key: Key,
    /// Keeps the keys of several limits apart.
    seed: u64,
    bounds: Bounds,
}

/// The places that a request has taken, by all filters of this kind.
type Places = SmallVec<[Place; 1]>;

const SLOT: &str = "limit-conn";
/// The properties that counters depend on; a change of others leaves them alone.
const CONCERNING: &[&str] = &["conn", "burst", "default_conn_delay", "rules", "key", "key_type", "ip_strategy"];

pub(super) fn build(value: &Value, context: &BuildContext<'_>) -> Built {
    compile(value, context, false)
}

/// The same as the action of a `workflow`.
pub(in crate::filters) fn inner(value: &Value, context: &BuildContext<'_>) -> Built {
    compile(value, context, true)
}

fn compile(value: &Value, context: &BuildContext<'_>, inner: bool) -> Built {
    let config: Config = check::read(value)?;
    let delay = Duration::try_from_secs_f64(config.default_conn_delay).unwrap_or_default();
    let refusal = match &config.rejected_msg {
        Some(text) => Answer::json(config.rejected_code, &json!({"error_msg": text}), Reason::Plugin),
        None => Answer::empty(config.rejected_code, Reason::Plugin),
    };
    let state = state_key("limit-conn", context.origin(), value, CONCERNING);
    Ok(Arc::new(LimitConn {
        limits: limits(&config),
        connections: context.keep.get_or(&state, || Connections::new(delay)),
        fixed: config.only_use_default_delay.then_some(delay),
        refusal,
        degrades: config.allow_degradation,
        inner,
    }))
}

fn limits(config: &Config) -> Vec<Limit> {
    if let (Some(conn), Some(burst)) = (config.conn, config.burst) {
        let key = config.key.as_deref().unwrap_or("remote_addr");
        let key = Key::new(key, config.key_type, config.ip_strategy.as_ref());
        return vec![Limit { key, seed: 0, bounds: Bounds { conn, burst } }];
    }
    let compiled = |(number, rule): (usize, &super::config::Rule)| Limit {
        key: Key::Rule(Template::new(&rule.key)),
        seed: number as u64 + 1,
        bounds: Bounds { conn: rule.conn, burst: rule.burst },
    };
    config.rules.iter().flatten().enumerate().map(compiled).collect()
}

impl Filter for LimitConn {
    fn phases(&self) -> Phases {
        Phases::ACCESS
    }

    fn access(&self, x: &mut Exchange) -> Flow {
        if !self.inner && Acted::Conn.has(x) {
            return Flow::Continue;
        }
        let (mut places, mut delays) = (Places::new(), 0);
        for limit in &self.limits {
            let Some(key) = limit.key.hash(x, limit.seed) else { continue };
            // What other limits have counted is given back with the places.
            let Some(number) = self.connections.enter(key, limit.bounds) else { return self.refuse() };
            places.push(Place::new(self.connections.clone(), key));
            delays += limit.bounds.delays(number);
        }
        if delays == 0 {
            self.take(x, places, Duration::ZERO);
            return Flow::Continue;
        }
        let usual = self.fixed.unwrap_or_else(|| self.connections.usual());
        self.hold_up(x, places, usual.saturating_mul(u32::try_from(delays).unwrap_or(u32::MAX)))
    }
}

impl LimitConn {
    fn refuse(&self) -> Flow {
        Flow::Answer(Box::new(self.refusal.clone()))
    }

    fn hold_up(&self, x: &mut Exchange, places: Places, delay: Duration) -> Flow {
        let Some(ticket) = self.connections.waiting.enter() else {
            if !self.degrades {
                return self.refuse();
            }
            self.take(x, places, Duration::ZERO);
            return Flow::Continue;
        };
        self.take(x, places, delay);
        Flow::Wait(Box::pin(async move {
            tokio::time::sleep(delay).await;
            drop(ticket);
            Box::new(|_: &mut Exchange| Flow::Continue) as Resume
        }))
    }

    /// The places go with the exchange: whatever ends it gives them back.
    fn take(&self, x: &mut Exchange, mut places: Places, delay: Duration) {
        if self.fixed.is_none()
            && let Some(place) = places.first_mut()
        {
            place.measure_from(clock::now() + delay);
        }
        match x.slot_mut::<Places>(SLOT) {
            Some(taken) => taken.append(&mut places),
            None => x.put(SLOT, places),
        }
    }
}
