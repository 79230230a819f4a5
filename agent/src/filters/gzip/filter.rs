//! The filter of `gzip`.

use std::sync::Arc;

use serde_json::Value;

use super::super::compress::{Coding, Rules, encoded};
use super::super::{BuildContext, Built, Filter, Offer, Phases, check};
use super::coder::Gzip;
use super::config::Config;
use crate::exchange::Exchange;
use crate::http::{Body, ResponseHead};

struct Compressing {
    rules: Rules,
    level: u32,
}

pub(super) fn build(value: &Value, _context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let rules = Rules::new(Coding::Gzip, &config.types, &config.excluded_types, config.min_length)
        .for_clients(config.http_version, config.vary)
        .among_others(config.default_encoding, config.preference)
        .in_order_of_clients(config.client_order);
    Ok(Arc::new(Compressing { rules, level: config.comp_level }))
}

impl Filter for Compressing {
    fn phases(&self) -> Phases {
        Phases::ENCODE
    }

    fn offer(&self, x: &mut Exchange, head: &mut ResponseHead, length: Option<u64>) -> Option<Offer> {
        self.rules.offer(x, head, length)
    }

    fn encode(&self, _x: &mut Exchange, head: &mut ResponseHead, body: Body) -> Body {
        let coder = Gzip::new(self.level);
        encoded(Coding::Gzip, head, body, Box::new(coder))
    }
}
