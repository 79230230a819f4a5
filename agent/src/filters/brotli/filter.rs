//! The filter of `brotli`.

use std::sync::Arc;

use ::brotli::enc::BrotliEncoderParams;
use serde_json::Value;

use super::super::compress::{Coding, Rules, encoded};
use super::super::{BuildContext, Built, Filter, Offer, Phases, check};
use super::coder::{Brotli, parameters};
use super::config::Config;
use crate::exchange::Exchange;
use crate::http::{Body, ResponseHead};

struct Compressing {
    rules: Rules,
    parameters: BrotliEncoderParams,
}

pub(super) fn build(value: &Value, _context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let rules = Rules::new(Coding::Brotli, &config.types, &config.excluded_types, config.min_length)
        .for_clients(config.http_version, config.vary)
        .among_others(config.default_encoding, config.preference)
        .in_order_of_clients(config.client_order);
    Ok(Arc::new(Compressing { rules, parameters: parameters(&config) }))
}

impl Filter for Compressing {
    fn phases(&self) -> Phases {
        Phases::ENCODE
    }

    fn offer(&self, x: &mut Exchange, head: &mut ResponseHead, length: Option<u64>) -> Option<Offer> {
        self.rules.offer(x, head, length)
    }

    fn encode(&self, _x: &mut Exchange, head: &mut ResponseHead, body: Body) -> Body {
        let coder = Brotli::new(&self.parameters);
        encoded(Coding::Brotli, head, body, Box::new(coder))
    }
}
