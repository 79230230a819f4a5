//! Messages there and back, what must be refused and how, and another implementation reading what we write.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;

use super::*;
use crate::http::h1::HeadLimits;
use crate::http::h2::hpack::Encoder;
use crate::http::{Fields, Method, Name, RequestHead, ResponseHead, Version};

const LIMITS: HeadLimits =
    HeadLimits { max_bytes: 1000, max_field: 500, max_fields: 10, max_target: 100, connect: false, any_authority: false };
const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "https"), (":authority", "A.example:80"), (":path", "/p?q")];

/// A block that says exactly this, good or bad.
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for text in [name, value] {
            // Shorter than 127 but where a test wants more.
            if text.len() < 127 {
                out.push(text.len() as u8);
            } else {
                let rest = text.len() - 127;
                out.extend_from_slice(&[127, (rest & 127) as u8 | 128, (rest >> 7) as u8]);
            }
            out.extend_from_slice(text.as_bytes());
        }
    }
    out
}

fn request(fields: &[(&str, &str)]) -> Result<(RequestHead, RequestFacts), BlockFault> {
    let mut head = RequestHead::default();
    let facts = read_request(&mut Decoder::new(4096), &block(fields), true, &LIMITS, &mut head)?;
    Ok((head, facts))
}

fn get(more: &[(&str, &str)]) -> Result<(RequestHead, RequestFacts), BlockFault> {
    request(&[&GET, more].concat())
}

fn list(fields: &Fields) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    fields.iter().map(|field| (text(field.name), text(field.value))).collect()
}

