//! The rules themselves, on small texts that break them.

use super::lexer::split;
use super::rules;
use super::source::Source;

fn source(path: &str, text: &str) -> Source {
    Source::new(path, text)
}

#[test]
fn code_comments_and_literals_are_told_apart() {
    let text = "let a = \"// no\"; // yes \"\nlet b = 'x'; let c: &'static str = r#\"un\"wrap\"#; /* a /* b */ c */ end('\\'')";
    let split = split(text);
    assert_eq!(split.code.len(), text.len());
    let words: Vec<&str> = split.code.split_whitespace().collect();
    assert_eq!(words.join(" "), "let a = ; let b = ; let c: &'static str = ; end( )");
    let comments: Vec<&str> = split.comments.split_whitespace().collect();
    assert_eq!(comments.join(" "), "// yes \" /* a /* b */ c */");
}

#[test]
fn tests_are_not_looked_at() {
    let text = "//! x\nfn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() { x.unwrap(); }\n}\nfn c() { y.unwrap(); }\n";
    assert_eq!(rules::panics(&[source("agent/src/a.rs", text)]).len(), 1);
    assert!(rules::panics(&[source("agent/src/tests.rs", text)]).is_empty());
    let reasoned = "#[expect(clippy::unwrap_used, reason = \"never empty\")]\nfn c() { y.unwrap(); }\n";
    assert!(rules::panics(&[source("agent/src/a.rs", reasoned)]).is_empty());
}

#[test]
fn looking_up_is_found() {
    let order: &[&[&str]] = &[&["low", "side"], &["high"]];
    let low =
        source("agent/src/low/x.rs", "use crate::{side::A, high::{B, C}};\n// use crate::high;\nfn f() { crate::low::g() }");
    let found = rules::order(&[low, source("agent/src/high.rs", "use crate::low;")], "agent", order);
    assert_eq!(found, ["agent/src/low/x.rs:1: module order: `low` must not look up to `high`"]);
    let stranger = rules::order(&[source("agent/src/new/mod.rs", "")], "agent", order);
    assert!(stranger[0].contains("`new` has no place"), "{stranger:?}");
    assert_eq!(
        rules::floors("agent", "[dependencies]\nheddle-xds.workspace = true\nheddle-controlplane.workspace = true", &["xds"])
            .len(),
        1
    );
}

#[test]
fn cycles_are_found() {
    let sources = [
        source("agent/src/a.rs", "use crate::b::X;"),
        source("agent/src/b.rs", "fn f(x: crate::c::Y) {}"),
        source("agent/src/c.rs", "use crate::{a, d};"),
        source("agent/src/d.rs", "use crate::d::Own;"),
    ];
    assert_eq!(rules::cycles(&sources, "agent"), ["agent/src/lib.rs:1: import cycle among the modules a, b, c"]);
    assert!(rules::cycles(&sources[2..], "agent").is_empty());
}

#[test]
fn what_is_too_long_is_found() {
    let long = format!(
        "//! x\nfn f<const N: usize>(a: [u8; 2]) -> Vec<u8>\nwhere\n    u8: Copy,\n{{\n{}}}\n",
        "    a(\"{\");\n".repeat(57)
    );
    let found = rules::sizes(&[source("agent/src/a.rs", &long)]);
    assert_eq!(found, ["agent/src/a.rs:2: function length: `f` has 62 lines, at most 60"]);
    assert!(rules::sizes(&[source("agent/src/a.rs", &long.replacen("    a(\"{\");\n", "", 2))]).is_empty());
    assert_eq!(rules::sizes(&[source("agent/src/a.rs", "use a;\n")]).len(), 1);
    assert_eq!(rules::sizes(&[source("agent/src/a.rs", &format!("//! x\n{}", "const A: u8 = 0;\n".repeat(500)))]).len(), 1);
    let folder: Vec<Source> = (0..13).map(|n| source(&format!("agent/src/{n}.rs"), "//! x\n")).collect();
    assert_eq!(rules::sizes(&folder).len(), 1);
}

#[test]
fn confined_words_are_found() {
    let text = "fn f() { let now = Instant::now(); let s = \"Instant::now\"; } // Instant::now\n";
    let find = |path: &str| rules::confined(&[source(path, text)], &["Instant::now"], &["node/"], "m");
    assert_eq!(find("agent/src/a.rs"), ["agent/src/a.rs:1: `Instant::now`: m"]);
    assert!(find("node/src/clock.rs").is_empty());
}

#[test]
fn leftovers_and_unproven_unsafe_are_found() {
    let promise =
        format!("// {}: later\n#[ignore]\nfn f() {{}}\n#[cfg(feature = \"testing\")]\nfn g() {{}}\n", ["TO", "DO"].concat());
    assert_eq!(rules::leftovers(&[source("agent/src/a.rs", &promise)]).len(), 3);
    let bare = "fn f() { unsafe { g() } }\n";
    assert_eq!(rules::proofs(&[source("agent/src/a.rs", bare)]).len(), 1);
    assert!(rules::proofs(&[source("agent/src/a.rs", &format!("// SAFETY: g does nothing.\n{bare}"))]).is_empty());
}
