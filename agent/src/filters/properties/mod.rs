//! Promises that every plugin of the registry keeps whatever it is configured with: nothing panics, what passes the check can be built, and what
//! is built survives any exchange. It names no plugin.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod arbitrary;

use std::time::Duration;

use bytes::Bytes;
use heddle_xds::catalog::{Catalog, Place};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::registry::all;
use super::testing::{build, settled};
use super::*;
use crate::exchange::testing::request;
use arbitrary::Dice;

/// Configurations for each plugin and property.
const CASES: u32 = 24;
/// Deepest JSON that can come: what reads it stops at 128.
const DEEPEST: usize = 120;
/// How long a client waits here, in a time that passes by itself.
const PATIENCE: Duration = Duration::from_secs(600);

/// Shows what was tried when the thread panics.
struct Tried<'a>(&'a str, Place, &'a Value);

impl Drop for Tried<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{} at {:?}: {}", self.0, self.1, self.2);
        }
    }
}

fn dice(seed: u64) -> Dice {
    Dice::new(fastrand::Rng::with_seed(seed))
}

fn any_plugin() -> impl Strategy<Value = usize> {
    0..all().len()
}

/// A configuration that often passes: from the schema, or the example of the documentation with some fields from the schema.
fn likely(plugin: &Plugin, place: Place, dice: &mut Dice) -> Option<Value> {
    let schema = (plugin.schema)(place)?;
    let examples = arbitrary::examples(plugin.descriptor.name, place);
    let made = dice.of_schema(&schema);
    if examples.is_empty() || dice.one_in(3) {
        return Some(made);
    }
    let mut config = examples[dice.below(examples.len())].clone();
    if let (Some(config), Some(made)) = (config.as_object_mut(), made.as_object()) {
        for (name, value) in made {
            if dice.one_in(4) {
                config.insert(name.clone(), value.clone());
            }
        }
    }
    Some(config)
}

/// What a check cannot know: upstreams that are written in place get their names from the control plane, and the model of `authz-casbin` may stand in
/// metadata or in a file of whoever uses it.
fn is_of_elsewhere(fault: &ConfigFault) -> bool {
    fault.message.ends_with("must be named by the control plane")
        || fault.message.ends_with("plugin_metadata/authz-casbin must hold one")
        || fault.message.ends_with("the file must be on the host of the data plane")
}

fn runtime() -> tokio::runtime::LocalRuntime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build_local(Default::default()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES * all().len() as u32))]

    /// Anything at all may be sent to the Admin API.
    #[test]
    fn no_check_panics(index in any_plugin(), seed: u64) {
        let (plugin, mut dice) = (all()[index], dice(seed));
        for place in [Place::Route, Place::Consumer, Place::Metadata] {
            let config = dice.json(5);
            let _tried = Tried(plugin.descriptor.name, place, &config);
            let _ = Registry::default().check(plugin.descriptor.name, place, &config);
        }
    }

    #[test]
    fn what_passes_the_check_is_built_and_survives_any_exchange(index in any_plugin(), seed: u64) {
        let (plugin, mut dice) = (all()[index], dice(seed));
        let name = plugin.descriptor.name;
        let Some(config) = likely(plugin, Place::Route, &mut dice) else { return Ok(()) };
        let _tried = Tried(name, Place::Route, &config);
        if Registry::default().check(name, Place::Route, &config).is_ok() {
            runtime().block_on(async {
                let filter = build(name, &config, None, &Keep::default());
                let filter = match filter {
                    Ok(filter) => filter,
                    Err(faults) if faults.iter().all(is_of_elsewhere) => return,
                    Err(faults) => panic!("passed the check, but: {faults:?}"),
                };
                for _ in 0..3 {
                    exchange(&*filter, &mut dice).await;
                }
            });
        }
    }

    #[test]
    fn credentials_that_pass_the_check_are_compiled(index in any_plugin(), seed: u64) {
        let plugin = all()[index];
        let Some(config) = likely(plugin, Place::Consumer, &mut dice(seed)) else { return Ok(()) };
        let _tried = Tried(plugin.descriptor.name, Place::Consumer, &config);
        let passes = (plugin.check)(Place::Consumer, &config).is_ok();
        if let (true, Some(compile)) = (passes, plugin.credential) {
            prop_assert!(compile(&config).is_ok());
        }
    }

    #[test]
    fn metadata_that_passes_the_check_can_be_built_with(index in any_plugin(), seed: u64) {
        let (plugin, mut dice) = (all()[index], dice(seed));
        let name = plugin.descriptor.name;
        let (Some(metadata), Some(config)) = (likely(plugin, Place::Metadata, &mut dice), likely(plugin, Place::Route, &mut dice))
        else { return Ok(()) };
        let _tried = Tried(name, Place::Metadata, &metadata);
        let registry = Registry::default();
        if registry.check(name, Place::Metadata, &metadata).is_ok() && registry.check(name, Place::Route, &config).is_ok() {
            // Both are right by themselves; that they fit each other only building can tell.
            runtime().block_on(async { drop(build(name, &config, Some(&metadata), &Keep::default())) });
        }
    }
}

/// Every plugin's example is among what is tried, so that none is only ever refused.
#[test]
fn examples_pass_the_check() {
    for plugin in all() {
        let name = plugin.descriptor.name;
        let places = [Place::Route, Place::Consumer].map(|place| (place, arbitrary::examples(name, place)));
        assert!(places.iter().any(|(_, examples)| !examples.is_empty()), "{name}: its page shows no configuration");
        for (place, config) in places.into_iter().flat_map(|(place, all)| all.into_iter().map(move |one| (place, one))) {
            assert_eq!(Registry::default().check(name, place, &config), Ok(()), "{name}: {config}");
        }
    }
}

