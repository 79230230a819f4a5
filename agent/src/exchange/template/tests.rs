//! Tests of templates.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::super::testing::get;
use super::*;

#[test]
fn variables_escapes_and_plain_dollars() {
    let x = get("h.example", "/p?id=7");
    for (source, expected) in [
        ("", ""),
        ("plain", "plain"),
        ("$host", "h.example"),
        ("${host}x", "h.examplex"),
        ("$uri/$arg_id!", "/p/7!"),
        ("[$nothing]", "[]"),
        (r"\$host", "$host"),
        (r"a\b", r"a\b"),
        ("5$ and $", "5$ and $"),
        ("${host", "${host"),
        ("${}", "${}"),
        ("é$host", "éh.example"),
    ] {
        assert_eq!(Template::new(source).render(&x), expected, "{source}");
    }
}

#[test]
fn captures_are_filled_and_counted() {
    let x = get("h", "/");
    let template = Template::new("/$1/${2}/$3");
    let mut out = String::new();
    assert_eq!(template.render_with(&x, &["whole", "a", "b"], &mut out), 2);
    assert_eq!(out, "/a/b/");
}

#[test]
fn literals_are_known_as_such() {
    assert_eq!(Template::new(r"a\$b").literal(), Some("a$b"));
    assert_eq!(Template::new("a$b").literal(), None);
    assert_eq!(Template::new("$host").variable().unwrap().name(), "host");
    assert!(Template::new("$host!").variable().is_none());
}

proptest! {
    #[test]
    fn any_text_compiles_and_text_without_dollar_is_itself(text in "\\PC{0,40}") {
        let x = get("h", "/");
        let rendered = Template::new(&text).render(&x);
        if !text.contains('$') {
            prop_assert_eq!(rendered, text);
        }
    }
}
