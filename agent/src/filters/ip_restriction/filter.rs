//! The filter of `ip-restriction`.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::{BuildContext, Built, Filter, Flow, Phases, check};
use super::config::Config;
use super::ranges::Ranges;
use crate::exchange::expr::parse_net;
use crate::exchange::{Answer, Exchange, Reason};

struct IpRestriction {
    ranges: Ranges,
    /// Whether an address in `ranges` passes.
    listed_passes: bool,
    refusal: Answer,
}

pub(super) fn build(value: &Value, _context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let listed_passes = config.whitelist.is_some();
    let list = config.whitelist.or(config.blacklist).unwrap_or_default();
    Ok(Arc::new(IpRestriction {
        ranges: Ranges::new(list.iter().filter_map(|text| parse_net(text))),
        listed_passes,
        refusal: Answer::json(config.response_code, &json!({"message": config.message}), Reason::Plugin),
    }))
}

impl Filter for IpRestriction {
    fn phases(&self) -> Phases {
        Phases::ACCESS
    }

    fn access(&self, x: &mut Exchange) -> Flow {
        if self.ranges.contains(x.remote.ip()) == self.listed_passes {
            Flow::Continue
        } else {
            Flow::Answer(Box::new(self.refusal.clone()))
        }
    }
}
