//! Small builders for the tests of this crate: a request from a few words. Production code never sees it.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::imagined::{EmptyDirectory, Imagined};
use super::{ConsumerInfo, Directory, Exchange};

/// Unix milliseconds of all imagined requests.
pub(crate) const NOW_MS: u64 = 1_700_000_000_000;

/// `GET http://host/target` from 192.0.2.7.
pub(crate) fn get(host: &str, target: &str) -> Exchange {
    request("GET", host, target, &[])
}

/// A request with header fields.
pub(crate) fn request(method: &str, host: &str, target: &str, fields: &[(&str, &str)]) -> Exchange {
    at(NOW_MS, method, host, target, fields, Rc::new(EmptyDirectory))
}

/// A request that came at `now_ms`, with people to be found.
pub(crate) fn at(
    now_ms: u64,
    method: &str,
    authority: &str,
    target: &str,
    fields: &[(&str, &str)],
    directory: Rc<dyn Directory>,
) -> Exchange {
    let remote = ([192, 0, 2, 7], 4711).into();
    let local = ([192, 0, 2, 1], 9080).into();
    Imagined { method, authority, target, fields, remote, local }.exchange(heddle_node::clock::now(), now_ms, directory)
}

/// A consumer in the group `staff` with credential `c1` and label `custom_id`.
pub(crate) fn consumer(name: &str) -> ConsumerInfo {
    let labels = BTreeMap::from([("custom_id".into(), "42".into())]);
    ConsumerInfo::new(name.into(), "staff".into(), "c1".into(), labels, false)
}
