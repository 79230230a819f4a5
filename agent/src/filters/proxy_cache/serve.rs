//! A stored answer as this request gets it: whole, in part, or not at all because the client has it (RFC 9110 sections 13 and 14). It knows no store.

use bytes::Bytes;

use super::entry::Entry;
use super::pending::Status;
use super::rules::{AGE, CACHE_CONTROL, ETAG, EXPIRES, LAST_MODIFIED, parse_date};
use crate::exchange::{Answer, Reason};
use crate::http::digits::Digits;
use crate::http::{FieldName, Fields, Method, ResponseHead};

pub(super) const CACHE_STATUS: FieldName = FieldName::of("Apisix-Cache-Status");
pub(super) const IF_NONE_MATCH: FieldName = FieldName::of("If-None-Match");
pub(super) const IF_MODIFIED_SINCE: FieldName = FieldName::of("If-Modified-Since");
pub(super) const IF_RANGE: FieldName = FieldName::of("If-Range");
pub(super) const RANGE: FieldName = FieldName::of("Range");
const ACCEPT_RANGES: FieldName = FieldName::of("Accept-Ranges");
const CONTENT_RANGE: FieldName = FieldName::of("Content-Range");

/// The stored answer to a request with this method and these fields.
pub(super) fn answer(entry: &Entry, method: &Method, asked: &Fields, now_ms: u64, called: Status, hide: bool) -> Answer {
    let mut head = ResponseHead { status: entry.status, fields: Fields::clone(&entry.fields) };
    let mut digits = Digits::default();
    head.fields.set_own_named(&AGE, digits.of(entry.age(now_ms)));
    head.fields.append_named(&CACHE_STATUS, called.as_str());
    if hide {
        hide_terms(&mut head.fields);
    }
    let mut body = entry.body.clone();
    if entry.status == 200 && matches!(method, Method::Get | Method::Head) {
        if client_has_it(&entry.fields, asked) {
            head.status = 304;
            body = Bytes::new();
        } else if *method == Method::Get {
            body = part(&mut head, body, asked);
        }
    }
    Answer { head, body, reason: Reason::Answered }
}

/// Takes off what tells clients how long they may keep the answer.
pub(super) fn hide_terms(fields: &mut Fields) {
    fields.remove_named(&CACHE_CONTROL);
    fields.remove_named(&EXPIRES);
}

/// RFC 9110 section 13.2.2: `If-None-Match` counts before `If-Modified-Since`.
fn client_has_it(fields: &Fields, asked: &Fields) -> bool {
    if asked.get_named(&IF_NONE_MATCH).is_some() {
        let own = fields.get_named(&ETAG).map(weak);
        let same = |tag: &[u8]| tag == b"*" || own.is_some_and(|own| weak(tag) == own);
        return asked
            .get_all_named(&IF_NONE_MATCH)
            .flat_map(|line| line.split(|byte| *byte == b','))
            .any(|tag| same(tag.trim_ascii()));
    }
    let moment = |fields: &Fields, name| fields.get_named(name).and_then(parse_date);
    match (moment(asked, &IF_MODIFIED_SINCE), moment(fields, &LAST_MODIFIED)) {
        (Some(since), Some(modified)) => modified <= since,
        _ => false,
    }
}

