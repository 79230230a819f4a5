//! The filter of `referer-restriction`.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::{BuildContext, Built, Filter, Flow, Phases, check};
use super::config::Config;
use super::hosts::{Hosts, host};
use crate::exchange::{Answer, Exchange, Reason};
use crate::http::FieldName;

const REFERER: FieldName = FieldName::of("Referer");

struct RefererRestriction {
    hosts: Hosts,
    /// Whether those pass who come from a listed host.
    listed_passes: bool,
    /// Whether those pass who do not say where they come from.
    missing_passes: bool,
    refusal: Answer,
}

pub(super) fn build(value: &Value, _context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let listed_passes = config.whitelist.is_some();
    let list = config.whitelist.or(config.blacklist).unwrap_or_default();
    Ok(Arc::new(RefererRestriction {
        hosts: Hosts::new(&list),
        listed_passes,
        missing_passes: config.bypass_missing,
        refusal: Answer::json(403, &json!({"message": config.message}), Reason::Plugin),
    }))
}

impl Filter for RefererRestriction {
    fn phases(&self) -> Phases {
        Phases::ACCESS
    }

    fn access(&self, x: &mut Exchange) -> Flow {
        let passes = match x.request.fields.get_named(&REFERER).and_then(host) {
            None => self.missing_passes,
            Some(host) => self.hosts.contains(host) == self.listed_passes,
        };
        if passes { Flow::Continue } else { Flow::Answer(Box::new(self.refusal.clone())) }
    }
}