fn strings(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn an_authority_is_judged_alike_whether_it_comes_by_index_or_not() {
    for (authority, expected) in
        [("a.example:80", Some("a.example:80")), ("A.Example", Some("a.example")), ("a b", None), ("a@b", None)]
    {
        let mut block = b"\x82\x87\x84\x41".to_vec();
        block.push(authority.len() as u8);
        block.extend_from_slice(authority.as_bytes());
        let mut decoder = Decoder::new(4096);
        for block in [&*block, b"\x82\x87\x84\xbe"] {
            let mut head = RequestHead::default();
            let read = read_request(&mut decoder, block, true, &LIMITS, &mut head);
            assert_eq!(read.ok().map(|_| &*head.authority), expected, "{authority}");
        }
    }
    // The static table has an empty one.
    let read = read_request(&mut Decoder::new(4096), b"\x82\x87\x84\x81", true, &LIMITS, &mut RequestHead::default());
    assert!(matches!(read, Err(BlockFault::Refused(_))), "{read:?}");
}

#[test]
fn any_authority_is_taken_where_none_has_a_meaning() {
    let any = HeadLimits { any_authority: true, ..LIMITS };
    for authority in ["%2Frun%2Fworkload.sock", "a@b", ""] {
        let fields = [GET[0], GET[1], (":authority", authority), GET[3]];
        let mut head = RequestHead::default();
        read_request(&mut Decoder::new(4096), &block(&fields), true, &any, &mut head).unwrap();
        assert_eq!(head.authority, authority.to_ascii_lowercase());
        let strict = read_request(&mut Decoder::new(4096), &block(&fields), true, &LIMITS, &mut RequestHead::default());
        assert!(matches!(strict, Err(BlockFault::Refused(Fault::Malformed("authority")))), "{strict:?}");
    }
}

#[test]
fn a_request_becomes_a_head() {
    let (head, facts) =
        get(&[("accept", "*/*"), ("te", "trailers"), ("expect", "100-Continue"), ("content-length", "0")]).unwrap();
    assert_eq!((&head.method, head.version), (&Method::Get, Version::Http2));
    assert_eq!((&*head.authority, &*head.path, head.query.as_deref()), ("a.example:80", "/p", Some("q")));
    let fields = [("accept", "*/*"), ("te", "trailers"), ("expect", "100-Continue"), ("content-length", "0")];
    assert_eq!(list(&head.fields), strings(&fields));
    assert_eq!(facts, RequestFacts { length: Some(0), expects_continue: true });
}

#[test]
fn cookie_crumbs_become_one_line_wherever_they_stand() {
    let (head, _) = get(&[("cookie", "a=1"), ("cookie", "b=2"), ("x", "y"), ("cookie", "c=3"), ("cookie", "d=4")]).unwrap();
    assert_eq!(head.fields.get_all_known(Name::Cookie).collect::<Vec<_>>(), [b"a=1; b=2; c=3; d=4"]);
    assert_eq!((head.cookie("b"), head.cookie("d")), (Some("2"), Some("4")));
    assert_eq!(head.fields.get("x"), Some(&b"y"[..]));
}

#[test]
fn host_stands_for_the_authority_and_must_agree_with_it() {
    let without = [GET[0], GET[1], GET[3]];
    let (head, _) = request(&[&without[..], &[("host", "B.example")]].concat()).unwrap();
    assert_eq!(head.authority, "b.example");
    assert!(head.fields.is_empty());
    let (head, _) = get(&[("host", "a.EXAMPLE:80")]).unwrap();
    assert_eq!(head.authority, "a.example:80");
    for bad in [
        get(&[("host", "b.example")]),
        get(&[("host", "a.example:80"), ("host", "a.example:80")]),
        request(&without),
        request(&[GET[0], GET[1], GET[3], (":authority", "u@a")]),
        request(&[GET[0], GET[1], GET[3], (":authority", "")]),
    ] {
        assert!(matches!(bad, Err(BlockFault::Refused(Fault::Malformed(_)))), "{bad:?}");
    }
}

#[test]
fn extended_connect_is_taken_plain_connect_only_where_it_is_let_in() {
    let connect = [(":method", "CONNECT"), GET[1], GET[2], GET[3], (":protocol", "websocket")];
    let (head, _) = request(&connect).unwrap();
    assert_eq!((head.protocol.as_deref(), &*head.path), (Some("websocket"), "/p"));
    let plain = [connect[0], connect[2]];
    assert_eq!(request(&plain).unwrap_err(), BlockFault::Refused(Fault::Method("CONNECT")));
    let (mut decoder, mut head) = (Decoder::new(4096), RequestHead::default());
    read_request(&mut decoder, &block(&plain), false, &HeadLimits { connect: true, ..LIMITS }, &mut head).unwrap();
    assert_eq!((&head.method, &*head.authority, &*head.path), (&Method::Connect, "a.example:80", ""));
    for bad in [
        request(&[connect[0], connect[2], connect[1]]),
        request(&[connect[0], connect[2], connect[3]]),
        request(&[connect[0], connect[1], connect[2], connect[4]]),
        get(&[(":protocol", "websocket")]),
        request(&[&GET[..], &[(":protocol", "websocket")]].concat()),
    ] {
        assert!(matches!(bad, Err(BlockFault::Malformed(_))), "{bad:?}");
    }
}

#[test]
fn both_kinds_of_connect_are_written_as_they_are_read() {
    let mut encoder = Encoder::new();
    let mut out = Vec::new();
    let mut head = RequestHead { path: "/chat".into(), query: Some("a=1".into()), ..RequestHead::default() };
    for (name, value) in [("upgrade", "websocket"), ("connection", "upgrade"), ("sec-websocket-key", "k"), ("origin", "o")] {
        head.fields.append(name, value);
    }
    write_extended_connect(&mut encoder, &mut out, &head, "web.shop", true, "websocket");
    let mut read = RequestHead::default();
    read_request(&mut Decoder::new(4096), &out, false, &LIMITS, &mut read).unwrap();
    assert_eq!((read.protocol.as_deref(), &*read.path, &*read.authority), (Some("websocket"), "/chat", "web.shop"));
    assert_eq!(read.fields.iter().map(|field| field.name.to_vec()).collect::<Vec<_>>(), [b"origin".to_vec()]);
    out.clear();
    let mut fields = Vec::new();
    write_connect(&mut Encoder::new(), &mut out, "db.shop:5432");
    Decoder::new(4096).decode(&out, |field| fields.push((field.name.to_vec(), field.value.to_vec()))).unwrap();
    let expected = [(":method", "CONNECT"), (":authority", "db.shop:5432")];
    assert_eq!(fields, expected.map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())));
}

