//! What all authentication plugins do once they know who it is. It knows no way of proving it.

use std::sync::Arc;

use crate::exchange::{ConsumerInfo, Exchange};

/// Writes down who it is, for later filters and for the upstream. What the client claimed in these fields is dropped.
pub(crate) fn attach(x: &mut Exchange, consumer: Arc<ConsumerInfo>) {
    consumer.introduce(&mut x.request.fields);
    x.consumer = Some(consumer);
}
