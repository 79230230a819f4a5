//! Requests that filters make to this gateway itself: they run on the same worker, through the same pipeline.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use heddle_node::clock;

use super::http::Pipeline;
use super::plan::Plan;
use super::worker::Worker;
use crate::exchange::{Call, ConnectionInfo, Dispatched, Exchange, Inner, Interim, Reason, Sent, Service};
use crate::http::{Body, BodyError, Name, ResponseHead};

/// Runs one request on this worker.
pub fn dispatch(worker: Rc<Worker>, connection: Rc<ConnectionInfo>, inner: Inner) -> Dispatched {
    Box::pin(async move {
        if let Some(upstream) = inner.upstream.clone() {
            return straight(worker, connection, inner, upstream).await;
        }
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

/// Sends a request to an upstream as it is; nobody but the filter that made it hears of it.
async fn straight(
    worker: Rc<Worker>,
    connection: Rc<ConnectionInfo>,
    inner: Inner,
    upstream: Arc<str>,
) -> Result<(ResponseHead, Bytes), Reason> {
    let view = Rc::new(worker.view().without_filters());
    let mut x = Exchange::new(connection, inner.head, clock::now(), clock::unix_ms(), view.clone(), worker.dice());
    x.upstream_override = Some(upstream);
    let (plan, body) = (Plan::new(view), Body::from(inner.body));
    let served = Pipeline::new(worker).forward(&mut x, &plan, body, false, &Interim::none()).await;
    let mut served = served.map_err(|answer| answer.reason)?;
    match served.body.collect_whole(inner.limit).await {
        Ok((body, trailers)) => {
            // The status of gRPC stands behind the content, where nobody looks who has the head.
            if let Some(status) = trailers.as_ref().and_then(|trailers| trailers.get_known(Name::GrpcStatus)) {
                served.head.fields.set_known(Name::GrpcStatus, status);
            }
            Ok((served.head, body))
        }
        // It is an answer all the same.
        Err(BodyError::TooLarge(_)) => Ok((served.head, Bytes::new())),
        Err(error) => Err(reason(&error)),
    }
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
