//! Requests that filters make to this gateway itself, on behalf of a client's request. It does not know how they are run.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::{ConnectionInfo, Exchange, Reason};
use crate::http::{RequestHead, ResponseHead};

/// A request that a filter makes.
pub struct Inner {
    /// Its head.
    pub head: Box<RequestHead>,
    /// Its whole body.
    pub body: Bytes,
    /// Most bytes of the answer that are taken.
    pub limit: u64,
    /// The upstream that it goes to as it is, past routes, filters, counters and logs, and of whose answer a body beyond the limit is not taken; `None`: it is
    /// run like a client's.
    pub upstream: Option<Arc<str>>,
}

/// The whole answer, sooner or later, with the status of gRPC among the fields of the head; the reason when it broke off or was longer than the limit. Dropping it ends the request.
pub type Dispatched = Pin<Box<dyn Future<Output = Result<(ResponseHead, Bytes), Reason>>>>;

impl Exchange {
    /// Runs a request through the whole gateway: it is routed, filtered, forwarded, counted and logged like one that this client has sent.
    /// A request made so cannot make others: that fails with [`Reason::NotImplemented`].
    pub fn dispatch(&self, inner: Inner) -> Dispatched {
        if self.connection.inner {
            return Box::pin(std::future::ready(Err(Reason::NotImplemented)));
        }
        let connection = ConnectionInfo { inner: true, ..ConnectionInfo::clone(&self.connection) };
        self.directory.dispatch(Rc::new(connection), inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::testing::get;
    use super::*;
    use crate::http::Body;

    #[tokio::test]
    async fn a_request_of_a_filter_makes_no_others() {
        let mut x = get("h", "/");
        x.connection = Rc::new(ConnectionInfo { inner: true, ..ConnectionInfo::clone(&x.connection) });
        let inner = Inner { head: Box::default(), body: Bytes::new(), limit: 1, upstream: None };
        assert_eq!(x.dispatch(inner).await.unwrap_err(), Reason::NotImplemented);
    }

    #[tokio::test]
    async fn a_body_is_read_once_and_stays() {
        let mut x = get("h", "/");
        x.body = Body::from(Bytes::from_static(b"abc"));
        assert_eq!(x.read_body(3).await.unwrap(), "abc");
        assert_eq!(x.read_body(2).await, Err(Reason::BodyTooLarge));
        assert_eq!(x.read_body(3).await.unwrap(), "abc");
    }
}