#[test]
fn malformed_requests_are_known() {
    for field in [
        ("X-Upper", "a"),
        ("", "a"),
        ("x y", "a"),
        ("x:", "a"),
        (":other", "a"),
        (":status", "200"),
        (":path", "/"),
        ("x", "a\nb"),
        ("x", "a\0"),
        ("x", " a"),
        ("x", "a\t"),
        ("connection", "close"),
        ("keep-alive", "1"),
        ("proxy-connection", "1"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h3"),
        ("http2-settings", "AAA"),
        ("te", "gzip"),
        ("content-length", "+1"),
        ("content-length", "1,1"),
        ("content-length", "5"),
        ("content-length", "99999999999999999999"),
    ] {
        assert!(matches!(get(&[field]), Err(BlockFault::Malformed(_))), "{field:?}");
        // Behind something that is refused too.
        assert!(matches!(get(&[("host", "other"), field]), Err(BlockFault::Malformed(_))), "{field:?}");
    }
    for at in [0, 1, 3] {
        let mut without = GET.to_vec();
        let field = without.remove(at);
        assert!(matches!(request(&without), Err(BlockFault::Malformed(_))), "no {field:?}");
        assert!(matches!(request(&[&GET[..], &[field]].concat()), Err(BlockFault::Malformed(_))), "two {field:?}");
        without.push(("x", "y"));
        without.push(field);
        assert!(matches!(request(&without), Err(BlockFault::Malformed(_))), "late {field:?}");
    }
    for (at, value) in [(0, ""), (0, "G T"), (1, ""), (1, "1s"), (1, "h ttp"), (3, "")] {
        let mut fields = GET.to_vec();
        fields[at].1 = value;
        assert!(matches!(request(&fields), Err(BlockFault::Malformed(_))), "{:?}", fields[at]);
    }
    let twice = get(&[("content-length", "0"), ("content-length", "0")]);
    assert!(matches!(twice, Err(BlockFault::Malformed(_))));
}

#[test]
fn what_is_refused_has_its_status() {
    let path = |path: &str| request(&[GET[0], GET[1], GET[2], (":path", path)]).map(|(head, _)| head.path);
    for bad in ["p", "*", "/a b", "/a#b", "/\u{e9}", "/a\0", "http://a/", "/ "] {
        assert!(matches!(path(bad), Err(BlockFault::Refused(Fault::Malformed(_)))), "{bad:?}");
    }
    assert_eq!(path(&format!("/{}", "a".repeat(100))), Err(BlockFault::Refused(Fault::TargetTooLong)));
    let options = |path| request(&[(":method", "OPTIONS"), GET[1], GET[2], (":path", path)]).map(|(head, _)| head.path);
    assert_eq!(options("*").unwrap(), "*");
    assert!(options("*?q").is_err());
    let long = "a".repeat(499);
    let fault = |fields: &[(&str, &str)]| get(fields).map(|_| ()).unwrap_err();
    assert_eq!(fault(&[("ab", &long)]), BlockFault::Refused(Fault::TooLarge));
    assert_eq!(fault(&[("a", &long), ("b", &long), ("c", "d")]), BlockFault::Refused(Fault::TooLarge));
    assert_eq!(fault(&[("a", "b"); 11]), BlockFault::Refused(Fault::TooLarge));
    assert_eq!(fault(&[("cookie", "b"); 11]), BlockFault::Refused(Fault::TooLarge));
    assert!(get(&[("a", "b"); 10]).is_ok() && get(&[("a", &long), ("b", &long)]).is_ok());
    assert_eq!(fault(&[("expect", "magic")]), BlockFault::Refused(Fault::Expectation));
    let method = |method| request(&[(":method", method), GET[1], GET[2], GET[3]]).map(|(head, _)| head.method);
    for known in ["get", "Delete", "purge"] {
        assert_eq!(method(known), Err(BlockFault::Refused(Fault::Malformed("a method in small letters"))), "{known}");
    }
    assert_eq!(method("M-SEARCH"), Ok(Method::Other("M-SEARCH".into())));
    assert_eq!(method("foo"), Ok(Method::Other("foo".into())));
}

#[test]
fn a_fault_leaves_the_tables_right() {
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(4096));
    let mut fields = Fields::new();
    fields.append("x-learned", "value");
    let mut blocks = Vec::new();
    for _ in 0..3 {
        let mut out = Vec::new();
        write_trailers(&mut encoder, &mut out, &fields);
        blocks.push(out);
    }
    assert!(blocks[2].len() < 3, "indexed");
    let mut head = RequestHead::default();
    assert!(matches!(read_request(&mut decoder, &blocks[0], true, &LIMITS, &mut head), Err(BlockFault::Malformed(_))));
    assert_eq!(skip(&mut decoder, &blocks[1]), Ok(()));
    let mut trailers = Fields::new();
    read_trailers(&mut decoder, &blocks[2], &LIMITS, &mut trailers).unwrap();
    assert_eq!(list(&trailers), strings(&[("x-learned", "value")]));
    let broken = read_trailers(&mut decoder, &[0x80], &LIMITS, &mut trailers).unwrap_err();
    assert!(matches!(broken, BlockFault::Compression(_)));
}

