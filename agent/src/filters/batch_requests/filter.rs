//! The filter of `batch-requests`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use heddle_node::clock;
use serde_json::{Value, json};

use super::super::{BuildContext, Built, Filter, Flow, Phases, Resume, check};
use super::config::{Config, Metadata};
use super::parts::{self, Batch, Limits};
use super::{URI, answer};
use crate::exchange::{Answer, Dispatched, Exchange, Inner, Reason};
use crate::http::Method;

struct BatchRequests {
    uri: String,
    batches: Batches,
}

/// How batches are answered.
#[derive(Clone, Copy)]
pub(in crate::filters) struct Batches {
    max_body: u64,
    max_response: u64,
    limits: Limits,
}

pub(super) fn build(value: &Value, context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let metadata: Metadata = context.metadata.map(check::read).transpose()?.unwrap_or_default();
    let batches = Batches::new(&config, &metadata);
    Ok(Arc::new(BatchRequests { uri: config.uri.unwrap_or_else(|| URI.to_owned()), batches }))
}

impl Filter for BatchRequests {
    fn phases(&self) -> Phases {
        Phases::ACCESS
    }

    fn access(&self, x: &mut Exchange) -> Flow {
        if x.request.method == Method::Post && x.original.path == self.uri { self.batches.answer(x) } else { Flow::Continue }
    }
}

impl Batches {
    fn new(config: &Config, metadata: &Metadata) -> Batches {
        let limits = Limits {
            items: config.max_pipeline_items.unwrap_or(metadata.max_pipeline_items),
            timeout: Duration::from_millis(config.max_timeout),
        };
        let max_body = config.max_body_size.unwrap_or(metadata.max_body_size);
        Batches { max_body, max_response: config.max_response_size, limits }
    }

    /// With the bounds that hold where nothing is said.
    ///
    /// # Errors
    /// Never in practice: what is read is empty.
    pub(in crate::filters) fn usual() -> Result<Batches, Vec<heddle_xds::catalog::ConfigFault>> {
        Ok(Batches::new(&check::read(&json!({}))?, &Metadata::default()))
    }

    /// Answers a batch.
    pub(in crate::filters) fn answer(self, x: &Exchange) -> Flow {
        if x.connection.inner {
            return refuse("a batch cannot hold a batch");
        }
        Flow::Body { limit: self.max_body, then: Box::new(move |x, body| self.run(x, &body)) }
    }

    fn run(self, x: &Exchange, body: &Bytes) -> Flow {
        let Batch { timeout, parts } = match parts::read(body, &x.request, self.limits) {
            Ok(batch) => batch,
            Err(why) => return refuse(&why),
        };
        let dispatch =
            |part: parts::Part| x.dispatch(Inner { head: part.head, body: part.body, limit: self.max_response, upstream: None });
        let parts: Vec<Dispatched> = parts.into_iter().map(dispatch).collect();
        Flow::Wait(Box::pin(async move {
            let answer = Answer::json(200, &gather(parts, timeout, self.max_response).await, Reason::Answered);
            Box::new(move |_: &mut Exchange| Flow::Answer(Box::new(answer))) as Resume
        }))
    }
}

fn refuse(why: &str) -> Flow {
    Flow::Answer(Box::new(Answer::json(400, &json!({ "error_msg": why }), Reason::Plugin)))
}

/// The answers, in order: requests are made one after the other, as over one connection, so that a later one sees what an earlier one has done.
async fn gather(parts: Vec<Dispatched>, timeout: Duration, mut left: u64) -> Value {
    let end = clock::now() + timeout;
    let mut entries = Vec::with_capacity(parts.len());
    for part in parts {
        let entry = match tokio::time::timeout_at(end, part).await {
            Err(_) => answer::late(),
            Ok(Ok((head, body))) if body.len() as u64 <= left => {
                left -= body.len() as u64;
                answer::entry(&head, &body)
            }
            Ok(Ok(_)) => answer::broken(Reason::Overflow),
            Ok(Err(reason)) => answer::broken(reason),
        };
        entries.push(entry);
    }
    Value::Array(entries)
}
