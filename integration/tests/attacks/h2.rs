//! HTTP/2 heads and bodies that would become something else in HTTP/1, or that servers read differently.

use heddle_integration::attack::frames::{CONTINUATION, DATA, END_HEADERS, END_STREAM, Fate, Frames, HEADERS, block, request};
use heddle_integration::attack::raw::Door;

use super::ground::Ground;

type Fields<'a> = Vec<(&'a [u8], &'a [u8])>;

/// What must happen to a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Must {
    /// 400, or the stream or connection ends with an error.
    BeRefused,
    Get(u16),
}

fn with<'a>(fields: &[(&'a [u8], &'a [u8])]) -> Fields<'a> {
    [request("GET", "/h2"), fields.to_vec()].concat()
}

/// The pseudo-header fields, with one replaced.
fn instead<'a>(name: &'a [u8], value: &'a [u8]) -> Fields<'a> {
    request("GET", "/h2").into_iter().map(|(key, old)| if key == name { (key, value) } else { (key, old) }).collect()
}

fn without(name: &[u8]) -> Fields<'static> {
    request("GET", "/h2").into_iter().filter(|(key, _)| *key != name).collect()
}

fn values() -> Vec<(&'static str, Fields<'static>, Must)> {
    use Must::{BeRefused, Get};
    vec![
        ("CRLF in a value", with(&[(b"x", b"y\r\nTransfer-Encoding: chunked")]), BeRefused),
        ("LF in a value", with(&[(b"x", b"y\nz")]), BeRefused),
        ("CR in a value", with(&[(b"x", b"y\rz")]), BeRefused),
        ("NUL in a value", with(&[(b"x", b"y\0z")]), BeRefused),
        ("blank before a value", with(&[(b"x", b" y")]), BeRefused),
        ("blank behind a value", with(&[(b"x", b"y ")]), BeRefused),
        ("tab behind a value", with(&[(b"x", b"y\t")]), BeRefused),
        ("CRLF in a name", with(&[(b"x\r\ny", b"z")]), BeRefused),
        ("colon in a name", with(&[(b"transfer-encoding: chunked\r\nx", b"y")]), BeRefused),
        ("blank in a name", with(&[(b"x y", b"z")]), BeRefused),
        ("upper case in a name", with(&[(b"X-Y", b"z")]), BeRefused),
        ("no name", with(&[(b"", b"z")]), BeRefused),
        ("transfer-encoding", with(&[(b"transfer-encoding", b"chunked")]), BeRefused),
        ("connection", with(&[(b"connection", b"close")]), BeRefused),
        ("keep-alive", with(&[(b"keep-alive", b"5")]), BeRefused),
        ("proxy-connection", with(&[(b"proxy-connection", b"x")]), BeRefused),
        ("upgrade", with(&[(b"upgrade", b"h2c")]), BeRefused),
        ("te other than trailers", with(&[(b"te", b"gzip")]), BeRefused),
        ("te trailers", with(&[(b"te", b"trailers")]), Get(200)),
        ("a length without a body", with(&[(b"content-length", b"5")]), BeRefused),
        ("length zero", with(&[(b"content-length", b"0")]), Get(200)),
        ("two lengths", with(&[(b"content-length", b"0"), (b"content-length", b"0")]), BeRefused),
        ("length with sign", with(&[(b"content-length", b"+0")]), BeRefused),
        ("list of lengths", with(&[(b"content-length", b"0, 0")]), BeRefused),
        ("host that agrees", with(&[(b"host", b"test.example")]), Get(200)),
        ("host that differs", with(&[(b"host", b"evil.example")]), BeRefused),
        ("two hosts", with(&[(b"host", b"test.example"), (b"host", b"test.example")]), BeRefused),
        ("an unknown expectation", with(&[(b"expect", b"x")]), Get(417)),
        ("underscore", with(&[(b"content_length", b"5")]), Get(200)),
    ]
}

