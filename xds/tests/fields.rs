//! Each field of each of Envoy's messages that are read, by itself: it is supported, or taken without effect for a reason that the pages give, or refused by its name.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

#[path = "fields/bootstrap.rs"]
mod bootstrap;
#[path = "fields/page.rs"]
mod page;
#[path = "fields/specimens.rs"]
mod specimens;
#[path = "fields/walk.rs"]
mod walk;

use std::collections::BTreeSet;
use std::path::Path;

use walk::Walk;

/// Words that look like names of fields in the source of the decoder.
fn words(folder: &Path, into: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            words(&path, into);
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let named = |word: &&str| {
            word.len() > 2 && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte.is_ascii_digit())
        };
        into.extend(text.split('"').filter(named).map(str::to_owned));
    }
}

#[test]
fn no_field_is_lost_in_silence() {
    let mut known = BTreeSet::new();
    words(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/dialect/envoy/decode"), &mut known);
    let of_bootstrap = bootstrap::idle(&known);
    let walk = Walk::new(known);
    let wrong: Vec<String> = walk.wrong.iter().map(|(place, what)| format!("{}: {what}", place.join(" "))).collect();
    assert!(wrong.is_empty(), "{} fields\n{wrong:#?}", wrong.len());
    let supported: usize = walk.found.values().flat_map(|contexts| contexts.values()).map(|entry| entry.done.len()).sum();
    assert!(
        supported > 400 && walk.refused > 400 && walk.found.len() > 120,
        "{supported} of {} messages, {} refused",
        walk.found.len(),
        walk.refused
    );
    let (explained, twice) = page::explained();
    let idle: BTreeSet<String> = page::idle(&walk).into_iter().chain(of_bootstrap).collect();
    let (silent, gone): (Vec<&String>, Vec<&String>) =
        (idle.difference(&explained).collect(), explained.difference(&idle).collect());
    let table = page::table(&walk);
    if table != page::written() || !silent.is_empty() || !gone.is_empty() {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("envoy-fields.md");
        std::fs::write(&path, &table).unwrap();
        assert!(silent.is_empty(), "taken without effect, and docs/envoy.md has no reason: {silent:#?}");
        assert!(gone.is_empty() && twice.is_empty(), "docs/envoy.md has a reason too much: {gone:#?} {twice:#?}");
        panic!("docs/envoy-fields.md does not say what the code does; {} has the table as it should be", path.display());
    }
}

#[test]
fn what_a_bootstrap_may_say_is_on_the_page() {
    assert_eq!(page::written_of_bootstrap(), bootstrap::table());
}