#[test]
fn responses_and_trailers_are_read() {
    let response = |fields: &[(&str, &str)]| read_response(&mut Decoder::new(4096), &block(fields), &LIMITS);
    let (head, length) = response(&[(":status", "503"), ("content-length", "7"), ("x-lax", " padded\t")]).unwrap();
    assert_eq!((head.status, length), (503, Some(7)));
    assert_eq!(list(&head.fields), strings(&[("content-length", "7"), ("x-lax", "padded")]));
    for bad in [
        &[][..],
        &[(":status", "20")],
        &[(":status", "600")],
        &[(":status", "2x0")],
        &[(":status", "200"), (":status", "200")],
        &[("x", "y"), (":status", "200")],
        &[(":status", "200"), (":path", "/")],
        &[(":status", "200"), ("Upper", "y")],
        &[(":status", "200"), ("x", "\r\n")],
        &[(":status", "200"), ("connection", "close")],
        &[(":status", "200"), ("content-length", "x")],
    ] {
        assert!(matches!(response(bad), Err(BlockFault::Malformed(_))), "{bad:?}");
    }
    let many = [(":status", "200"), ("a", "b")].into_iter().chain([("c", "d"); 10]).collect::<Vec<_>>();
    assert_eq!(response(&many).unwrap_err(), BlockFault::Refused(Fault::TooLarge));
    let mut out = Fields::new();
    let trailers = [("grpc-status", "0"), ("content-length", "5"), ("authorization", "x"), ("x-sum", "1")];
    read_trailers(&mut Decoder::new(4096), &block(&trailers), &LIMITS, &mut out).unwrap();
    assert_eq!(list(&out), strings(&[("grpc-status", "0"), ("x-sum", "1")]));
    for bad in [(":status", "200"), ("connection", "x"), ("X", "y"), ("x", "\u{1}")] {
        assert!(read_trailers(&mut Decoder::new(4096), &block(&[bad]), &LIMITS, &mut Fields::new()).is_err(), "{bad:?}");
    }
}

fn head_of(fields: &[(&str, &str)]) -> Fields {
    let mut out = Fields::new();
    fields.iter().for_each(|(name, value)| out.append(name, value));
    out
}

#[test]
fn what_must_not_travel_is_not_written() {
    let fields = [
        ("Server", "s"),
        ("Connection", "x"),
        ("X-Foo", " v "),
        ("bad name", "x"),
        ("x-bad", "a\nb"),
        ("Content-Length", "5"),
        ("Proxy-Authenticate", "Basic"),
        ("Expect", "100-continue"),
    ];
    let written = |length, date: Option<&[u8]>| {
        let mut out = Vec::new();
        write_response(&mut Encoder::new(), &mut out, &ResponseHead { status: 404, fields: head_of(&fields) }, length, date);
        let (head, _) = read_response(&mut Decoder::new(4096), &out, &LIMITS).unwrap();
        (head.status, list(&head.fields))
    };
    let rest = [("server", "s"), ("x-foo", "v"), ("proxy-authenticate", "Basic"), ("expect", "100-continue")];
    assert_eq!(written(WireLength::Absent, None), (404, strings(&rest)));
    let known = [&rest[..], &[("content-length", "1234567"), ("date", "now")]].concat();
    assert_eq!(written(WireLength::Known(1_234_567), Some(b"now")), (404, strings(&known)));
    let (_, stated) = written(WireLength::AsStated, None);
    assert!(stated.contains(&("content-length".into(), "5".into())));

    let mut head = RequestHead { path: "/a".into(), query: Some("b".into()), fields: head_of(&fields), ..RequestHead::default() };
    head.fields.append("te", "deflate, Trailers");
    let mut out = Vec::new();
    write_request(&mut Encoder::new(), &mut out, &head, "up.example", true, WireLength::Known(3));
    let mut read = RequestHead::default();
    let facts = read_request(&mut Decoder::new(4096), &out, false, &LIMITS, &mut read).unwrap();
    assert_eq!(facts, RequestFacts { length: Some(3), expects_continue: false });
    assert_eq!((&*read.authority, &*read.path, read.query.as_deref()), ("up.example", "/a", Some("b")));
    assert_eq!(list(&read.fields), strings(&[("server", "s"), ("x-foo", "v"), ("content-length", "3"), ("te", "trailers")]));
}

