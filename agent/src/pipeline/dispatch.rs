//! Requests that filters make to this gateway itself: they run on the same worker, through the same pipeline.

use std::rc::Rc;

use heddle_node::clock;

use super::http::Pipeline;
use super::worker::Worker;
use crate::exchange::{Call, ConnectionInfo, Dispatched, Inner, Interim, Reason, Sent, Service};
use crate::http::{Body, BodyError};

/// Runs one request on this worker.
pub fn dispatch(worker: Rc<Worker>, connection: Rc<ConnectionInfo>, inner: Inner) -> Dispatched {
    Box::pin(async move {
        let call = Call {
            head: inner.head,
            body: Body::from(inner.body),
            wants_upgrade: false,
            interim: Interim::none(),
            started: clock::now(),
            started_ms: clock::unix_ms(),
        };
        let response = Pipeline::new(worker).call(&connection, call).await;
        let (mut sent, collected) = match response.body.collect(inner.limit).await {
            Ok(body) => (Sent { sent: body.len() as u64, ..Sent::default() }, Ok(body)),
            Err(error) => (Sent { reason: reason(&error), ..Sent::default() }, Err(reason(&error))),
        };
        if sent.reason == Reason::None {
            sent.reason = response.reason;
        }
        if let Some(ending) = response.ending {
            ending.ended(sent);
        }
        collected.map(|body| (response.head, body))
    })
}

/// Why the answer of an inner request could not be taken whole.
fn reason(error: &BodyError) -> Reason {
    match error {
        BodyError::TooLarge(_) => Reason::Overflow,
        BodyError::Timeout => Reason::UpstreamTimeout,
        BodyError::Refused => Reason::Policy,
        BodyError::Request(error) => Reason::of_request_body(error),
        BodyError::Aborted | BodyError::Malformed(_) => Reason::UpstreamReset,
    }
}