fn pseudo() -> Vec<(&'static str, Fields<'static>, Must)> {
    use Must::{BeRefused, Get};
    let late = [without(b":path"), vec![(b"x".as_slice(), b"y".as_slice()), (b":path", b"/h2")]].concat();
    vec![
        ("no method", without(b":method"), BeRefused),
        ("no path", without(b":path"), BeRefused),
        ("no scheme", without(b":scheme"), BeRefused),
        ("no authority", without(b":authority"), BeRefused),
        ("pseudo-header field behind others", late, BeRefused),
        ("two paths", with(&[(b":path", b"/other")]), BeRefused),
        ("two methods", with(&[(b":method", b"POST")]), BeRefused),
        ("two authorities", with(&[(b":authority", b"evil.example")]), BeRefused),
        ("unknown pseudo-header field", with(&[(b":x", b"y")]), BeRefused),
        (":status in a request", with(&[(b":status", b"200")]), BeRefused),
        ("method with a request in it", instead(b":method", b"GET / HTTP/1.1\r\nX: y\r\n\r\nGET"), BeRefused),
        ("method with blank", instead(b":method", b"GET /x"), BeRefused),
        ("empty method", instead(b":method", b""), BeRefused),
        ("empty path", instead(b":path", b""), BeRefused),
        ("path with blank", instead(b":path", b"/h2 HTTP/1.1\r\nX: y"), BeRefused),
        ("path with a blank alone", instead(b":path", b"/h2 x"), BeRefused),
        ("path with tab", instead(b":path", b"/h2\tx"), BeRefused),
        ("path with NUL", instead(b":path", b"/h2\0"), BeRefused),
        ("path beyond ASCII", instead(b":path", b"/h2\xe9"), BeRefused),
        ("path that is a URL", instead(b":path", b"http://evil.example/h2"), BeRefused),
        ("path without slash", instead(b":path", b"h2"), BeRefused),
        ("asterisk for GET", instead(b":path", b"*"), BeRefused),
        ("authority with user", instead(b":authority", b"test.example@evil.example"), BeRefused),
        ("authority with path", instead(b":authority", b"test.example/x"), BeRefused),
        ("authority with comma", instead(b":authority", b"test.example,evil.example"), BeRefused),
        ("authority with CRLF", instead(b":authority", b"test.example\r\nX: y"), BeRefused),
        ("authority with junk behind its port", instead(b":authority", b"test.example:80x"), BeRefused),
        ("empty authority", instead(b":authority", b""), BeRefused),
        ("plain CONNECT", vec![(b":method", b"CONNECT"), (b":authority", b"test.example:443")], Get(405)),
        (
            "CONNECT for another protocol",
            [instead(b":method", b"CONNECT"), vec![(b":protocol".as_slice(), b"connect-udp".as_slice())]].concat(),
            Get(501),
        ),
        (
            "CONNECT for WebSocket where none is allowed",
            [instead(b":method", b"CONNECT"), vec![(b":protocol".as_slice(), b"websocket".as_slice())]].concat(),
            Get(501),
        ),
        ("protocol without CONNECT", with(&[(b":protocol", b"websocket")]), BeRefused),
        ("a long path", instead(b":path", &LONG), Get(414)),
    ]
}

static LONG: [u8; 17 * 1024] = {
    let mut path = [b'a'; 17 * 1024];
    path[0] = b'/';
    path
};

fn run(ground: &Ground, door: &Door, cases: Vec<(&str, Fields<'_>, Must)>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, fields, must) in cases {
        let before = ground.origin.count();
        let mut frames = Frames::open(door);
        frames.headers(END_STREAM, 1, &fields);
        let fate = frames.fate(1);
        let right = match must {
            Must::Get(status) => fate == Fate::Status(status),
            Must::BeRefused => !matches!(fate, Fate::Status(200)) && !matches!(fate, Fate::Status(500..)),
        };
        if !right || (ground.origin.count() > before) != (must == Must::Get(200)) {
            wrong.push(format!("{name}: {fate:?}, {} requests", ground.origin.count() - before));
        }
    }
    wrong
}

#[test]
fn nothing_is_smuggled_from_http2_to_http1() {
    let ground = Ground::new();
    let mut wrong = run(&ground, &ground.plain, values());
    wrong.extend(run(&ground, &ground.plain, pseudo()));
    ground.check(wrong);
}

/// Sends a POST with these fields and frames of its body; how it ended, and what of it reached the origin whole.
fn post(ground: &Ground, path: &str, fields: &[(&[u8], &[u8])], pieces: &[(u8, u8, Vec<u8>)]) -> (Fate, Vec<String>) {
    let mut frames = Frames::open(&ground.plain);
    frames.headers(0, 1, &[request("POST", path), fields.to_vec()].concat());
    for (kind, flags, payload) in pieces {
        frames.send(*kind, *flags, 1, payload);
    }
    let fate = frames.fate(1);
    (fate, ground.origin.seen(path).iter().filter(|seen| !seen.aborted).map(|seen| seen.summary()).collect())
}