#[test]
fn interim_heads_and_requests_that_cannot_be_said() {
    let mut decoder = Decoder::new(4096);
    let (mut encoder, mut out) = (Encoder::new(), Vec::new());
    write_continue(&mut encoder, &mut out);
    assert_eq!(read_response(&mut decoder, &out, &LIMITS).unwrap().0.status, 100);
    out.clear();
    let hints = head_of(&[("Link", "</a>"), ("content-length", "0"), ("upgrade", "x")]);
    write_interim(&mut encoder, &mut out, &ResponseHead { status: 103, fields: hints });
    let (head, _) = read_response(&mut decoder, &out, &LIMITS).unwrap();
    assert_eq!((head.status, list(&head.fields)), (103, strings(&[("link", "</a>")])));

    let good = RequestHead { path: "/".into(), ..RequestHead::default() };
    assert_eq!(check_request(&good, "a.example:80"), Ok(()));
    assert!(check_request(&good, "a b").is_err());
    assert!(check_request(&RequestHead { path: "/a b".into(), ..RequestHead::default() }, "a").is_err());
    assert!(check_request(&RequestHead { query: Some("a#".into()), ..good.clone() }, "a").is_err());
    assert!(check_request(&RequestHead { method: Method::Other("A B".into()), ..good }, "a").is_err());
}

#[tokio::test]
async fn another_implementation_reads_what_we_write_and_we_what_it_writes() {
    use tokio::io::AsyncWriteExt;

    use crate::http::h2::frame::{PREFACE, begin_block, write_settings};

    let (near, mut far) = tokio::io::duplex(1 << 20);
    let (mut encoder, mut out) = (Encoder::new(), PREFACE.to_vec());
    write_settings(&mut out, &[]);
    let head = RequestHead {
        path: "/a/long/path/with/segments.html".into(),
        fields: head_of(&[("User-Agent", "Mozilla/5.0 (X11)"), ("cookie", "id=~^{}"), ("x-a", &"\u{e9}\u{fe}\\".repeat(40))]),
        ..RequestHead::default()
    };
    for at in 0..200 {
        let open = begin_block(&mut out, at * 2 + 1);
        let mut head = head.clone();
        head.fields.append("x-changing", (at / 5).to_string());
        write_request(&mut encoder, &mut out, &head, "up.example", true, WireLength::Absent);
        open.finish(&mut out, true, 16_384);
    }
    far.write_all(&out).await.unwrap();
    let mut connection = ::h2::server::handshake(near).await.unwrap();
    for at in 0..200 {
        let (request, _respond) = connection.accept().await.unwrap().unwrap();
        assert_eq!(request.uri().to_string(), format!("https://up.example{}", head.path));
        for field in head.fields.iter() {
            let name = String::from_utf8_lossy(field.name).to_ascii_lowercase();
            assert_eq!(request.headers().get(&name).unwrap().as_bytes(), field.value);
        }
        assert_eq!(request.headers()["x-changing"], (at / 5).to_string());
    }
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        "[!-~]([ -~]{0,30}[!-~])?",
        Just(String::new()),
        prop::sample::select(vec!["gzip", "deny"]).prop_map(str::to_owned)
    ]
}

proptest! {
    #[test]
    fn requests_come_out_as_they_went_in(
        heads in prop::collection::vec(("/[a-z/]{0,20}", prop::option::of("[a-z=&]{0,9}"), prop::collection::vec(("[a-z]{2,9}", value()), 0..6)), 1..10),
    ) {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(4096));
        for (path, query, fields) in heads {
            let fields: Vec<_> = fields.into_iter().filter(|(name, _)| Name::find(name.as_bytes()) == Name::Other).collect();
            let mut head = RequestHead { path, query, method: Method::Put, ..RequestHead::default() };
            fields.iter().for_each(|(name, value)| head.fields.append(name, value));
            for _ in 0..3 {
                let mut out = Vec::new();
                write_request(&mut encoder, &mut out, &head, "up.example", false, WireLength::Absent);
                let mut read = RequestHead::default();
                read_request(&mut decoder, &out, true, &LIMITS, &mut read).unwrap();
                prop_assert_eq!((&read.path, &read.query, &read.method), (&head.path, &head.query, &head.method));
                prop_assert_eq!(list(&read.fields), fields.clone());
            }
        }
    }

    #[test]
    fn no_block_panics(block in prop::collection::vec(any::<u8>(), 0..100)) {
        let (mut one, mut two, mut three) = (Decoder::new(4096), Decoder::new(4096), Decoder::new(4096));
        let _ = read_request(&mut one, &block, false, &LIMITS, &mut RequestHead::default());
        let _ = read_response(&mut two, &block, &LIMITS);
        let _ = read_trailers(&mut three, &block, &LIMITS, &mut Fields::new());
    }
}
