//! The filter of `uri-blocker`.

use std::sync::Arc;

use percent_encoding::percent_decode;
use serde_json::{Value, json};
use smallvec::SmallVec;

use super::super::{BuildContext, Built, Filter, Flow, Phases, check};
use super::config::Config;
use crate::exchange::pattern::Patterns;
use crate::exchange::{Answer, Exchange, Reason};

struct UriBlocker {
    rules: Patterns,
    refusal: Answer,
}

/// Room for a target of usual length, so that looking at it allocates nothing.
type Target = SmallVec<[u8; 512]>;

pub(super) fn build(value: &Value, _context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let fault = |(_, error)| vec![check::fault_at("block_rules", error)];
    let rules = Patterns::new(&config.block_rules, config.options()).map_err(fault)?;
    let refusal = match config.rejected_msg {
        Some(message) => Answer::json(config.rejected_code, &json!({"error_msg": message}), Reason::Plugin),
        None => Answer::empty(config.rejected_code, Reason::Plugin),
    };
    Ok(Arc::new(UriBlocker { rules, refusal }))
}

impl Filter for UriBlocker {
    fn phases(&self) -> Phases {
        Phases::REWRITE
    }

    fn rewrite(&self, x: &mut Exchange) -> Flow {
        if self.is_blocked(&x.original.path, x.original.query.as_deref()) {
            Flow::Answer(Box::new(self.refusal.clone()))
        } else {
            Flow::Continue
        }
    }
}

impl UriBlocker {
    fn is_blocked(&self, path: &str, query: Option<&str>) -> bool {
        let mut target = Target::from_slice(path.as_bytes());
        if let Some(query) = query {
            target.push(b'?');
            target.extend_from_slice(query.as_bytes());
        }
        // Behind percent signs something could hide, and what has no place in a path stands there encoded.
        if self.rules.found_in(&target) {
            return true;
        }
        let decoded = |text: &[u8]| percent_decode(text).collect::<Target>();
        if path.contains('%') && self.rules.found_in(&decoded(&target)) {
            return true;
        }
        query.is_some_and(|query| query.contains('%')) && {
            let rest = decoded(&target[path.len()..]);
            target.truncate(path.len());
            target.extend_from_slice(&rest);
            self.rules.found_in(&target)
        }
    }
}