fn weak(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// A single range of bytes out of the whole; several are answered with the whole, as RFC 9110 section 14.2 allows.
fn part(head: &mut ResponseHead, body: Bytes, asked: &Fields) -> Bytes {
    let Some(range) = asked.get_named(&RANGE).filter(|_| range_applies(&head.fields, asked)) else { return body };
    let length = body.len() as u64;
    match parse_range(range, length) {
        None => body,
        Some(None) => {
            head.status = 416;
            head.fields.set_named(&CONTENT_RANGE, format!("bytes */{length}"));
            Bytes::new()
        }
        Some(Some((first, last))) => {
            head.status = 206;
            head.fields.set_named(&CONTENT_RANGE, format!("bytes {first}-{last}/{length}"));
            head.fields.set_named(&ACCEPT_RANGES, "bytes");
            body.slice(first as usize..=last as usize)
        }
    }
}

/// `If-Range` must name exactly what is stored.
fn range_applies(fields: &Fields, asked: &Fields) -> bool {
    let Some(wanted) = asked.get_named(&IF_RANGE) else { return true };
    let same = |name| fields.get_named(name) == Some(wanted);
    if wanted.starts_with(b"\"") { same(&ETAG) } else { !wanted.starts_with(b"W/") && same(&LAST_MODIFIED) }
}

/// First and last byte of a single range; `Some(None)` when nothing of it is there, `None` when it is none that is understood.
fn parse_range(text: &[u8], length: u64) -> Option<Option<(u64, u64)>> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let (first, last) = text.strip_prefix("bytes=")?.trim().split_once('-')?;
    let number = |text: &str| if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse::<u64>().ok() } else { None };
    let range = match (first, last) {
        ("", last) => {
            let wanted = number(last)?.min(length);
            (length - wanted, length.checked_sub(1).filter(|_| wanted > 0))
        }
        (first, "") => (number(first)?, length.checked_sub(1)),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return None;
            }
            (first, length.checked_sub(1).map(|end| end.min(last)))
        }
    };
    Some(match range {
        (first, Some(last)) if first <= last => Some((first, last)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::rules::Terms;
    use super::*;

    fn entry() -> Entry {
        let mut fields = Fields::new();
        fields.append("ETag", "W/\"a\"");
        fields.append("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT");
        fields.append("Cache-Control", "max-age=9");
        let terms = Terms { initial_age: 5, lifetime: 9, ..Terms::default() };
        Entry {
            status: 200,
            fields: Arc::new(fields.laid_out()),
            body: Bytes::from_static(b"0123456789"),
            stored_ms: 1000,
            terms,
        }
    }

    fn ask(fields: &[(&str, &str)]) -> Answer {
        let mut asked = Fields::new();
        fields.iter().for_each(|(name, value)| asked.append(name, value));
        answer(&entry(), &Method::Get, &asked, 3000, Status::Hit, false)
    }

    #[test]
    fn an_answer_tells_its_age_and_where_it_comes_from() {
        let told = ask(&[]);
        assert_eq!((told.head.status, told.head.fields.get_str("age"), &told.body[..]), (200, Some("7"), &b"0123456789"[..]));
        assert_eq!(told.head.fields.get_str("apisix-cache-status"), Some("HIT"));
        let hidden = answer(&entry(), &Method::Get, &Fields::new(), 3000, Status::Stale, true);
        assert_eq!(hidden.head.fields.get("cache-control"), None);
    }

    #[test]
    fn who_has_it_gets_it_not_again() {
        for (fields, status) in [
            (&[("If-None-Match", "\"x\", \"a\"")][..], 304),
            (&[("If-None-Match", "*")], 304),
            (&[("If-None-Match", "\"x\"")], 200),
            (&[("If-Modified-Since", "Sun, 06 Nov 1994 08:49:37 GMT")], 304),
            (&[("If-Modified-Since", "Sun, 06 Nov 1994 08:49:36 GMT")], 200),
            (&[("If-Modified-Since", "nonsense")], 200),
            (&[("If-None-Match", "\"x\""), ("If-Modified-Since", "Sun, 06 Nov 1994 08:49:37 GMT")], 200),
        ] {
            let told = ask(fields);
            assert_eq!((told.head.status, told.body.is_empty()), (status, status == 304), "{fields:?}");
        }
    }

    #[test]
    fn parts_are_cut_out_of_the_whole() {
        let dated = ("If-Range", "Sun, 06 Nov 1994 08:49:37 GMT");
        for (fields, status, body, range) in [
            (&[("Range", "bytes=0-3")][..], 206, "0123", Some("bytes 0-3/10")),
            (&[("Range", "bytes=7-")], 206, "789", Some("bytes 7-9/10")),
            (&[("Range", "bytes=-2")], 206, "89", Some("bytes 8-9/10")),
            (&[("Range", "bytes=-20")], 206, "0123456789", Some("bytes 0-9/10")),
            (&[("Range", "bytes=5-99")], 206, "56789", Some("bytes 5-9/10")),
            (&[("Range", "bytes=10-")], 416, "", Some("bytes */10")),
            (&[("Range", "bytes=-0")], 416, "", Some("bytes */10")),
            (&[("Range", "bytes=3-1")], 200, "0123456789", None),
            (&[("Range", "bytes=0-1,3-4")], 200, "0123456789", None),
            (&[("Range", "lines=0-1")], 200, "0123456789", None),
            (&[("Range", "bytes=0-1"), dated], 206, "01", Some("bytes 0-1/10")),
            (&[("Range", "bytes=0-1"), ("If-Range", "W/\"a\"")], 200, "0123456789", None),
            (&[("Range", "bytes=0-1"), ("If-Range", "\"a\"")], 200, "0123456789", None),
        ] {
            let told = ask(fields);
            assert_eq!((told.head.status, &told.body[..]), (status, body.as_bytes()), "{fields:?}");
            assert_eq!(told.head.fields.get_str("content-range"), range, "{fields:?}");
        }
    }

    proptest! {
        #[test]
        fn any_range_lies_within_the_body(text in "bytes=[0-9]{0,21}-[0-9]{0,21}", length in 0u64..20) {
            if let Some(Some((first, last))) = parse_range(text.as_bytes(), length) {
                prop_assert!(first <= last && last < length);
            }
        }
    }
}