#[test]
fn deep_and_long_configurations_are_no_danger() {
    let deep = (0..DEEPEST).fold(json!(1), |inner, _| json!([inner]));
    let deeper = (0..DEEPEST).fold(json!({}), |inner, _| json!({ "rules": [inner] }));
    let long = json!({ "uri": "a".repeat(1 << 20), "regex_uri": vec!["(a|b)*"; 5_000] });
    for plugin in all() {
        for value in [&deep, &deeper, &long] {
            let schema = (plugin.schema)(Place::Route).unwrap_or_default();
            let names = schema["properties"].as_object().into_iter().flat_map(|map| map.keys());
            for config in names.map(|name| json!({ name: value })).chain([(*value).clone()]) {
                let _ = (plugin.check)(Place::Route, &config);
            }
        }
    }
}

#[test]
fn what_is_nested_without_end_is_refused_with_a_word() {
    for plugin in all() {
        let name = plugin.descriptor.name;
        for depth in [check::MAX_DEPTH + 1, 500] {
            let under = |name: &str, value: Value| Value::Object([(name.to_owned(), value)].into_iter().collect());
            let lists = (1..depth).fold(json!([]), |inner, _| Value::Array(vec![inner]));
            let objects = (1..depth).fold(json!({}), |inner, _| under("not", inner));
            for place in [Place::Route, Place::Consumer, Place::Metadata] {
                let schema = (plugin.schema)(place).unwrap_or_default();
                let names = schema["properties"].as_object().into_iter().flat_map(|map| map.keys());
                let both = |name: &String| [under(name, lists.clone()), under(name, objects.clone())];
                for config in names.flat_map(both).chain([lists.clone(), objects.clone(), under("_meta", lists.clone())]) {
                    let faults = Registry::default().check(name, place, &config).unwrap_err();
                    assert!(faults.iter().any(|fault| fault.message.contains("nested deeper")), "{name} {faults:?}");
                    let _ = (plugin.check)(place, &config);
                    if place == Place::Route {
                        let _ = build(name, &config, None, &Keep::default());
                    }
                }
            }
        }
    }
}

/// Drives a filter through all its phases with a request that anybody may send.
async fn exchange(filter: &dyn Filter, dice: &mut Dice) {
    let mut x = arbitrary_request(dice);
    let phases = filter.phases();
    if phases.has(Phases::REWRITE) && !goes_on(filter.rewrite(&mut x), &mut x).await {
        return answered(filter, &mut x, dice).await;
    }
    if phases.has(Phases::ACCESS) && !goes_on(filter.access(&mut x), &mut x).await {
        return answered(filter, &mut x, dice).await;
    }
    if phases.has(Phases::BEFORE_PROXY) && !goes_on(filter.before_proxy(&mut x), &mut x).await {
        return answered(filter, &mut x, dice).await;
    }
    if phases.has(Phases::REQUEST_BODY) {
        let edit = filter.request_body(&mut x);
        edited(edit, dice);
    }
    answered(filter, &mut x, dice).await;
}

/// The way back, of an answer of the upstream or of the gateway's own.
async fn answered(filter: &dyn Filter, x: &mut Exchange, dice: &mut Dice) {
    let phases = filter.phases();
    let mut head = ResponseHead::new([200, 204, 301, 404, 500, 503][dice.below(6)]);
    for _ in 0..dice.below(4) {
        head.fields.append(dice.field_name(), dice.field_value());
    }
    x.answer.status = head.status;
    if phases.has(Phases::AFTER_PROXY) {
        let mut body = Body::from(Bytes::from(dice.bytes()));
        let flow = filter.after_proxy(x, &mut head, &mut body);
        goes_on(flow, x).await;
    }
    if phases.has(Phases::RESPONSE_HEAD) {
        filter.response_head(x, &mut head);
    }
    if phases.has(Phases::RESPONSE_BODY) {
        let edit = filter.response_body(x, &mut head);
        edited(edit, dice);
    }
    if phases.has(Phases::LOG) {
        filter.log(x);
    }
}

async fn goes_on(flow: Flow, x: &mut Exchange) -> bool {
    // A delay may be as long as it was configured; a client that goes away then is what ends it.
    matches!(tokio::time::timeout(PATIENCE, settled(flow, x)).await, Ok(Flow::Continue))
}

fn edited(edit: Option<BodyEdit>, dice: &mut Dice) {
    match edit {
        None | Some(BodyEdit::Replace(_)) => {}
        Some(BodyEdit::Buffer { edit, .. }) => drop(edit(Bytes::from(dice.bytes()))),
        Some(BodyEdit::Stream(mut edit)) => {
            let pieces = (0..dice.below(4)).map(|_| Some(Bytes::from(dice.bytes()))).chain([None]).collect::<Vec<_>>();
            let _ = pieces.into_iter().try_for_each(|piece| edit(piece).map(drop));
        }
    }
}

fn arbitrary_request(dice: &mut Dice) -> Exchange {
    let fields: Vec<(&str, String)> = (0..dice.below(6)).map(|_| (dice.field_name(), dice.field_value())).collect();
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let method = ["GET", "POST", "OPTIONS", "PUT", "HEAD", "BREW"][dice.below(6)];
    let target = ["/", "/get?a=1&b=%41&c", "/a/b/../é?x=%zz&x=2", "/anything/x?sql=' or 1=1--", "/?"][dice.below(5)];
    let mut x = request(method, ["h.example", "h.example:8080", "[::1]:1", ""][dice.below(4)], target, &fields);
    x.body = Body::from(Bytes::from(dice.bytes()));
    x
}
