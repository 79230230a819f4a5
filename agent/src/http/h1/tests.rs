//! Stories of the codec: what passes, what is refused, and that pieces read as the whole does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bytes::BytesMut;
use proptest::prelude::*;

use super::date::http_date;
use super::*;
use crate::http::{BodyError, Fields, Method, RequestHead, ResponseHead, Version};

const LIMITS: HeadLimits =
    HeadLimits { max_bytes: 4096, max_field: 1024, max_fields: 20, max_target: 256, connect: false, any_authority: false };

fn request(text: &[u8]) -> Result<Option<(ParsedRequest, RequestHead)>, Fault> {
    let mut head = RequestHead::default();
    let parsed = RequestParser::new(LIMITS).advance(text, &mut head)?;
    Ok(parsed.map(|parsed| (parsed, head)))
}

fn good(text: &str) -> (ParsedRequest, RequestHead) {
    request(text.as_bytes()).unwrap_or_else(|fault| panic!("{text:?}: {fault}")).expect("complete")
}

#[test]
fn a_usual_request_is_read() {
    let (parsed, head) = good("GET /a/b?c=d HTTP/1.1\r\nHost: A.Example:8080\r\nAccept:  */* \r\nX-Tag:\r\n\r\n");
    assert_eq!((head.method.clone(), head.version), (Method::Get, Version::Http11));
    assert_eq!((head.authority.as_str(), head.path.as_str(), head.query.as_deref()), ("a.example:8080", "/a/b", Some("c=d")));
    assert_eq!(
        (head.fields.get("accept"), head.fields.get("x-tag"), head.fields.get("host")),
        (Some(&b"*/*"[..]), Some(&b""[..]), None)
    );
    assert_eq!(parsed.consumed, 70);
    assert_eq!(
        (parsed.length, parsed.persists, parsed.expects_continue, parsed.upgrades),
        (BodyLength::Empty, true, false, false)
    );
}

