//! What all authentication plugins do once they know who it is. It knows no way of proving it.

use std::sync::Arc;

use crate::exchange::{ConsumerInfo, Exchange};
use crate::http::Fields;

const USERNAME: &str = "X-Consumer-Username";
const CREDENTIAL: &str = "X-Credential-Identifier";
const CUSTOM_ID: &str = "X-Consumer-Custom-ID";

/// Writes down who it is, for later filters and for the upstream. What the client claimed in these fields is dropped.
pub(crate) fn attach(x: &mut Exchange, consumer: Arc<ConsumerInfo>) {
    let fields = &mut x.request.fields;
    replace(fields, USERNAME, &consumer.username);
    replace(fields, CREDENTIAL, &consumer.credential_id);
    replace(fields, CUSTOM_ID, &consumer.custom_id);
    x.consumer = Some(consumer);
}

fn replace(fields: &mut Fields, name: &str, value: &str) {
    if value.is_empty() {
        fields.remove(name);
    } else {
        fields.set(name, value);
    }
}
