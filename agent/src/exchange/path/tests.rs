//! Tests of path normalisation.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn normal(raw: &str, policy: &PathPolicy) -> Result<String, Reason> {
    normalise(raw, policy).map(|path| path.unwrap_or_else(|| raw.to_owned()))
}

fn lenient() -> PathPolicy {
    PathPolicy { reject_encoded_slashes: false, merge_slashes: false, ..PathPolicy::default() }
}

#[test]
fn equivalent_paths_become_the_same() {
    for (raw, expected) in [
        ("/", "/"),
        ("*", "*"),
        ("/%61%7e%2D", "/a~-"),
        ("/%e4%bd%a0", "/%E4%BD%A0"),
        ("/你", "/%E4%BD%A0"),
        ("/a//b///c/", "/a/b/c/"),
        ("/a/./b/", "/a/b/"),
        ("/a/../b", "/b"),
        ("/a/..", "/"),
        ("/a/b/%2e%2E/c", "/a/c"),
        ("/a/.", "/a/"),
        ("/.hidden/..x/...", "/.hidden/..x/..."),
        ("/a;v=1/b", "/a;v=1/b"),
        ("/%252e%252e/x", "/%252e%252e/x"),
        ("/a%20b", "/a%20b"),
        ("/a//../b", "/b"),
        ("/a|b", "/a%7Cb"),
        ("/a%7cb/<{\"^`}>", "/a%7Cb/%3C%7B%22%5E%60%7D%3E"),
        ("/a:b@c!$&'()*+,;=[d]", "/a:b@c!$&'()*+,;=[d]"),
    ] {
        assert_eq!(normal(raw, &PathPolicy::default()).as_deref(), Ok(expected), "{raw}");
    }
}

#[test]
fn unsafe_paths_are_refused() {
    for raw in [
        "",
        "a",
        "/..",
        "/a/../..",
        "/%2e%2e/a",
        "/a%00",
        "/a%0d%0ab",
        "/a%7f",
        "/a\u{1}",
        "/a b",
        "/a\\b",
        "/a%2fb",
        "/a%5Cb",
        "/a%",
        "/a%2",
        "/a%zz",
        "/a#b",
        "/x/..;/admin",
        "/x/..;v=1/admin",
        "/x/.;/admin",
        "/x/..%3b/admin",
    ] {
        assert_eq!(normal(raw, &PathPolicy::default()), Err(Reason::BadPath), "{raw:?}");
    }
}

#[test]
fn a_lenient_policy_keeps_encoded_and_double_slashes() {
    for (raw, expected) in
        [("/a%2fb", "/a%2Fb"), ("/a//b", "/a//b"), ("/a/.//b", "/a//b"), ("/a/./b", "/a/b"), ("/a//../b", "/a/b"), ("//", "//")]
    {
        assert_eq!(normal(raw, &lenient()).as_deref(), Ok(expected), "{raw}");
    }
}

proptest! {
    #[test]
    fn a_normal_path_stays_as_it_is(raw in "/(/|\\.|%2[eEfF]|%[0-9a-fA-F]{2}|;|[a-c|{]|é|\\\\){0,24}", merge: bool, reject: bool) {
        let policy = PathPolicy { reject_encoded_slashes: reject, merge_slashes: merge, ..PathPolicy::default() };
        if let Ok(once) = normal(&raw, &policy) {
            prop_assert_eq!(normal(&once, &policy), Ok(once.clone()));
            prop_assert!(once.starts_with('/') && once.is_ascii());
            prop_assert!(once.split('/').all(|segment| segment != "." && segment != ".."));
            prop_assert!(!merge || !once.contains("//"));
        }
    }

    #[test]
    fn any_text_ends_in_a_path_or_a_refusal(raw in "\\PC{0,30}") {
        let _ = normal(&raw, &PathPolicy::default()).map(|path| assert!(path == "*" || path.starts_with('/')));
    }
}
