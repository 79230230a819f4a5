//! The filter of `zstd`.

use std::sync::Arc;

use serde_json::Value;

use super::super::compress::{Coding, Rules, encoded};
use super::super::{BuildContext, Built, Filter, Offer, Phases, check};
use super::coder::{Shape, Zstd};
use super::config::Config;
use crate::exchange::Exchange;
use crate::http::{Body, ResponseHead};

struct Compressing {
    rules: Rules,
    shape: Shape,
}

pub(super) fn build(value: &Value, _context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let rules = Rules::new(Coding::Zstd, &config.types, &config.excluded_types, config.min_length)
        .for_clients(config.http_version, config.vary)
        .among_others(config.default_encoding, config.preference)
        .in_order_of_clients(config.client_order);
    Ok(Arc::new(Compressing { rules, shape: Shape { level: config.comp_level, window_log: config.window_log } }))
}

impl Filter for Compressing {
    fn phases(&self) -> Phases {
        Phases::ENCODE
    }

    fn offer(&self, x: &mut Exchange, head: &mut ResponseHead, length: Option<u64>) -> Option<Offer> {
        self.rules.offer(x, head, length)
    }

    fn encode(&self, _x: &mut Exchange, head: &mut ResponseHead, body: Body) -> Body {
        let coder = Zstd::new(self.shape, body.remaining());
        encoded(Coding::Zstd, head, body, Box::new(coder))
    }
}
