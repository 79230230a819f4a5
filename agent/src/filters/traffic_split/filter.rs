//! The filter of `traffic-split`.

use std::sync::Arc;

use serde_json::Value;

use super::super::{BuildContext, Built, Filter, Flow, Phases, check};
use super::config::{Config, Rule, WeightedUpstream};
use super::schedule::Schedule;
use crate::exchange::{Exchange, Expr};

struct TrafficSplit {
    rules: Vec<CompiledRule>,
}

struct CompiledRule {
    /// One must hold, unless there are none.
    conditions: Vec<Expr>,
    /// Resource names; `None` is the route's own.
    upstreams: Vec<Option<Arc<str>>>,
    schedule: Schedule,
}

pub(super) fn build(value: &Value, _context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let compiled = |(number, rule): (usize, &Rule)| {
        let names = rule.weighted_upstreams.iter().enumerate();
        let upstreams: Result<_, String> =
            names.map(|(index, entry)| name(entry).map_err(|error| format!("[{index}]: {error}"))).collect();
        Ok(CompiledRule {
            // An entry without an expression always holds, so the rule does.
            conditions: if rule.matches.iter().any(|condition| condition.vars.is_none()) {
                Vec::new()
            } else {
                rule.matches.iter().filter_map(|condition| Expr::compile(condition.vars.as_ref()?).ok()).collect()
            },
            upstreams: upstreams.map_err(|error| vec![check::fault_at(&format!("rules[{number}].weighted_upstreams"), error)])?,
            schedule: Schedule::new(&rule.weighted_upstreams.iter().map(|entry| entry.weight).collect::<Vec<_>>()),
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

impl Filter for TrafficSplit {
    fn phases(&self) -> Phases {
        Phases::ACCESS
    }

    fn access(&self, x: &mut Exchange) -> Flow {
        let fits =
            |rule: &&CompiledRule| rule.conditions.is_empty() || rule.conditions.iter().any(|condition| condition.matches(x));
        if let Some(rule) = self.rules.iter().find(fits)
            && let Some(index) = rule.schedule.next(&mut x.dice)
        {
            x.upstream_override = rule.upstreams[index].clone();
        }
        Flow::Continue
    }
}
