//! RFC 9111 case by case.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

/// Sun, 06 Nov 1994 08:49:37 GMT.
const NOW: u64 = 784_111_777;

fn policy() -> Policy {
    Policy {
        statuses: vec![200, 206, 301, 404],
        heeds_answers: true,
        heeds_requests: true,
        set_cookie: false,
        lifetime: 60,
        stale_while_revalidate: 0,
        stale_if_error: 0,
    }
}

fn head(status: u16, fields: &[(&str, &str)]) -> ResponseHead {
    let mut head = ResponseHead::new(status);
    fields.iter().for_each(|(name, value)| head.fields.append(name, value));
    head
}

fn stored(fields: &[(&str, &str)]) -> Option<Terms> {
    terms(&policy(), Asked::default(), &head(200, fields), NOW * 1000, NOW * 1000)
}

fn request(cache_control: &str) -> Directives {
    Directives::of_request(&head(200, &[("Cache-Control", cache_control)]).fields)
}

#[test]
fn how_long_an_answer_is_fresh() {
    let earlier = "Sun, 06 Nov 1994 08:49:07 GMT";
    for (fields, lifetime) in [
        (&[][..], 60),
        (&[("Cache-Control", "max-age=10")], 10),
        (&[("Cache-Control", "MAX-AGE=\"10\"")], 10),
        (&[("Cache-Control", "max-age=10, s-maxage=20")], 20),
        (&[("Cache-Control", "max-age=10"), ("Cache-Control", "max-age=5")], 5),
        (&[("Cache-Control", "max-age=99999999999999999999")], 1 << 31),
        (&[("Cache-Control", "max-age=10"), ("Expires", earlier)], 10),
        (&[("Cache-Control", "extension=\"a, max-age=1\", max-age=10")], 10),
        (&[("Date", earlier), ("Expires", "Sun, 06 Nov 1994 08:59:07 GMT")], 600),
        (&[("Expires", "Sunday, 06-Nov-94 08:50:37 GMT")], 60),
        (&[("Expires", "Sun Nov  6 08:50:37 1994")], 60),
    ] {
        assert_eq!(stored(fields).unwrap().lifetime, lifetime, "{fields:?}");
    }
    for fields in
        [&[("Cache-Control", "max-age=x")][..], &[("Cache-Control", "max-age=0")], &[("Expires", "0")], &[("Expires", earlier)]]
    {
        assert_eq!(stored(fields), None, "{fields:?}");
        let with_tag: Vec<_> = fields.iter().copied().chain([("ETag", "\"a\"")]).collect();
        assert_eq!(stored(&with_tag).unwrap().lifetime, 0, "{fields:?}: it can be asked for");
    }
}