#[test]
fn a_length_that_lies_reaches_nobody_as_a_whole_request() {
    let ground = Ground::new();
    let smuggled = b"hello\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: test.example\r\n\r\n".to_vec();
    let data = |end: u8, bytes: &[u8]| (DATA, end, bytes.to_vec());
    let (fate, seen) = post(&ground, "/longer", &[(b"content-length", b"5")], &[data(END_STREAM, &smuggled)]);
    assert!(!matches!(fate, Fate::Status(200)), "{fate:?}");
    assert_eq!(seen, Vec::<String>::new());
    let (fate, seen) = post(&ground, "/shorter", &[(b"content-length", b"50")], &[data(END_STREAM, b"hello")]);
    assert!(!matches!(fate, Fate::Status(200)), "{fate:?}");
    assert_eq!(seen, Vec::<String>::new());
    let (fate, seen) = post(&ground, "/chunk", &[], &[data(0, b"0\r\n\r\nGET /smuggled"), data(END_STREAM, b"")]);
    assert_eq!((fate, seen), (Fate::Status(200), vec!["POST /chunk 0\r\n\r\nGET /smuggled".to_owned()]));
    let trailers = block(&[(b"content-length", b"5"), (b"transfer-encoding", b"chunked"), (b"x-t", b"y")]);
    let (fate, _) = post(&ground, "/trailers", &[], &[data(0, b"hello"), (HEADERS, END_STREAM | END_HEADERS, trailers)]);
    assert!(!matches!(fate, Fate::Status(500..)), "{fate:?}");
    let pseudo = block(&[(b":path", b"/other")]);
    let (fate, seen) = post(&ground, "/pseudo", &[], &[data(0, b"hello"), (HEADERS, END_STREAM | END_HEADERS, pseudo)]);
    // The protocol library drops what no trailer may be; the request stays what it was.
    assert!(
        seen == Vec::<String>::new() || (fate, &*seen) == (Fate::Status(200), &["POST /pseudo hello".to_owned()]),
        "{fate:?} {seen:?}"
    );
    assert!(ground.origin.seen("/other").is_empty());
    assert!(ground.origin.seen("/smuggled").is_empty());
    ground.check(Vec::new());
}

#[test]
fn fields_are_counted_however_small_they_are() {
    let ground = Ground::new();
    let cookies: Fields<'_> = vec![(b"cookie", b"a"); 101];
    let many: Fields<'_> = vec![(b"x", b""); 101];
    for fields in [cookies, many] {
        let mut frames = Frames::open(&ground.plain);
        frames.headers(END_STREAM, 1, &with(&fields));
        assert_eq!(frames.fate(1), Fate::Status(431));
    }
    // One large field, put into the table once and referred to thousands of times.
    let mut bomb = block(&request("GET", "/bomb"));
    let value = [b'a'; 4000];
    bomb.extend([0x40, 1, b'x', 0x7f, (4000 - 127) as u8 & 127 | 128, ((4000 - 127) >> 7) as u8]);
    bomb.extend(value);
    bomb.extend([0xbe; 12_000]);
    let mut frames = Frames::open(&ground.plain);
    frames.send(HEADERS, END_STREAM | END_HEADERS, 1, &bomb);
    let fate = frames.fate(1);
    assert!(fate == Fate::Status(431) || matches!(fate, Fate::Reset(_) | Fate::GoAway(_)), "{fate:?}");
    assert!(ground.origin.seen("/bomb").is_empty());
    ground.check(Vec::new());
}

#[test]
fn a_block_is_whole_before_anything_else_comes() {
    let ground = Ground::new();
    let block = block(&request("GET", "/block"));
    let mut frames = Frames::open(&ground.plain);
    frames.send(HEADERS, END_STREAM, 1, &block[..10]);
    frames.headers(END_STREAM, 3, &request("GET", "/block"));
    assert!(matches!(frames.fate(1), Fate::GoAway(1)));
    let mut frames = Frames::open(&ground.plain);
    frames.send(CONTINUATION, END_HEADERS, 1, &block);
    assert!(matches!(frames.fate(1), Fate::GoAway(1)));
    assert!(ground.origin.seen("/block").is_empty());
    ground.check(Vec::new());
}
