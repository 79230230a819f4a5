//! The filter of `limit-conn`.

use std::sync::Arc;
use std::time::Duration;

use heddle_node::clock::{self, Instant};
use serde_json::{Value, json};
use smallvec::SmallVec;

use super::super::limits::{Acted, Key, state_key};
use super::super::{BuildContext, Built, Filter, Flow, Phases, Resume, check};
use super::config::Config;
use super::connections::{Bounds, Connections, Place};
use super::elsewhere::{Elsewhere, Lease};
use crate::exchange::{Answer, Exchange, Reason, Template};

struct LimitConn {
    limits: Vec<Limit>,
    rule: Arc<Rule>,
    /// Where requests are counted instead, when that is not this node.
    elsewhere: Option<Arc<Elsewhere>>,
    /// Whether it is the action of a `workflow` rather than a plugin by itself.
    inner: bool,
}

/// What becomes of requests.
struct Rule {
    connections: Arc<Connections>,
    /// What requests are taken to last; `None` where experience tells.
    fixed: Option<Duration>,
    refusal: Answer,
    degrades: bool,
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
    let elsewhere = config
        .redis()
        .open(context.outbound, "limit-conn", &state)?
        .map(|shelf| Arc::new(Elsewhere { shelf, ttl: Duration::from_secs(config.key_ttl), leaving: Arc::default() }));
    let rule = Rule {
        connections: context.keep.get_or(&state, || Connections::new(delay)),
        fixed: config.only_use_default_delay.then_some(delay),
        refusal,
        degrades: config.allow_degradation,
    };
    Ok(Arc::new(LimitConn { limits: limits(&config), rule: Arc::new(rule), elsewhere, inner }))
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
        if let Some(elsewhere) = &self.elsewhere {
            return self.ask(elsewhere, x);
        }
        let (rule, mut places, mut delays) = (&self.rule, Places::new(), 0);
        for limit in &self.limits {
            let Some(key) = limit.key.hash(x, limit.seed) else { continue };
            // What other limits have counted is given back with the places.
            let Some(number) = rule.connections.enter(key, limit.bounds) else { return rule.refuse() };
            places.push(Place::new(rule.connections.clone(), key));
            delays += limit.bounds.delays(number);
        }
        let delay = rule.delay(delays);
        let (flow, began) = rule.hold_up(delay);
        if matches!(flow, Flow::Answer(_)) {
            return flow;
        }
        if let (Some(began), Some(place)) = (began, places.first_mut()) {
            place.measure_from(began);
        }
        keep(x, places);
        flow
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        self.elsewhere.as_ref().map_or_else(Vec::new, |elsewhere| elsewhere.shelf.counters())
    }
}

/// The places go with the exchange: whatever ends it gives them back.
fn keep<T: 'static>(x: &mut Exchange, mut places: SmallVec<[T; 1]>) {
    match x.slot_mut::<SmallVec<[T; 1]>>(SLOT) {
        Some(taken) => taken.append(&mut places),
        None => x.put(SLOT, places),
    }
}

impl LimitConn {
    /// The same where another one counts. It is asked once, for all limits.
    fn ask(&self, elsewhere: &Arc<Elsewhere>, x: &mut Exchange) -> Flow {
        let concerning = |limit: &Limit| limit.key.hash(x, limit.seed).map(|key| (key, limit.bounds));
        let (keys, bounds): (Vec<u128>, Vec<Bounds>) = self.limits.iter().filter_map(concerning).unzip();
        if keys.is_empty() {
            return Flow::Continue;
        }
        let (rule, mut lease) = (self.rule.clone(), Lease::new(elsewhere, &keys, x.dice.u128(..)));
        Flow::Wait(Box::pin(async move {
            let taken = lease.take(&bounds).await;
            Box::new(move |x: &mut Exchange| {
                let numbers = match taken {
                    Ok(Some(numbers)) => numbers,
                    Ok(None) => return rule.refuse(),
                    Err(_) if rule.degrades => Vec::new(),
                    Err(_) => return Flow::Answer(Box::new(Answer::empty(500, Reason::PluginFailed))),
                };
                let delays = bounds.iter().zip(numbers).map(|(bounds, number)| bounds.delays(number)).sum();
                let (flow, began) = rule.hold_up(rule.delay(delays));
                if !matches!(flow, Flow::Answer(_)) {
                    began.into_iter().for_each(|began| lease.measure_from(rule.connections.clone(), began));
                    keep(x, SmallVec::from_buf([lease]));
                }
                flow
            }) as Resume
        }))
    }
}

impl Rule {
    fn refuse(&self) -> Flow {
        Flow::Answer(Box::new(self.refusal.clone()))
    }

    /// So many times what a request usually takes.
    fn delay(&self, delays: u64) -> Duration {
        if delays == 0 {
            return Duration::ZERO;
        }
        let usual = self.fixed.unwrap_or_else(|| self.connections.usual());
        usual.saturating_mul(u32::try_from(delays).unwrap_or(u32::MAX))
    }

    /// Holds a request up, and says from when on it is measured, if anybody wants to know what it takes.
    fn hold_up(&self, delay: Duration) -> (Flow, Option<Instant>) {
        let began = |delay| self.fixed.is_none().then(|| clock::now() + delay);
        if delay.is_zero() {
            return (Flow::Continue, began(delay));
        }
        let Some(ticket) = self.connections.waiting.enter() else {
            return if self.degrades { (Flow::Continue, began(Duration::ZERO)) } else { (self.refuse(), None) };
        };
        let wait = async move {
            tokio::time::sleep(delay).await;
            drop(ticket);
            Box::new(|_: &mut Exchange| Flow::Continue) as Resume
        };
        (Flow::Wait(Box::pin(wait)), began(delay))
    }
}