#[test]
fn what_is_not_stored() {
    for fields in [
        &[("Cache-Control", "no-store")][..],
        &[("Cache-Control", "No-Store, max-age=10")],
        &[("Cache-Control", "private, max-age=10")],
        &[("Cache-Control", "private=\"x, y\"")],
        &[("Cache-Control", "no-cache")],
        &[("Vary", "accept, *")],
        &[("Set-Cookie", "a=b")],
        &[("Content-Range", "bytes 0-1/5")],
        &[("Age", "60")],
    ] {
        assert_eq!(stored(fields), None, "{fields:?}");
    }
    for status in [206, 304, 500, 302] {
        assert_eq!(terms(&policy(), Asked::default(), &head(status, &[]), 0, 0), None, "{status}");
    }
    assert!(stored(&[("Cache-Control", "no-cache"), ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")]).unwrap().no_cache);
    let cookies = Policy { set_cookie: true, ..policy() };
    assert!(terms(&cookies, Asked::default(), &head(200, &[("Set-Cookie", "a=b")]), 0, 0).is_some());
    assert_eq!(terms(&policy(), Asked { no_store: true, ..Asked::default() }, &head(200, &[]), 0, 0), None);
}

#[test]
fn credentials_make_an_answer_ones_own() {
    let asked = Asked { authorization: true, no_store: false };
    for (cache_control, kept) in
        [("max-age=10", false), ("public", true), ("s-maxage=10", true), ("max-age=10, must-revalidate", true), ("", false)]
    {
        for heeds_answers in [true, false] {
            let policy = Policy { heeds_answers, ..policy() };
            let terms = terms(&policy, asked, &head(200, &[("Cache-Control", cache_control)]), 0, 0);
            assert_eq!(terms.is_some(), kept, "{cache_control}");
        }
    }
}

#[test]
fn a_cache_that_heeds_nothing_still_has_its_own_terms() {
    let policy = Policy { heeds_answers: false, stale_if_error: 9, ..policy() };
    let head = head(200, &[("Cache-Control", "no-store"), ("Age", "1000")]);
    let terms = terms(&policy, Asked { no_store: true, ..Asked::default() }, &head, 0, 0).unwrap();
    assert_eq!(terms, Terms { lifetime: 60, stale_if_error: 9, ..Terms::default() });
}

#[test]
fn how_old_an_answer_is_when_it_comes() {
    let age = |fields: &[(&str, &str)], delay: u64| {
        terms(&policy(), Asked::default(), &head(200, fields), (NOW - delay) * 1000, NOW * 1000).unwrap().initial_age
    };
    assert_eq!(age(&[], 0), 0);
    assert_eq!(age(&[("Age", "7")], 3), 10);
    assert_eq!(age(&[("Age", "x")], 3), 3);
    assert_eq!(age(&[("Date", "Sun, 06 Nov 1994 08:49:17 GMT")], 0), 20);
    assert_eq!(age(&[("Date", "Sun, 06 Nov 1994 08:49:17 GMT"), ("Age", "30")], 0), 30);
    assert_eq!(age(&[("Date", "Sun, 06 Nov 1994 09:49:17 GMT")], 0), 0, "a clock that is ahead");
}

#[test]
fn when_a_stored_answer_is_used() {
    let plain = Terms { lifetime: 100, ..Terms::default() };
    let strict = Terms { must_revalidate: true, ..plain };
    let patient = Terms { stale_while_revalidate: 50, ..plain };
    let timid = Terms { no_cache: true, ..plain };
    for (terms, age, cache_control, expected) in [
        (plain, 0, "", Use::Fresh),
        (plain, 99, "", Use::Fresh),
        (plain, 100, "", Use::Revalidate),
        (plain, 10, "no-cache", Use::Revalidate),
        (plain, 10, "max-age=10", Use::Fresh),
        (plain, 11, "max-age=10", Use::Revalidate),
        (plain, 0, "max-age=0", Use::Fresh),
        (plain, 90, "min-fresh=10", Use::Fresh),
        (plain, 91, "min-fresh=10", Use::Revalidate),
        (plain, 150, "max-stale", Use::Stale),
        (plain, 150, "max-stale=50", Use::Stale),
        (plain, 151, "max-stale=50", Use::Revalidate),
        (plain, 150, "max-stale=50, max-age=120", Use::Revalidate),
        (strict, 99, "", Use::Fresh),
        (strict, 101, "max-stale", Use::Revalidate),
        (patient, 100, "", Use::Refresh),
        (patient, 149, "", Use::Refresh),
        (patient, 150, "", Use::Revalidate),
        (patient, 120, "no-cache", Use::Revalidate),
        (Terms { must_revalidate: true, ..patient }, 120, "", Use::Revalidate),
        (timid, 0, "", Use::Revalidate),
        (timid, 0, "max-stale", Use::Revalidate),
    ] {
        assert_eq!(terms.usable(age, Some(&request(cache_control))), expected, "{terms:?} {age} {cache_control}");
    }
    assert_eq!(plain.usable(10, None), Use::Fresh);
}

#[test]
fn when_a_stale_answer_helps_out() {
    let terms = stored(&[("Cache-Control", "max-age=10, stale-if-error=20, stale-while-revalidate=5")]).unwrap();
    assert_eq!((terms.stale_if_error, terms.stale_while_revalidate), (20, 5));
    assert!(terms.helps_out(29) && !terms.helps_out(30));
    let strict = stored(&[("Cache-Control", "max-age=10, stale-if-error=20, must-revalidate")]).unwrap();
    assert!(!strict.helps_out(11));
}

#[test]
fn pragma_speaks_for_old_clients() {
    let of = |fields: &[(&str, &str)]| Directives::of_request(&head(200, fields).fields).no_cache;
    assert!(of(&[("Pragma", "x, No-Cache")]));
    assert!(!of(&[("Pragma", "no-cache"), ("Cache-Control", "max-age=5")]));
}

#[test]
fn dates_are_read_in_three_forms() {
    for text in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
        assert_eq!(parse_date(text.as_bytes()), Some(NOW), "{text}");
    }
    for text in [
        "",
        "0",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1969 08:49:37 GMT",
        "Sun, 40 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 25:49:37 GMT",
    ] {
        assert_eq!(parse_date(text.as_bytes()), None, "{text}");
    }
}

fn moment() -> impl Strategy<Value = (u64, usize, u64, u64, u64, u64)> {
    (1970u64..10_000, 0usize..12, 1u64..29, 0u64..24, 0u64..60, 0u64..60)
}

proptest! {
    #[test]
    fn dates_come_in_their_order(a in moment(), b in moment()) {
        let parsed = |(year, month, day, hour, minute, second): (u64, usize, u64, u64, u64, u64)| {
            let month = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"][month];
            parse_date(format!("Sun, {day:02} {month} {year} {hour:02}:{minute:02}:{second:02} GMT").as_bytes()).unwrap()
        };
        prop_assert_eq!(parsed(a).cmp(&parsed(b)), a.cmp(&b));
    }

    #[test]
    fn any_field_is_read_or_ignored(value in "[a-z=\",0-9 \\\\-]{0,60}", date in "[A-Za-z0-9 :,-]{0,40}") {
        let head = head(200, &[("Cache-Control", &value), ("Expires", &date), ("Date", &date), ("Age", &value)]);
        if let Some(terms) = terms(&policy(), Asked::default(), &head, 0, NOW * 1000) {
            prop_assert!(terms.lifetime <= 1 << 31 || terms.lifetime <= 253_402_300_799);
            terms.usable(terms.initial_age, Some(&Directives::of_request(&head.fields)));
        }
    }
}
