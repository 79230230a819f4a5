//! The filter of `client-control`.

use std::sync::Arc;

use serde_json::Value;

use super::super::{BuildContext, Built, Filter, Flow, Phases, check};
use super::config::Config;
use super::limited::Limited;
use crate::exchange::{Answer, Exchange, Reason};
use crate::http::Body;

struct ClientControl {
    /// Most bytes; 0 for no limit of our own.
    limit: u64,
    refusal: Answer,
}

pub(super) fn build(value: &Value, _context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    Ok(Arc::new(ClientControl { limit: config.max_body_size, refusal: Answer::of(Reason::BodyTooLarge) }))
}

impl Filter for ClientControl {
    fn phases(&self) -> Phases {
        Phases::REWRITE
    }

    fn rewrite(&self, x: &mut Exchange) -> Flow {
        if self.limit == 0 {
            return Flow::Continue;
        }
        match x.body.remaining() {
            Some(length) if length > self.limit => Flow::Answer(Box::new(self.refusal.clone())),
            Some(_) => Flow::Continue,
            // Chunked, or HTTP/2 without a length: counted while it comes.
            None => {
                x.body = Body::Stream(Box::new(Limited::new(std::mem::take(&mut x.body), self.limit)));
                Flow::Continue
            }
        }
    }
}
