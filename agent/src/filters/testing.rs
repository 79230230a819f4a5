//! What the tests of all filters share: building one by its name, and looking at its flow. Production code never sees it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::{Arc, LazyLock};

use heddle_xds::catalog::{Catalog, Place};
use serde_json::Value;

use super::{BuildContext, Filter, Flow, Keep, Registry, registry};
use crate::exchange::{Answer, Exchange};
use crate::outbound::Outbound;

/// What filters under test ask other services with; it opens nothing before the first call.
pub(crate) static OUTBOUND: LazyLock<Outbound> = LazyLock::new(Outbound::default);

/// The filter of a configuration that is right.
pub(crate) fn filter(name: &str, config: &Value) -> Arc<dyn Filter> {
    filter_in(name, config, None, &Keep::default())
}

/// The same with metadata and kept state.
pub(crate) fn filter_in(name: &str, config: &Value, metadata: Option<&Value>, keep: &Keep) -> Arc<dyn Filter> {
    if let Err(faults) = Registry::default().check(name, Place::Route, config) {
        panic!("{faults:?}");
    }
    let context = BuildContext { origin: "route/r1", metadata, keep, outbound: &OUTBOUND };
    match (registry::find(name).expect("a known plugin").build)(config, &context) {
        Ok(filter) => filter,
        Err(faults) => panic!("{faults:?}"),
    }
}

/// The paths of all faults of a configuration on a route.
pub(crate) fn faults(name: &str, config: &Value) -> Vec<String> {
    let found = Registry::default().check(name, Place::Route, config).expect_err("faults");
    found.into_iter().map(|fault| fault.path).collect()
}

/// Whether the request goes on.
pub(crate) fn passes(flow: Flow) -> bool {
    matches!(flow, Flow::Continue)
}

/// The answer that ends the request.
pub(crate) fn answer(flow: Flow) -> Box<Answer> {
    match flow {
        Flow::Answer(answer) => answer,
        Flow::Continue => panic!("the request went on"),
        Flow::Wait(_) => panic!("the filter waits"),
        Flow::Body { .. } => panic!("the filter asks for the body"),
    }
}

/// What a filter says at last: what it waits for is waited for, and a body that it asks for is read from the exchange.
pub(crate) async fn settled(mut flow: Flow, x: &mut Exchange) -> Flow {
    loop {
        flow = match flow {
            Flow::Wait(future) => future.await(x),
            Flow::Body { limit, then } => match x.read_body(limit).await {
                Ok(bytes) => then(x, bytes),
                Err(reason) => Flow::Answer(Box::new(Answer::of(reason))),
            },
            done => return done,
        };
    }
}

/// The first value of a request header.
pub(crate) fn header<'a>(x: &'a Exchange, name: &str) -> Option<&'a str> {
    x.request.fields.get_str(name)
}
