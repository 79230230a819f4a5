//! The filter of `limit-count`.

use std::sync::Arc;

use serde_json::{Value, json};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::super::limits::{Acted, Key, Policy, Uses, Window, state_key};
use super::super::{BuildContext, Built, Filter, Flow, Phases, check};
use super::config::{Amount, Config, Metadata, WindowType};
use super::counters::{Counters, Limit, Verdict};
use super::elsewhere::{Asked, Elsewhere};
use super::group::{Group, Member};
use super::quota::{self, Names, Quota};
use crate::exchange::{Answer, Exchange, Reason, Template};
use crate::http::ResponseHead;

struct LimitCount {
    limits: Vec<CompiledLimit>,
    kind: WindowType,
    counting: Counting,
    /// Where requests are counted instead, when that is not this node.
    elsewhere: Option<Arc<Elsewhere>>,
    refusal: Answer,
    /// The answer when a limit cannot be told; `None` lets the request through.
    failure: Option<Answer>,
    /// Whether responses carry `X-RateLimit-*`.
    show: bool,
    /// Whether they carry `RateLimit` and `RateLimit-Policy`.
    ietf: bool,
    /// Keeps the place in the group.
    _member: Option<Member>,
    /// Whether it is the action of a `workflow` rather than a plugin by itself.
    inner: bool,
}

/// What counts on this node.
enum Counting {
    /// Counters of its own.
    Alone(Arc<Counters>),
    /// With what the others say. The number sets the keys of this limit apart from those of others.
    Together(Arc<Uses>, u64),
}

struct CompiledLimit {
    key: Key,
    /// Keeps the keys of several limits apart.
    seed: u64,
    count: Number,
    seconds: Number,
    names: Names,
}

enum Number {
    Fixed(u64),
    Template(Template),
}

pub(super) fn build(value: &Value, context: &BuildContext<'_>) -> Built {
    compile(value, context, false)
}

/// The same as the action of a `workflow`.
pub(in crate::filters) fn inner(value: &Value, context: &BuildContext<'_>) -> Built {
    compile(value, context, true)
}

fn compile(value: &Value, context: &BuildContext<'_>, inner: bool) -> Built {
    let config: Config = check::read(value)?;
    let metadata: Metadata = context.metadata.map(check::read).transpose()?.unwrap_or_default();
    let refusal = match &config.rejected_msg {
        Some(text) => Answer::json(config.rejected_code, &json!({"error_msg": text}), Reason::Plugin),
        None => Answer::empty(config.rejected_code, Reason::Plugin),
    };
    let failure = json!({"error_msg": "failed to limit count"});
    let failure = (!config.allow_degradation).then(|| Answer::json(500, &failure, Reason::PluginFailed));
    let (counters, member) = counters(&config, value, context);
    let tells = config.show_limit_quota_header || config.ietf_headers;
    let state = match &config.group {
        Some(name) => format!("group/{name}"),
        None => state_key("limit-count", context.origin(), value, CONCERNING),
    };
    let shelf = config.redis().open(context.outbound, "limit-count", &state)?;
    let (kind, failed) = (config.window_type, failure.clone());
    let elsewhere = shelf.map(|shelf| Elsewhere { shelf, kind, refusal: refusal.clone(), failure: failed, tells });
    let counting = match config.policy {
        Policy::Gossip => Counting::Together(context.keep.uses().clone(), xxh3_64(state.as_bytes())),
        Policy::Local | Policy::Redis => Counting::Alone(counters),
    };
    Ok(Arc::new(LimitCount {
        counting,
        elsewhere: elsewhere.map(Arc::new),
        limits: limits(&config, &metadata),
        kind: config.window_type,
        _member: member,
        refusal,
        failure,
        show: config.show_limit_quota_header,
        ietf: config.ietf_headers,
        inner,
    }))
}

/// The properties that counters depend on; a change of others leaves them alone.
const CONCERNING: &[&str] = &["count", "time_window", "rules", "window_type", "key", "key_type", "ip_strategy"];

/// Counters outlive a change of tables as long as what they count stays the same; routes of a group share theirs.
fn counters(config: &Config, value: &Value, context: &BuildContext<'_>) -> (Arc<Counters>, Option<Member>) {
    let own = state_key("limit-count", context.origin(), value, CONCERNING);
    let Some(name) = &config.group else { return (context.keep.get_or(&own, Counters::default), None) };
    let group = context.keep.get_or(&format!("limit-count/group/{name}"), Group::default);
    let (member, others) = group.join(context.origin(), &state_key("", "", value, CONCERNING));
    if let Some(other) = others {
        tracing::warn!(
            group = name,
            origin = context.origin(),
            other,
            "group conf mismatch: the limits of this limit-count group differ, and each applies to the counters of all; give them the same limits or another group"
        );
    }
    (group.counters.clone(), Some(member))
}