#[test]
fn targets_in_every_form() {
    let (_, head) = good("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(head.path, "*");
    let (_, head) = good("GET http://A.b:81?x HTTP/1.1\r\nHost: a.B:81\r\n\r\n");
    assert_eq!((head.authority.as_str(), head.path.as_str(), head.query.as_deref()), ("a.b:81", "/", Some("x")));
    let (_, head) = good("OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(head.path, "*");
    assert_eq!(request(b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"), Err(Fault::Method("CONNECT")));
}

#[test]
fn persistence_lengths_expectations_and_upgrades() {
    let of = |fields: &str| good(&format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).0;
    assert!(!of("Connection: x, Close\r\n").persists);
    assert_eq!(of("Content-Length: 0\r\n").length, BodyLength::Empty);
    assert_eq!(of("Content-Length: 0012\r\n").length, BodyLength::Known(12));
    assert_eq!(of("Transfer-Encoding: Chunked\r\n").length, BodyLength::Chunked);
    assert!(of("Expect: 100-Continue\r\n").expects_continue);
    assert!(of("Upgrade: websocket\r\nConnection: Upgrade\r\n").upgrades);
    assert!(!of("Upgrade: websocket\r\n").upgrades);
    assert!(!good("GET / HTTP/1.0\r\n\r\n").0.persists);
    assert!(good("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").0.persists);
    assert!(!good("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n").0.persists);
    assert!(good("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").0.persists);
}

/// Whole requests that are refused as malformed, each for a reason of its own.
const MALFORMED: &[&str] = &[
    // Line structure.
    "GET / HTTP/1.1\nHost: a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\n\n",
    "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
    "\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    " GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    // Request line.
    "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
    "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / x HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /\r\nHost: a\r\n\r\n",
    "GET HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / http/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1x\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.\r\nHost: a\r\n\r\n",
    "GET / HTTP/11\r\nHost: a\r\n\r\n",
    "G{T / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET: / HTTP/1.1\r\nHost: a\r\n\r\n",
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.1\r\nHost: a\r\n\r\n",
    // Targets.
    "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /é HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /\u{0} HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /\u{7f} HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /a\u{b}b HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET a HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET ?a HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET http:// HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET http://a/ HTTP/1.1\r\n\r\n",
    "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET http:/a HTTP/1.1\r\nHost: a\r\n\r\n",
    // Host.
    "GET / HTTP/1.1\r\n\r\n",
    "GET / HTTP/1.1\r\nHost:\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n",
    "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a,b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
    // Fields.
    "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n\t2\r\n\r\n",
    "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost\t: a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX Y: b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX(: b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX\u{0}: b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\né: b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: b\u{0}\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: \u{1b}b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: b\u{7f}\r\n\r\n",
    // Lengths.
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\nx",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nx",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\nx",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\nx",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 1\r\n\r\nx",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1_0\r\n\r\nx",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\nx",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551617\r\n\r\nx",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \u{b}chunked\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\n: chunked\r\n\r\n",
    "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
];

#[test]
fn everything_ambiguous_is_refused() {
    for text in MALFORMED {
        let read = request(text.as_bytes());
        assert!(matches!(read, Err(Fault::Malformed(_))), "{text:?} gives {:?}", read.map(|read| read.map(|(parsed, _)| parsed)));
    }
}

/// Servers that fold the case would do what rules on the method have not seen.
#[test]
fn a_known_method_in_small_letters_is_refused_and_others_pass() {
    let of =
        |method: &str| request(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).map(|read| read.unwrap().1.method);
    for known in ["get", "Get", "delete", "DELETe", "connect", "purge", "Report", "m-search", "propfind"] {
        assert_eq!(of(known), Err(Fault::Malformed("a method in small letters")), "{known}");
    }
    for other in ["M-SEARCH", "PURGE", "REPORT", "QUERY", "FOO", "foo", "gets", "x-delete"] {
        assert_eq!(of(other), Ok(Method::Other(other.into())));
    }
}

#[test]
fn versions_expectations_and_limits_have_statuses_of_their_own() {
    for version in ["0.9", "2.0", "1.2", "3.0"] {
        assert_eq!(request(format!("GET / HTTP/{version}\r\n\r\n").as_bytes()).err(), Some(Fault::Version));
    }
    assert_eq!(request(b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n").err(), Some(Fault::Expectation));
    let long = "x".repeat(300);
    assert_eq!(request(format!("GET /{long} HTTP/1.1\r\n").as_bytes()).err(), Some(Fault::TargetTooLong));
    assert_eq!(request(format!("GET /{long}{long}").as_bytes()).err(), Some(Fault::TargetTooLong));
    let field = "y".repeat(1024);
    assert_eq!(request(format!("GET / HTTP/1.1\r\nX: {field}\r\n").as_bytes()).err(), Some(Fault::TooLarge));
    assert_eq!(request(format!("GET / HTTP/1.1\r\nX: {field}").as_bytes()).err(), Some(Fault::TooLarge));
    assert_eq!(request(format!("GET / HTTP/1.1\r\n{}", "X: y\r\n".repeat(21)).as_bytes()).err(), Some(Fault::TooLarge));
    assert_eq!(
        request(format!("GET / HTTP/1.1\r\n{}", format!("X: {}\r\n", &field[..900]).repeat(5)).as_bytes()).err(),
        Some(Fault::TooLarge)
    );
}

#[test]
fn other_protocols_are_told_at_their_first_byte() {
    assert!(matches!(request(b"\x16\x03\x01"), Err(Fault::Malformed(_))));
    assert!(matches!(request(b"\0"), Err(Fault::Malformed(_))));
    assert_eq!(request(b"\r"), Ok(None));
}

impl PartialEq for RequestHead {
    fn eq(&self, other: &Self) -> bool {
        let plain = |head: &RequestHead| {
            let fields: Vec<_> = head.fields.iter().map(|field| (field.name.to_vec(), field.value.to_vec())).collect();
            (head.method.clone(), head.version, head.authority.clone(), head.path.clone(), head.query.clone(), fields)
        };
        plain(self) == plain(other)
    }
}

fn response(text: &str, kind: RequestKind) -> Result<Option<(ParsedResponse, ResponseHead)>, Fault> {
    let mut head = ResponseHead::default();
    let parsed = ResponseParser::new(LIMITS, kind).advance(text.as_bytes(), &mut head)?;
    Ok(parsed.map(|parsed| (parsed, head)))
}

#[test]
fn responses_are_framed_by_the_rules() {
    let of = |text: &str, kind| response(text, kind).unwrap().unwrap().0;
    let plain = of("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", RequestKind::Other);
    assert_eq!((plain.length, plain.persists), (BodyLength::Known(3), true));
    assert_eq!(of("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", RequestKind::Head).length, BodyLength::Empty);
    assert_eq!(of("HTTP/1.1 304\r\nContent-Length: 3\r\n\r\n", RequestKind::Other).length, BodyLength::Empty);
    assert_eq!(of("HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n", RequestKind::Other).length, BodyLength::Chunked);
    let close = of("HTTP/1.1 200 OK\r\n\r\n", RequestKind::Other);
    assert_eq!((close.length, close.persists), (BodyLength::UntilClose, false));
    assert!(!of("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n", RequestKind::Other).persists);
    assert!(!of("HTTP/1.1 204 No\r\nContent-Length: 3\r\n\r\n", RequestKind::Other).persists);
    assert!(of("HTTP/1.1 101 S\r\nUpgrade: w\r\nConnection: upgrade\r\n\r\n", RequestKind::Other).upgrades);
    assert_eq!(of("HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200", RequestKind::Other).consumed, 31);
}

#[test]
fn malformed_responses_are_refused() {
    for text in [
        "HTTP/1.1 200 OK\nA: b\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1 600 OK\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "HTTP/1.1 200 \u{0}\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.1 100 C\r\nContent-Length: 1\r\n\r\n",
    ] {
        assert!(response(text, RequestKind::Other).is_err(), "{text:?}");
    }
}

type Unchunked = (Vec<u8>, Option<Box<Fields>>, Vec<u8>);

/// Content and trailers of a chunked body fed in pieces of `step` bytes, and what is left behind it.
fn unchunk(text: &[u8], step: usize) -> Result<Unchunked, BodyError> {
    let mut decoder = BodyDecoder::new(BodyLength::Chunked, &LIMITS, 1000, 16);
    let (mut input, mut content, mut trailers) = (BytesMut::new(), Vec::new(), None);
    let mut pieces = text.chunks(step.max(1));
    loop {
        match decoder.decode(&mut input)? {
            Step::Data(bytes) => content.extend_from_slice(&bytes),
            Step::Trailers(fields) => trailers = Some(fields),
            Step::More => match pieces.next() {
                Some(piece) => input.extend_from_slice(piece),
                None => return Err(BodyError::Aborted),
            },
            Step::End => {
                assert!(decoder.is_done());
                pieces.for_each(|piece| input.extend_from_slice(piece));
                return Ok((content, trailers, input.to_vec()));
            }
        }
    }
}

#[test]
fn chunked_bodies_are_read_in_pieces_of_any_size() {
    let text = b"4;a=b\r\nWiki\r\n006;\"\\\";\"\r\npedia \r\nA\r\n0123456789\r\n0\r\nX-Sum: 1\r\nCookie: no\r\n\r\nGET";
    for step in 1..text.len() {
        let (content, trailers, rest) = unchunk(text, step).unwrap();
        assert_eq!((&content[..], &rest[..]), (&b"Wikipedia 0123456789"[..], &b"GET"[..]));
        let trailers = trailers.unwrap();
        assert_eq!((trailers.get("x-sum"), trailers.len()), (Some(&b"1"[..]), 1));
    }
}

#[test]
fn malformed_chunks_are_refused() {
    let many = format!("0\r\n{}\r\n", "A: b\r\n".repeat(21));
    for text in [
        "\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        "-1\r\n",
        " 3\r\nabc\r\n0\r\n\r\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        "3\t;a\r\nabc\r\n0\r\n\r\n",
        "3\nabc\r\n0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "3\r\nabcX\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nab\r\n0\r\n\r\n",
        "3\rabc\r\n0\r\n\r\n",
        "3;\nabc\r\n0\r\n\r\n",
        "3;a=\"\n\"\r\nabc\r\n0\r\n\r\n",
        "3;a\r\r\nabc\r\n0\r\n\r\n",
        "3;a=\"b\r\nabc\r\n0\r\n\r\n",
        "3;a=\"\\\"\r\nabc\r\n0\r\n\r\n",
        "3;a\u{0}\r\nabc\r\n0\r\n\r\n",
        "3;0123456789abcdef0\r\nabc\r\n0\r\n\r\n",
        "00000000000000003\r\nabc\r\n0\r\n\r\n",
        "FFFFFFFFFFFFFFFFF\r\n",
        "G\r\n",
        "0\r\n\n",
        "0\r\nA: b\n\r\n",
        "0\r\nA : b\r\n\r\n",
        "0\r\n A: b\r\n\r\n",
        "0\r\nContent-Length: 3\r\n\r\n",
        "0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "0\r\nHost: a\r\n\r\n",
        many.as_str(),
    ] {
        for step in [1, 3, text.len()] {
            let read = unchunk(text.as_bytes(), step);
            assert!(matches!(read, Err(BodyError::Malformed(_))), "{text:?} gives {read:?}");
        }
    }
    assert_eq!(unchunk(b"FFFFFFFFFFFFFFFF\r\nabc", 1).unwrap_err(), BodyError::TooLarge(1000));
    assert_eq!(unchunk(b"3E9\r\nabc", 1).unwrap_err(), BodyError::TooLarge(1000));
}

#[test]
fn counted_and_open_bodies_end_where_they_must() {
    let mut input = BytesMut::from(&b"abcdef"[..]);
    let mut decoder = BodyDecoder::new(BodyLength::Known(4), &LIMITS, 0, 0);
    assert!(matches!(decoder.decode(&mut input), Ok(Step::Data(bytes)) if &bytes[..] == b"abcd"));
    assert!(matches!(decoder.decode(&mut input), Ok(Step::End)));
    assert_eq!(&input[..], b"ef");
    let mut decoder = BodyDecoder::new(BodyLength::Known(9), &LIMITS, 0, 0);
    assert!(matches!(decoder.decode(&mut input), Ok(Step::Data(_))));
    assert_eq!((decoder.remaining(), decoder.end_of_input()), (Some(7), Err(BodyError::Aborted)));
    let mut open = BodyDecoder::new(BodyLength::UntilClose, &LIMITS, 0, 0);
    assert!(matches!(open.decode(&mut BytesMut::from(&b"x"[..])), Ok(Step::Data(_))));
    assert_eq!((open.is_done(), open.end_of_input(), open.is_done()), (false, Ok(()), true));
}

#[test]
fn heads_are_written_with_the_framing_that_is_sent() {
    let mut head = ResponseHead::new(200);
    head.fields.append("Content-Length", "77");
    head.fields.append("X-Bad", "a\r\nSet-Cookie: stolen");
    head.fields.append("Connection", "x");
    head.fields.append("X-Good", "b");
    let text = |length, persistence| {
        let mut out = Vec::new();
        write_response_head(&mut out, &head, length, persistence, Some(&http_date(0)));
        String::from_utf8(out).unwrap()
    };
    let start = "HTTP/1.1 200 OK\r\nX-Good: b\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n";
    assert_eq!(text(WireLength::Known(10), Persistence::Default), format!("{start}content-length: 10\r\n\r\n"));
    assert_eq!(text(WireLength::AsStated, Persistence::Close), format!("{start}content-length: 77\r\nconnection: close\r\n\r\n"));
    assert_eq!(
        text(WireLength::Chunked, Persistence::KeepAlive),
        format!("{start}transfer-encoding: chunked\r\nconnection: keep-alive\r\n\r\n")
    );
}

#[test]
fn what_is_written_chunked_is_read_back() {
    let mut fields = Fields::new();
    fields.append("x-sum", "5");
    fields.append("host", "dropped");
    let mut out = Vec::new();
    for len in [1, 15, 16, 255, 256] {
        write_chunk_start(&mut out, len);
        out.extend_from_slice(&vec![b'z'; len]);
        out.extend_from_slice(b"\r\n");
    }
    write_last_chunk(&mut out, Some(&fields));
    let (content, trailers, rest) = unchunk(&out, 7).unwrap();
    assert_eq!((content.len(), trailers.unwrap().get("x-sum"), rest.len()), (543, Some(&b"5"[..]), 0));
}

/// Feeds `text` so that it comes in pieces ending at `cuts`.
fn in_pieces(text: &[u8], cuts: &[usize]) -> Result<Option<(ParsedRequest, RequestHead)>, Fault> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (text.len() + 1)).collect();
    cuts.push(text.len());
    cuts.sort_unstable();
    let (mut parser, mut head) = (RequestParser::new(LIMITS), RequestHead::default());
    for cut in cuts {
        if let Some(parsed) = parser.advance(&text[..cut], &mut head)? {
            return Ok(Some((parsed, head)));
        }
    }
    Ok(None)
}

/// Text that looks like HTTP in most places.
fn nearly_http() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        Just(&b"GET / HTTP/1.1\r\n"[..]),
        Just(&b"Host: a\r\n"[..]),
        Just(&b"Content-Length: 5\r\n"[..]),
        Just(&b"\r\n"[..]),
        Just(&b"Transfer-Encoding: chunked\r\n"[..]),
        Just(&b" "[..]),
        Just(&b"\n"[..]),
        Just(&b"\0"[..]),
        Just(&b"X: y\r\n"[..]),
        Just(&b":"[..]),
        Just(&b"5\r\nhello\r\n0\r\n\r\n"[..]),
        Just(&b"a"[..]),
        Just(&b"\xff"[..]),
    ];
    prop::collection::vec(word, 0..12).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn pieces_read_as_the_whole(index in 0..MALFORMED.len(), cuts in prop::collection::vec(0usize..500, 0..6)) {
        prop_assert!(in_pieces(MALFORMED[index].as_bytes(), &cuts).is_err());
    }

    #[test]
    fn pieces_of_anything_read_as_the_whole(text in nearly_http(), cuts in prop::collection::vec(0usize..500, 0..6)) {
        // A fault may be told earlier, and so be another, when the bytes come slowly.
        prop_assert_eq!(in_pieces(&text, &cuts).ok(), request(&text).ok());
    }

    #[test]
    fn random_bytes_never_panic(text in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = request(&text);
        let _ = ResponseParser::new(LIMITS, RequestKind::Other).advance(&text, &mut ResponseHead::default());
        let whole = unchunk(&text, text.len()).map(|(content, _, rest)| (content, rest));
        let bytewise = unchunk(&text, 1).map(|(content, _, rest)| (content, rest));
        prop_assert_eq!(whole, bytewise);
    }

    #[test]
    fn what_is_written_is_read_back(
        path in "/[a-z0-9/.%-]{0,40}",
        query in prop::option::of("[a-z=&]{0,20}"),
        fields in prop::collection::vec(("x-[a-z]{1,10}", "([!-~]([ -~]{0,20}[!-~])?)?"), 0..10),
        bytes in prop::option::of(1u64..1_000_000),
    ) {
        let mut head = RequestHead { path, query, authority: "a.example:81".to_owned(), ..RequestHead::default() };
        for (name, value) in &fields {
            head.fields.append(name, value);
        }
        let mut out = Vec::new();
        let length = bytes.map_or(WireLength::Absent, WireLength::Known);
        write_request_head(&mut out, &head, "a.example:81", length, Persistence::Default);
        let (parsed, mut read) = request(&out).unwrap().unwrap();
        prop_assert_eq!(parsed.length, bytes.map_or(BodyLength::Empty, BodyLength::Known));
        read.fields.remove("content-length");
        prop_assert_eq!(read, head);
    }
}

#[test]
fn what_may_not_stand_in_trailers_may_not_by_another_spelling() {
    use crate::http::{Name, h1::is_trailer_allowed};
    let allowed = |name: &[u8]| is_trailer_allowed(Name::find(name), name);
    for name in ["x_forwarded_client_cert", "X-Forwarded_Client-Cert", "x_real_ip", "set_cookie", "Set-Cookie", "trailer"] {
        assert!(!allowed(name.as_bytes()), "{name}");
    }
    assert!(allowed(b"x-checksum") && allowed(b"x_checksum") && allowed(b"grpc-status"));
}
