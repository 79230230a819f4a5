//! The filter of `consumer-restriction`.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde_json::Value;

use super::super::{BuildContext, Built, Filter, Flow, Phases, check, identity};
use super::config::{Config, Kind};
use crate::exchange::{Answer, Exchange};
use crate::http::Method;

struct ConsumerRestriction {
    kind: Kind,
    white: Option<HashSet<Box<str>>>,
    black: HashSet<Box<str>>,
    methods: BTreeMap<Box<str>, Box<[Method]>>,
    unknown: Answer,
    forbidden: Answer,
}

pub(super) fn build(value: &Value, _context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let set = |list: Vec<String>| list.into_iter().map(String::into_boxed_str).collect::<HashSet<_>>();
    let mut methods = BTreeMap::new();
    for allowed in config.allowed_by_methods.into_iter().flatten() {
        // Of several for one the first counts.
        methods
            .entry(allowed.user.into())
            .or_insert_with(|| allowed.methods.iter().map(|name| Method::from_token(name)).collect());
    }
    let what = config.kind.name();
    let message = config.rejected_msg.unwrap_or_else(|| format!("The {what} is forbidden."));
    Ok(Arc::new(ConsumerRestriction {
        kind: config.kind,
        white: config.whitelist.map(set),
        black: config.blacklist.map(set).unwrap_or_default(),
        methods,
        unknown: identity::refusal(401, &format!("The request is rejected, please check the {what} for this request")),
        forbidden: identity::refusal(config.rejected_code, &message),
    }))
}

impl Filter for ConsumerRestriction {
    fn phases(&self) -> Phases {
        Phases::ACCESS
    }

    fn access(&self, x: &mut Exchange) -> Flow {
        let Some(who) = self.who(x) else { return Flow::Answer(Box::new(self.unknown.clone())) };
        if self.admits(who, &x.request.method) { Flow::Continue } else { Flow::Answer(Box::new(self.forbidden.clone())) }
    }
}

impl ConsumerRestriction {
    fn who<'a>(&self, x: &'a Exchange) -> Option<&'a str> {
        let text = match self.kind {
            Kind::ConsumerName => &*x.consumer.as_deref()?.username,
            Kind::ConsumerGroupId => &*x.consumer.as_deref()?.group_id,
            Kind::ServiceId => x.routed()?.service_id(),
            Kind::RouteId => &*x.routed()?.info().id,
        };
        (!text.is_empty()).then_some(text)
    }

    fn admits(&self, who: &str, method: &Method) -> bool {
        if self.black.contains(who) {
            return false;
        }
        let listed = self.white.as_ref().map(|white| white.contains(who));
        if listed == Some(true) || self.methods.is_empty() {
            return listed != Some(false);
        }
        // Who is not in the list may still come in with the methods that are allowed to it.
        match self.methods.get(who) {
            Some(allowed) => allowed.contains(method),
            None => listed != Some(false),
        }
    }
}
