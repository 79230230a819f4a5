//! The filter of `public-api`.

use std::sync::Arc;

use serde_json::Value;

use super::super::batch_requests::{self, Batches};
use super::super::{BuildContext, Built, Filter, Flow, Phases, check};
use super::config::Config;
use crate::exchange::{Answer, Exchange, Reason};
use crate::http::Method;

struct PublicApi {
    uri: Option<String>,
    batches: Batches,
}

pub(super) fn build(value: &Value, _context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    Ok(Arc::new(PublicApi { uri: config.uri, batches: Batches::usual()? }))
}

impl Filter for PublicApi {
    fn phases(&self) -> Phases {
        Phases::ACCESS
    }

    fn access(&self, x: &mut Exchange) -> Flow {
        let uri = self.uri.as_deref().unwrap_or(&x.original.path);
        match (uri, &x.request.method) {
            (batch_requests::URI, Method::Post) => self.batches.answer(x),
            _ => Flow::Answer(Box::new(Answer::of(Reason::NoRoute))),
        }
    }
}
