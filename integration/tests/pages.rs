//! Every page of a plugin tells the truth: its examples are run, on a real Heddle, as a reader would run them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "pages/migration.rs"]
mod migration;

use std::sync::Mutex;

use heddle_agent::filters::Registry;
use heddle_integration::pages::{self, story, table};
use heddle_xds::catalog::Catalog;

/// Pages that are run at the same time.
const AT_ONCE: usize = 4;

#[test]
fn examples_do_what_their_pages_show() {
    let waiting = Mutex::new(pages::names());
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(name) = { waiting.lock().unwrap().pop() } {
                    if let Err(why) = pages::run(&pages::text(&name)) {
                        failed.lock().unwrap().push(format!("docs/plugins/{name}.md\n{why}"));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} pages do not tell the truth:\n\n{}", failed.len(), failed.join("\n\n"));
}

#[test]
fn every_plugin_has_a_page_whose_example_uses_it() {
    for descriptor in Registry::default().descriptors() {
        let steps = story::steps(&pages::text(descriptor.name));
        let used = steps.iter().any(|step| step.command.contains(&format!("\"{}\"", descriptor.name)));
        assert!(used, "docs/plugins/{}.md: no command of a console block configures the plugin", descriptor.name);
    }
}

#[test]
fn tables_say_what_the_schemas_say() {
    let outdated = pages::outdated(&Registry::default()).unwrap();
    let files: Vec<String> = outdated.iter().map(|(path, _)| path.display().to_string()).collect();
    assert!(
        files.is_empty(),
        "{files:?}: run `cargo run -p heddle-integration --example pages -- bless` and look at what has changed"
    );
}

#[test]
fn every_field_has_a_meaning() {
    for descriptor in Registry::default().descriptors() {
        let page = table::with_fields(&pages::text(descriptor.name), &Registry::default(), descriptor).unwrap();
        let silent: Vec<&str> = page.lines().filter(|line| line.starts_with("| `") && line.ends_with("|  |")).collect();
        assert!(silent.is_empty(), "{}: fields without a doc comment: {silent:?}", descriptor.name);
    }
}

#[test]
fn the_guide_shows_what_stands_in_the_source() {
    let guide = pages::text("CONTRIBUTING");
    let snippets: Vec<&str> = guide.split("```rust\n// ").skip(1).map(|rest| rest.split("\n```").next().unwrap()).collect();
    assert!(snippets.len() >= 4);
    for snippet in snippets {
        let (path, code) = snippet.split_once('\n').unwrap();
        let source = std::fs::read_to_string(pages::folder().join("../..").join(path)).unwrap();
        assert!(source.contains(code), "docs/plugins/CONTRIBUTING.md: this does not stand in {path} any more:\n{code}");
    }
}
