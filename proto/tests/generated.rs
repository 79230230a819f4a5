//! The committed Rust is what the `.proto` files say.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod generator;

use std::collections::BTreeMap;
use std::path::Path;

fn read(folder: &Path, below: &Path, into: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read(&path, below, into);
        } else {
            let name = path.strip_prefix(below).unwrap().to_string_lossy().into_owned();
            into.insert(name, std::fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn committed_code_is_what_the_protos_say() {
    let folder = generator::root().join("src/gen");
    let mut committed = BTreeMap::new();
    read(&folder, &folder, &mut committed);
    let generated = generator::generate().unwrap();
    let names = |set: &BTreeMap<String, String>| set.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&committed), names(&generated));
    for (name, text) in generated {
        assert!(committed[&name] == text, "src/gen/{name} is stale; run: cargo run -p heddle-proto --example generate");
    }
}
