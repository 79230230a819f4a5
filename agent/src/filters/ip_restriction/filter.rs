//! The filter of `ip-restriction`.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::ip_strategy::IpStrategy;
use super::super::{BuildContext, Built, Filter, Flow, Phases, check};
use super::config::Config;
use crate::exchange::expr::parse_net;
use crate::exchange::ranges::Ranges;
use crate::exchange::{Answer, Exchange, Reason};

struct IpRestriction {
    strategy: IpStrategy,
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
        strategy: config.ip_strategy.map(|strategy| strategy.compile()).unwrap_or_default(),
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
        // Whoever cannot be placed is on no list of those who may, and not off one of those who may not.
        let passes = self.strategy.address(x).is_some_and(|address| self.ranges.contains(address) == self.listed_passes);
        if passes { Flow::Continue } else { Flow::Answer(Box::new(self.refusal.clone())) }
    }
}
