//! How a body ends: lengths, transfer codings, chunks. Two readings are one too many.

use super::ground::{Case, Ground, HOST, get, post, refused, served};

const BAD: &[u16] = &[400];
const SMUGGLED: &str = "GET {p}/smuggled HTTP/1.1\r\nHost: test.example\r\n\r\n";

fn lengths() -> Vec<Case> {
    let bad = |name, fields: &str| refused(name, BAD, post(fields, &format!("0\r\n\r\n{SMUGGLED}")));
    vec![
        bad("CL.TE", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        bad("TE.CL", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
        bad("CL 0 and TE", "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n"),
        bad("two lengths that agree", "Content-Length: 5\r\nContent-Length: 5\r\n"),
        bad("two lengths", "Content-Length: 0\r\nContent-Length: 5\r\n"),
        bad("a list of lengths", "Content-Length: 5, 5\r\n"),
        bad("length with sign", "Content-Length: +5\r\n"),
        bad("negative length", "Content-Length: -5\r\n"),
        bad("hexadecimal length", "Content-Length: 0x5\r\n"),
        bad("length with a blank inside", "Content-Length: 1 0\r\n"),
        bad("length with junk", "Content-Length: 5;\r\n"),
        bad("quoted length", "Content-Length: \"5\"\r\n"),
        bad("empty length", "Content-Length:\r\n"),
        bad("length beyond 64 bits", "Content-Length: 18446744073709551621\r\n"),
        bad("length with a fraction", "Content-Length: 5.0\r\n"),
        bad("length and TE identity", "Content-Length: 5\r\nTransfer-Encoding: identity\r\n"),
        served("usual length", &["POST /a hello"], post("Content-Length: 5\r\n", "hello")),
        served("length with leading zeros", &["POST /a hello"], post("Content-Length: 005\r\n", "hello")),
        served(
            "pipelined behind a length",
            &["POST /a hello", "GET /smuggled"],
            post("Content-Length: 5\r\n", &format!("hello{SMUGGLED}")),
        ),
        served("no length means no body", &["POST /a", "GET /smuggled"], post("", SMUGGLED)),
        served("GET with a body", &["GET /a hello"], format!("{}hello", get("Content-Length: 5\r\n"))),
        served(
            "HEAD with a body",
            &["HEAD /a hello"],
            format!("HEAD {{p}}/a HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5\r\n\r\nhello"),
        ),
    ]
}

fn codings() -> Vec<Case> {
    let bad = |name, fields: &str| refused(name, BAD, post(fields, &format!("0\r\n\r\n{SMUGGLED}")));
    vec![
        bad("gzip, chunked", "Transfer-Encoding: gzip, chunked\r\n"),
        bad("chunked, gzip", "Transfer-Encoding: chunked, gzip\r\n"),
        bad("chunked twice in one field", "Transfer-Encoding: chunked, chunked\r\n"),
        bad("chunked twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        bad("identity", "Transfer-Encoding: identity\r\n"),
        bad("unknown and chunked", "Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n"),
        bad("xchunked", "Transfer-Encoding: xchunked\r\n"),
        bad("chunked with a parameter", "Transfer-Encoding: chunked;q=1\r\n"),
        bad("quoted chunked", "Transfer-Encoding: \"chunked\"\r\n"),
        bad("empty coding", "Transfer-Encoding:\r\n"),
        bad("chunked behind a comma", "Transfer-Encoding: ,chunked\r\n"),
        bad("vertical tab before chunked", "Transfer-Encoding: \x0bchunked\r\n"),
        bad("form feed before chunked", "Transfer-Encoding: \x0cchunked\r\n"),
        bad("blank before the colon", "Transfer-Encoding : chunked\r\n"),
        bad("tab before the colon", "Transfer-Encoding\t: chunked\r\n"),
        bad("folded coding", "Transfer-Encoding:\r\n chunked\r\n"),
        bad("coding folded into another field", "X: y\r\n Transfer-Encoding: chunked\r\n"),
        bad("coding behind a bare LF", "X: y\nTransfer-Encoding: chunked\r\n"),
        bad("coding behind a bare CR", "X: y\rTransfer-Encoding: chunked\r\n"),
        bad("NUL in the name", "Transfer-\0Encoding: chunked\r\n"),
        bad("NUL behind the value", "Transfer-Encoding: chunked\0\r\n"),
        served("underscore is another field", &["POST /a", "GET /smuggled"], post("Transfer_Encoding: chunked\r\n", SMUGGLED)),
        served("any case", &["POST /a hello"], post("TRANSFER-ENCODING: Chunked\r\n", "5\r\nhello\r\n0\r\n\r\n")),
        served("tab before the value", &["POST /a hello"], post("Transfer-Encoding:\tchunked\r\n", "5\r\nhello\r\n0\r\n\r\n")),
        refused(
            "HTTP/1.0 with a transfer coding",
            BAD,
            format!(
                "POST {{p}}/a HTTP/1.0\r\nHost: {HOST}\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}"
            ),
        ),
    ]
}

fn chunks() -> Vec<Case> {
    const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";
    let bad = |name, body: &str| refused(name, BAD, post(CHUNKED, &format!("{body}{SMUGGLED}")));
    let good = |name, origin, body: &str| served(name, origin, post(CHUNKED, body));
    vec![
        bad("size with LF alone", "5\nhello\r\n0\r\n\r\n"),
        bad("data with LF alone", "5\r\nhello\n0\r\n\r\n"),
        bad("data without end", "5\r\nhello0\r\n\r\n"),
        bad("more data than its size", "5\r\nhelloworld\r\n0\r\n\r\n"),
        bad("no size", "\r\nhello\r\n0\r\n\r\n"),
        bad("size with prefix", "0x5\r\nhello\r\n0\r\n\r\n"),
        bad("size with sign", "+5\r\nhello\r\n0\r\n\r\n"),
        bad("negative size", "-5\r\nhello\r\n0\r\n\r\n"),
        bad("blank before the size", " 5\r\nhello\r\n0\r\n\r\n"),
        bad("blank behind the size", "5 \r\nhello\r\n0\r\n\r\n"),
        bad("size with underscore", "0_5\r\nhello\r\n0\r\n\r\n"),
        bad("size of 17 digits", "00000000000000005\r\nhello\r\n0\r\n\r\n"),
        bad("size beyond 64 bits", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
        bad("LF in an extension", "5;a\nb\r\nhello\r\n0\r\n\r\n"),
        bad("CR in an extension", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
        bad("NUL in an extension", "5;a\0\r\nhello\r\n0\r\n\r\n"),
        bad("a quote that is not closed", "5;a=\"\r\nhello\r\n0\r\n\r\n"),
        bad("quoted line end", "5;a=\"x\r\ny\"\r\nhello\r\n0\r\n\r\n"),
        bad("last chunk with LF alone", "5\r\nhello\r\n0\n\r\n"),
        bad("trailer with LF alone", "0\r\nX: y\n\r\n"),
        bad("end with LF alone", "0\r\n\n"),
        bad("folded trailer", "0\r\nX: y\r\n z\r\n\r\n"),
        bad("trailer without name", "0\r\n: y\r\n\r\n"),
        bad("trailer with a blank before the colon", "0\r\nX : y\r\n\r\n"),
        bad("length as trailer", "0\r\nContent-Length: 5\r\n\r\n"),
        bad("coding as trailer", "0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        bad("host as trailer", "0\r\nHost: evil.example\r\n\r\n"),
        good("chunks", &["POST /a helloworld"], "5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n"),
        good("leading zeros", &["POST /a hello"], "0005\r\nhello\r\n000\r\n\r\n"),
        good("extensions are dropped", &["POST /a hello"], "5;a=b;c=\"d\\\"e\"\r\nhello\r\n0;z\r\n\r\n"),
        good(
            "trailers that smuggle nothing",
            &["POST /a hello"],
            "5\r\nhello\r\n0\r\nAuthorization: x\r\nX-Forwarded-For: 1.1.1.1\r\nX-T: y\r\n\r\n",
        ),
        good(
            "pipelined behind chunks",
            &["POST /a hello", "GET /b"],
            "5\r\nhello\r\n0\r\n\r\nGET {p}/b HTTP/1.1\r\nHost: test.example\r\n\r\n",
        ),
    ]
}

#[test]
fn every_door_reads_a_body_in_one_way() {
    let ground = Ground::new();
    let doors = ground.doors();
    ground.until_tls();
    let cases: Vec<Case> = lengths().into_iter().chain(codings()).collect();
    let wrong = doors.iter().flat_map(|door| ground.run(door, &cases)).collect();
    ground.check(wrong);
}

#[test]
fn chunks_have_one_grammar() {
    let ground = Ground::new();
    let wrong = ground.run(&ground.plain, &chunks());
    ground.check(wrong);
}
