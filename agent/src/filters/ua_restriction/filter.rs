//! The filter of `ua-restriction`.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::{BuildContext, Built, Filter, Flow, Phases, check};
use super::config::Config;
use crate::exchange::pattern::Patterns;
use crate::exchange::{Answer, Exchange, Reason};
use crate::http::Name;

struct UaRestriction {
    patterns: Patterns,
    /// Whether those pass whose name is listed.
    listed_passes: bool,
    /// Whether those pass who do not say their name.
    missing_passes: bool,
    refusal: Answer,
}

pub(super) fn build(value: &Value, _context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let listed_passes = config.allowlist.is_some();
    let list = config.allowlist.or(config.denylist).unwrap_or_default();
    let patterns = Patterns::new(&list, "").map_err(|(_, error)| vec![check::fault_at("", error)])?;
    Ok(Arc::new(UaRestriction {
        patterns,
        listed_passes,
        missing_passes: config.bypass_missing,
        refusal: Answer::json(403, &json!({"message": config.message}), Reason::Plugin),
    }))
}

impl Filter for UaRestriction {
    fn phases(&self) -> Phases {
        Phases::ACCESS
    }

    fn access(&self, x: &mut Exchange) -> Flow {
        // Whoever names itself twice must pass with both.
        let mut names = x.request.fields.get_all_known(Name::UserAgent).peekable();
        let passes = match names.peek() {
            None => self.missing_passes,
            Some(_) => names.all(|name| self.patterns.found_in(name) == self.listed_passes),
        };
        if passes { Flow::Continue } else { Flow::Answer(Box::new(self.refusal.clone())) }
    }
}
