//! The filter of `traffic-split`.

use std::sync::Arc;

use serde_json::Value;

use super::super::set_cookie::SetCookie;
use super::super::{BuildContext, Built, Filter, Flow, Phases, check};
use super::affinity::Affinity;
use super::config::{Config, Rule, Sticky, WeightedUpstream};
use super::schedule::Schedule;
use crate::exchange::{Exchange, Expr, Template, Variable};
use crate::http::ResponseHead;

struct TrafficSplit {
    rules: Vec<CompiledRule>,
}

struct CompiledRule {
    /// One must hold, unless there are none.
    conditions: Vec<Expr>,
    /// Resource names; `None` is the route's own.
    upstreams: Vec<Option<Arc<str>>>,
    turns: Turns,
}

/// How an upstream is chosen.
enum Turns {
    /// In turns.
    Shared(Schedule),
    /// By what the client is known by.
    Sticky(Affinity, KnownBy),
}

/// What a client is known by.
enum KnownBy {
    Cookie(SetCookie),
    Variable(Variable),
    Text(Template),
}

pub(super) fn build(value: &Value, context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    // Upstreams take turns on each route by itself.
    context.own();
    let compiled = |(number, rule): (usize, &Rule)| {
        let names = rule.weighted_upstreams.iter().enumerate();
        let upstreams: Result<Vec<Option<Arc<str>>>, String> =
            names.map(|(index, entry)| name(entry).map_err(|error| format!("[{index}]: {error}"))).collect();
        let upstreams =
            upstreams.map_err(|error| vec![check::fault_at(&format!("rules[{number}].weighted_upstreams"), error)])?;
        let weights = rule.weighted_upstreams.iter().map(|entry| entry.weight);
        Ok(CompiledRule {
            // An entry without an expression always holds, so the rule does.
            conditions: if rule.matches.iter().any(|condition| condition.vars.is_none()) {
                Vec::new()
            } else {
                rule.matches.iter().filter_map(|condition| Expr::compile(condition.vars.as_ref()?).ok()).collect()
            },
            turns: match &rule.sticky {
                None => Turns::Shared(Schedule::new(&weights.collect::<Vec<_>>())),
                Some(sticky) => {
                    let entries = upstreams.iter().map(|name| name.as_deref()).zip(weights);
                    Turns::Sticky(Affinity::new(entries), KnownBy::new(sticky, number, context.origin()))
                }
            },
            upstreams,
        })
    };
    let rules: Result<Vec<_>, Vec<_>> = config.rules.iter().enumerate().map(compiled).collect();
    Ok(Arc::new(TrafficSplit { rules: rules? }))
}

/// The resource name of an entry. The control plane has made a resource of every upstream that was written in place.
fn name(entry: &WeightedUpstream) -> Result<Option<Arc<str>>, &'static str> {
    match (&entry.upstream_id, &entry.upstream) {
        (Some(Value::String(id)), _) => Ok(Some(id.as_str().into())),
        (Some(other), _) => Ok(Some(other.to_string().into())),
        (None, None) => Ok(None),
        (None, Some(_)) => Err("an upstream written in place must be named by the control plane"),
    }
}

impl KnownBy {
    fn new(sticky: &Sticky, rule: usize, origin: &str) -> KnownBy {
        match (&sticky.cookie, &sticky.key) {
            (Some(cookie), _) => KnownBy::Cookie(cookie.compile(&format!("traffic-split {origin} {rule}"))),
            (None, Some(key)) if key.contains('$') => KnownBy::Text(Template::new(key)),
            (None, key) => KnownBy::Variable(Variable::new(key.as_deref().unwrap_or("remote_addr"))),
        }
    }

    /// Hands over what this client is known by. A client without the cookie gets one, whose value is given back.
    fn with<R>(&self, x: &mut Exchange, take: impl FnOnce(&[u8]) -> R) -> (R, Option<u64>) {
        let text = match self {
            KnownBy::Cookie(cookie) => match x.request.cookie(cookie.name()).filter(|value| !value.is_empty()) {
                Some(value) => return (take(value.as_bytes()), None),
                None => {
                    let value = x.dice.u64(..);
                    return (take(format!("{value:016x}").as_bytes()), Some(value));
                }
            },
            KnownBy::Variable(variable) => variable.get(x).map(|text| text.into_owned()),
            KnownBy::Text(template) => Some(template.render(x)),
        };
        let text = text.filter(|text| !text.is_empty()).unwrap_or_else(|| x.remote.ip().to_string());
        (take(text.as_bytes()), None)
    }
}

impl CompiledRule {
    fn choose(&self, x: &mut Exchange) -> (Option<usize>, Option<u64>) {
        match &self.turns {
            Turns::Shared(schedule) => (schedule.next(&mut x.dice), None),
            Turns::Sticky(affinity, known_by) => known_by.with(x, |key| affinity.choose(key)),
        }
    }

    fn cookie(&self) -> Option<&SetCookie> {
        match &self.turns {
            Turns::Sticky(_, KnownBy::Cookie(cookie)) => Some(cookie),
            _ => None,
        }
    }
}

impl Filter for TrafficSplit {
    fn phases(&self) -> Phases {
        let gives_cookies = self.rules.iter().any(|rule| rule.cookie().is_some());
        if gives_cookies { Phases::ACCESS.and(Phases::RESPONSE_HEAD) } else { Phases::ACCESS }
    }

    fn access(&self, x: &mut Exchange) -> Flow {
        let fits =
            |rule: &CompiledRule| rule.conditions.is_empty() || rule.conditions.iter().any(|condition| condition.matches(x));
        let Some(number) = self.rules.iter().position(fits) else { return Flow::Continue };
        let rule = &self.rules[number];
        let (chosen, given) = rule.choose(x);
        if let Some(index) = chosen {
            x.upstream_override = rule.upstreams[index].clone();
        }
        if let Some(value) = given {
            x.note(std::ptr::from_ref(self).addr(), [number as u64, value, 0, 0]);
        }
        Flow::Continue
    }

    fn response_head(&self, x: &mut Exchange, head: &mut ResponseHead) {
        let noted = x.notes(std::ptr::from_ref(self).addr()).next();
        if let Some([number, value, ..]) = noted
            && let Some(cookie) = self.rules.get(number as usize).and_then(CompiledRule::cookie)
        {
            cookie.set(value, &mut head.fields);
        }
    }
}
