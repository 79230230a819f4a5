//! What the tests of all filters share: building one by its name, and looking at its flow. Production code never sees it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};

use heddle_xds::catalog::{Catalog, Place};
use heddle_xds::model;
use serde_json::Value;

use super::{BuildContext, Built, Filter, Flow, Keep, Registry, credentials, registry};
use crate::exchange::testing::{NOW_MS, at};
use crate::exchange::{Answer, ConsumerInfo, Directory, Exchange};
use crate::outbound::Outbound;
use crate::secrets::References;

/// What filters under test ask other services with; it opens nothing before the first call.
pub(crate) static OUTBOUND: LazyLock<Outbound> = LazyLock::new(Outbound::default);
/// References of which none stands for anything.
pub(crate) static REFERENCES: LazyLock<References> =
    LazyLock::new(|| References::new(Arc::new(|_: &str| None), "".into(), Outbound::default()));

/// The filter of a configuration that is right.
pub(crate) fn filter(name: &str, config: &Value) -> Arc<dyn Filter> {
    filter_in(name, config, None, &Keep::default())
}

/// The same with metadata and kept state.
pub(crate) fn filter_in(name: &str, config: &Value, metadata: Option<&Value>, keep: &Keep) -> Arc<dyn Filter> {
    if let Err(faults) = Registry::default().check(name, Place::Route, config) {
        panic!("{faults:?}");
    }
    build(name, config, metadata, keep).unwrap_or_else(|faults| panic!("{faults:?}"))
}

/// The filter of a configuration that has passed the check.
pub(crate) fn build(name: &str, config: &Value, metadata: Option<&Value>, keep: &Keep) -> Built {
    let context = BuildContext::new("route/r1", metadata, keep, &OUTBOUND);
    (registry::find(name).expect("a known plugin").build)(config, &context)
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

/// Consumers and their credentials, found as the tables find them.
#[derive(Default)]
pub(crate) struct People {
    by_name: BTreeMap<String, Arc<ConsumerInfo>>,
    by_credential: BTreeMap<(&'static str, Box<[u8]>), Arc<ConsumerInfo>>,
}

impl People {
    /// One more, who proves who it is by this configuration of a plugin.
    pub(crate) fn with(self, name: &str, plugin: &str, config: Value) -> People {
        self.labelled(name, &[]).known_by(name, plugin, config)
    }

    /// One more, without a credential.
    pub(crate) fn and(self, name: &str) -> People {
        self.labelled(name, &[])
    }

    /// One more, with labels.
    pub(crate) fn labelled(mut self, name: &str, labels: &[(&str, &str)]) -> People {
        self.by_name.insert(name.to_owned(), Arc::new(person(name, labels)));
        self
    }

    fn known_by(mut self, name: &str, plugin: &str, config: Value) -> People {
        Registry::default().check(plugin, Place::Consumer, &config).expect("a right credential");
        let credential = model::Credential { id: "".into(), plugin: plugin.into(), config: Arc::new(config) };
        let compiled = credentials(&[credential]).expect("a credential").remove(0);
        let consumer = person(name, &[]).proven_by(compiled.proof);
        self.by_credential.insert((compiled.plugin, compiled.value), Arc::new(consumer));
        self
    }

    /// A request among them.
    pub(crate) fn ask(self, method: &str, target: &str, fields: &[(&str, &str)]) -> Exchange {
        at(NOW_MS, method, "h", target, fields, Rc::new(self))
    }
}

fn person(name: &str, labels: &[(&str, &str)]) -> ConsumerInfo {
    let labels = labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    ConsumerInfo::new(name.into(), "".into(), "".into(), labels, false)
}

impl Directory for People {
    fn find_credential(&self, plugin: &str, value: &[u8]) -> Option<Arc<ConsumerInfo>> {
        let found = self.by_credential.iter().find(|((known, unique), _)| *known == plugin && **unique == *value);
        found.map(|(_, consumer)| consumer.clone())
    }

    fn consumer(&self, username: &str) -> Option<Arc<ConsumerInfo>> {
        self.by_name.get(username).cloned()
    }
}
