//! The filter of `limit-count`.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::super::{BuildContext, Built, Filter, Flow, Phases, check};
use super::config::{Amount, Config, KeyType, Metadata, WindowType};
use super::counters::{Counters, Limit, Verdict};
use super::quota::{self, Names, Quota};
use crate::exchange::variable::Value as VariableValue;
use crate::exchange::{Answer, Exchange, Reason, Template, Variable};
use crate::http::ResponseHead;

struct LimitCount {
    limits: Vec<CompiledLimit>,
    kind: WindowType,
    counters: Arc<Counters>,
    refusal: Answer,
    /// The answer when a limit cannot be told; `None` lets the request through.
    failure: Option<Answer>,
    show: bool,
}

struct CompiledLimit {
    key: Key,
    /// Keeps the keys of several limits apart.
    seed: u64,
    count: Number,
    seconds: Number,
    names: Names,
}

enum Key {
    Variable(Variable),
    Combination(Template),
    Constant,
    /// Of a rule: without any variable that can be resolved the rule is skipped.
    Rule(Template),
}

enum Number {
    Fixed(u64),
    Template(Template),
}

pub(super) fn build(value: &Value, context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let metadata: Metadata = context.metadata.map(check::read).transpose()?.unwrap_or_default();
    let refusal = match &config.rejected_msg {
        Some(text) => Answer::json(config.rejected_code, &json!({"error_msg": text}), Reason::Plugin),
        None => Answer::empty(config.rejected_code, Reason::Plugin),
    };
    let failure = json!({"error_msg": "failed to limit count"});
    Ok(Arc::new(LimitCount {
        limits: limits(&config, &metadata),
        kind: config.window_type,
        counters: context.keep.get_or(&store_key(&config, value, context.origin), Counters::default),
        refusal,
        failure: (!config.allow_degradation).then(|| Answer::json(500, &failure, Reason::PluginFailed)),
        show: config.show_limit_quota_header,
    }))
}

/// Counters outlive a change of tables as long as the configuration stays the same; routes of a group share theirs.
fn store_key(config: &Config, value: &Value, origin: &str) -> String {
    match &config.group {
        Some(group) => format!("limit-count/group/{group}"),
        None => format!("limit-count/{origin}/{:032x}", xxh3_128_with_seed(value.to_string().as_bytes(), 0)),
    }
}

fn limits(config: &Config, metadata: &Metadata) -> Vec<CompiledLimit> {
    if let (Some(count), Some(seconds)) = (&config.count, &config.time_window) {
        let key = match config.key_type {
            KeyType::Var => Key::Variable(Variable::new(&config.key)),
            KeyType::VarCombination => Key::Combination(Template::new(&config.key)),
            KeyType::Constant => Key::Constant,
        };
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

impl Key {
    /// The hash of the key of this request, `None` when the limit does not concern it.
    fn hash(&self, x: &Exchange, seed: u64) -> Option<u128> {
        match self {
            Key::Constant => Some(0),
            Key::Variable(variable) => Some(match variable.value(x) {
                Some(VariableValue::Ip(ip)) => hash_ip(ip, seed),
                Some(value) => match value.into_text() {
                    text if text.is_empty() => hash_ip(x.remote.ip(), seed),
                    text => xxh3_128_with_seed(text.as_bytes(), seed),
                },
                None => hash_ip(x.remote.ip(), seed),
            }),
            Key::Combination(template) => Some(hash_template(template, x, seed).unwrap_or_else(|| hash_ip(x.remote.ip(), seed))),
            // A key without variables is one counter for all.
            Key::Rule(template) if template.literal().is_some() => Some(seed.into()),
            Key::Rule(template) => hash_template(template, x, seed),
        }
    }
}

fn hash_ip(ip: IpAddr, seed: u64) -> u128 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => xxh3_128_with_seed(&ip.octets(), seed),
        IpAddr::V6(ip) => xxh3_128_with_seed(&ip.octets(), seed),
    }
}

/// `None` when no variable could be resolved.
fn hash_template(template: &Template, x: &Exchange, seed: u64) -> Option<u128> {
    let mut text = String::with_capacity(64);
    (template.render_into(x, &mut text) > 0).then(|| xxh3_128_with_seed(text.as_bytes(), seed))
}

impl Filter for LimitCount {
    fn phases(&self) -> Phases {
        if self.show { Phases::ACCESS.and(Phases::RESPONSE_HEAD) } else { Phases::ACCESS }
    }

    fn access(&self, x: &mut Exchange) -> Flow {
        for (number, limit) in self.limits.iter().enumerate() {
            let Some(key) = limit.key.hash(x, limit.seed) else { continue };
            let (Some(count), Some(seconds)) = (limit.count.get(x), limit.seconds.get(x)) else {
                match &self.failure {
                    Some(failure) => return Flow::Answer(Box::new(failure.clone())),
                    None => continue,
                }
            };
            let bounds = Limit { count, window_ms: seconds.saturating_mul(1000), kind: self.kind };
            let verdict = self.counters.count(key, bounds, x.started_ms);
            if self.show {
                let Verdict { remaining, reset_ms, .. } = verdict;
                quota::keep(x, self.id(), Quota { limit: number, count, remaining, reset_ms });
            }
            if !verdict.allowed {
                return Flow::Answer(Box::new(self.refusal.clone()));
            }
        }
        Flow::Continue
    }

    fn response_head(&self, x: &mut Exchange, head: &mut ResponseHead) {
        for quota in quota::kept(x, self.id()) {
            self.limits[quota.limit].names.write(quota, &mut head.fields);
        }
    }
}

impl LimitCount {
    /// Tells this filter from another one that runs for the same request.
    fn id(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}