fn limits(config: &Config, metadata: &Metadata) -> Vec<CompiledLimit> {
    if let (Some(count), Some(seconds)) = (&config.count, &config.time_window) {
        let key = Key::new(&config.key, config.key_type, config.ip_strategy.as_ref());
        let names = Names::new(metadata, None, count.fixed());
        return vec![CompiledLimit { key, seed: 0, count: Number::new(count), seconds: Number::new(seconds), names }];
    }
    let compiled = |(number, rule): (usize, &super::config::Rule)| {
        let prefix = rule.header_prefix.clone().unwrap_or_else(|| (number + 1).to_string());
        CompiledLimit {
            key: Key::Rule(Template::new(&rule.key)),
            seed: number as u64 + 1,
            count: Number::new(&rule.count),
            seconds: Number::new(&rule.time_window),
            names: Names::new(metadata, Some(&prefix), rule.count.fixed()),
        }
    };
    config.rules.iter().flatten().enumerate().map(compiled).collect()
}

impl Amount {
    fn fixed(&self) -> Option<u64> {
        match self {
            Amount::Fixed(number) => Some(*number),
            Amount::Template(_) => None,
        }
    }
}

impl Number {
    fn new(amount: &Amount) -> Number {
        match amount {
            Amount::Fixed(number) => Number::Fixed(*number),
            Amount::Template(text) => Number::Template(Template::new(text)),
        }
    }

    /// The number for this request, `None` when it is none above 0.
    fn get(&self, x: &Exchange) -> Option<u64> {
        match self {
            Number::Fixed(number) => Some(*number),
            Number::Template(template) => template.render(x).trim().parse().ok().filter(|number| *number > 0),
        }
    }
}

impl Filter for LimitCount {
    fn phases(&self) -> Phases {
        if self.tells() { Phases::ACCESS.and(Phases::RESPONSE_HEAD) } else { Phases::ACCESS }
    }

    fn access(&self, x: &mut Exchange) -> Flow {
        if !self.inner && Acted::Count.has(x) {
            return Flow::Continue;
        }
        if let Some(elsewhere) = &self.elsewhere {
            return self.ask(elsewhere, x);
        }
        for (number, limit) in self.limits.iter().enumerate() {
            let Some(key) = limit.key.hash(x, limit.seed) else { continue };
            let (Some(count), Some(seconds)) = (limit.count.get(x), limit.seconds.get(x)) else {
                match &self.failure {
                    Some(failure) => return Flow::Answer(Box::new(failure.clone())),
                    None => continue,
                }
            };
            let bounds = Limit { count, window_ms: seconds.saturating_mul(1000), kind: self.kind };
            let verdict = self.count(key, bounds, x.started_ms);
            if self.tells() {
                let Verdict { remaining, reset_ms, .. } = verdict;
                quota::keep(x, self.id(), Quota { limit: number, count, remaining, reset_ms });
            }
            if !verdict.allowed {
                return Flow::Answer(Box::new(self.refusal.clone()));
            }
        }
        Flow::Continue
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        self.elsewhere.as_ref().map_or_else(Vec::new, |elsewhere| elsewhere.shelf.counters())
    }

    fn response_head(&self, x: &mut Exchange, head: &mut ResponseHead) {
        for quota in quota::kept(x, self.id()) {
            let limit = &self.limits[quota.limit];
            if self.show {
                limit.names.write(quota, &mut head.fields);
            }
            if self.ietf {
                limit.names.write_ietf(quota, limit.seconds.get(x), &mut head.fields);
            }
        }
    }
}

impl LimitCount {
    fn count(&self, key: u128, limit: Limit, now_ms: u64) -> Verdict {
        match &self.counting {
            Counting::Alone(counters) => counters.count(key, limit, now_ms),
            Counting::Together(uses, seed) => {
                let window = Window::at(now_ms, limit.count, limit.window_ms);
                let (allowed, remaining) = uses.admit(xxh3_64_with_seed(&key.to_le_bytes(), *seed), window, now_ms);
                Verdict { allowed, remaining, reset_ms: window.end() - now_ms }
            }
        }
    }

    /// The same where another one counts. It is asked once, for all limits.
    fn ask(&self, elsewhere: &Arc<Elsewhere>, x: &Exchange) -> Flow {
        let mut all = Vec::with_capacity(self.limits.len());
        for (number, limit) in self.limits.iter().enumerate() {
            let Some(key) = limit.key.hash(x, limit.seed) else { continue };
            match (limit.count.get(x), limit.seconds.get(x), &self.failure) {
                (Some(count), Some(seconds), _) => {
                    all.push(Asked { number, key, count, window_ms: seconds.saturating_mul(1000) })
                }
                (.., Some(failure)) => return Flow::Answer(Box::new(failure.clone())),
                (.., None) => {}
            }
        }
        elsewhere.ask(self.id(), all)
    }

    /// Whether responses tell what remains.
    fn tells(&self) -> bool {
        self.show || self.ietf
    }

    /// Tells this filter from another one that runs for the same request.
    fn id(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}
