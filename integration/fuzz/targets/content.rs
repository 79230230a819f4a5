//! What variables find in bodies: GraphQL documents, forms, and paths into JSON. Input: a path and the body.
#![no_main]

use heddle_agent::exchange::content::{JsonPath, Operation, form};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

#[path = "common.rs"]
mod common;

fuzz_target!(|data: &[u8]| {
    let Some(([path], body)) = common::lines(data) else { return };
    if let Some(operation) = Operation::parse(body) {
        assert!(operation.root_fields.len() <= 1_000);
    }
    let _ = form(body.as_bytes());
    let (Some(path), Ok(mut document)) = (JsonPath::parse(path), serde_json::from_str::<Value>(body)) else { return };
    let found = path.find(&document).len();
    assert!(found <= 1_000);
    // What is found is what an edit meets, as long as nothing is given up on.
    let mut met = 0;
    let any = path.edit(&mut document, &mut |_| {
        met += 1;
        true
    });
    assert_eq!(any, found > 0, "{document}");
});
