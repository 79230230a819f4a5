//! Heads: read, rewritten, written, and the line that is logged of them.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use heddle_agent::bench::{
    AddressText, Decoder, Encoder, HeadLimits, Persistence, RequestHead, RequestKind, RequestParser, ResponseHead,
    ResponseParser, WireLength, message, rewrite_fields, write_request_head, write_response_head,
};
use heddle_agent::exchange::Exchange;
use heddle_agent::observe::access_log::{AccessLog, Batch, Sink};
use heddle_xds::model::EdgeLimits;

use super::Case;
use super::filters::imagined;
use crate::subject::Subject;

/// Rounds that are counted.
const ROUNDS: usize = 2048;

/// What a browser's script sends.
pub const REQUEST: &[u8] = b"GET /api/v1/things/42?limit=10 HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nAccept: application/json\r\nAccept-Encoding: gzip, br\r\nAccept-Language: en\r\nOrigin: https://app.example.com\r\nReferer: https://app.example.com/things\r\nCookie: session=0123456789abcdef\r\napikey: key-of-jack\r\nConnection: keep-alive\r\n\r\n";

/// What a small service answers.
pub const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Type: application/json\r\nContent-Length: 60\r\nConnection: keep-alive\r\nETag: \"5f0e-60\"\r\n\r\n";

/// The second line of [`RESPONSE`] as the encoder is given it.
const DATE: &[u8; 29] = b"Thu, 01 Jan 1970 00:00:00 GMT";

fn limits() -> HeadLimits {
    HeadLimits::edge(&EdgeLimits::default())
}

/// The head of [`REQUEST`].
pub fn request() -> RequestHead {
    let mut head = RequestHead::default();
    RequestParser::new(limits()).advance(REQUEST, &mut head).unwrap().unwrap();
    head
}

/// The head of [`RESPONSE`].
pub fn response() -> ResponseHead {
    let mut head = ResponseHead::default();
    ResponseParser::new(limits(), RequestKind::Other).advance(RESPONSE, &mut head).unwrap().unwrap();
    head
}

/// Something that is done to one state again and again.
struct Again<S, F>(S, F);

impl<S, F: FnMut(&mut S)> Subject for Again<S, F> {
    fn run(&mut self, rounds: usize) {
        for _ in 0..rounds {
            (self.1)(black_box(&mut self.0));
        }
    }
}

pub fn cases() -> Vec<Case> {
    let case = |name, make| Case { name, rounds: ROUNDS, less: None, make };
    vec![
        case("h1/read request", || {
            Box::new(Again(RequestHead::default(), |head: &mut RequestHead| {
                head.clear();
                let parsed = RequestParser::new(limits()).advance(black_box(REQUEST), head);
                assert!(parsed.is_ok_and(|parsed| parsed.is_some()));
            }))
        }),
        case("h1/read response", || {
            Box::new(Again((), |(): &mut ()| {
                let mut head = ResponseHead::default();
                let parsed = ResponseParser::new(limits(), RequestKind::Other).advance(black_box(RESPONSE), &mut head);
                assert!(parsed.is_ok_and(|parsed| parsed.is_some()));
            }))
        }),
        case("h1/write request", || {
            Box::new(Again((request(), Vec::new()), |(head, out): &mut (RequestHead, Vec<u8>)| {
                out.clear();
                write_request_head(out, head, "www.example.com", WireLength::Absent, Persistence::Default);
            }))
        }),
        case("h1/write response", || {
            Box::new(Again((response(), Vec::new()), |(head, out): &mut (ResponseHead, Vec<u8>)| {
                out.clear();
                write_response_head(out, head, WireLength::Known(60), Persistence::Default, Some(DATE));
            }))
        }),
        case("h2/read request", || {
            let mut blocks = Blocks::new();
            // Said once before, so that what repeats is indexed.
            let block = [blocks.request(), blocks.request(), blocks.request()][2].clone();
            Box::new(Again(
                (blocks, block, RequestHead::default()),
                |(blocks, block, head): &mut (Blocks, Vec<u8>, RequestHead)| {
                    head.clear();
                    let read = message::read_request(&mut blocks.decoder, black_box(block), true, &limits(), head);
                    assert!(read.is_ok());
                },
            ))
        }),
        case("h2/read first request", || {
            let block = Blocks::new().request();
            Box::new(Again((block, RequestHead::default()), |(block, head): &mut (Vec<u8>, RequestHead)| {
                head.clear();
                let read = message::read_request(&mut Decoder::new(4096), black_box(block), true, &limits(), head);
                assert!(read.is_ok());
            }))
        }),
        case("h2/read response", || {
            let mut blocks = Blocks::new();
            let block = [blocks.response(), blocks.response(), blocks.response()][2].clone();
            Box::new(Again((blocks, block), |(blocks, block): &mut (Blocks, Vec<u8>)| {
                let read = message::read_response(&mut blocks.decoder, black_box(block), &limits());
                assert!(read.is_ok_and(|(head, _)| head.status == 200));
            }))
        }),
        case("h2/write request", || {
            Box::new(Again(
                (request(), Encoder::new(), Vec::new()),
                |(head, encoder, out): &mut (RequestHead, Encoder, Vec<u8>)| {
                    out.clear();
                    message::write_request(encoder, out, head, "www.example.com", true, message::WireLength::Absent);
                },
            ))
        }),
        case("h2/write response", || {
            Box::new(Again(
                (response(), Encoder::new(), Vec::new()),
                |(head, encoder, out): &mut (ResponseHead, Encoder, Vec<u8>)| {
                    out.clear();
                    message::write_response(encoder, out, head, message::WireLength::Known(60), Some(DATE));
                },
            ))
        }),
        case("rewrite/request fields", || {
            let peer = AddressText::of(([192, 0, 2, 7], 4711).into());
            Box::new(Rewriting { head: request(), peer, ready: Vec::new() })
        }),
        case("log/json line", || logging(None)),
        case("log/template line", || {
            logging(Some("$remote_addr - [$time_iso8601] \"$request_method $uri\" $status $body_bytes_sent $request_time"))
        }),
    ]
}

/// Both ends of one direction of an HTTP/2 connection.
struct Blocks {
    encoder: Encoder,
    decoder: Decoder,
}

impl Blocks {
    fn new() -> Blocks {
        Blocks { encoder: Encoder::new(), decoder: Decoder::new(4096) }
    }

    /// The next block that says [`REQUEST`].
    fn request(&mut self) -> Vec<u8> {
        let mut block = Vec::new();
        message::write_request(&mut self.encoder, &mut block, &request(), "www.example.com", true, message::WireLength::Absent);
        let read = message::read_request(&mut self.decoder, &block, true, &limits(), &mut RequestHead::default());
        assert!(read.is_ok());
        block
    }

    /// The next block that says [`RESPONSE`].
    fn response(&mut self) -> Vec<u8> {
        let mut block = Vec::new();
        message::write_response(&mut self.encoder, &mut block, &response(), message::WireLength::Known(60), Some(DATE));
        let read = message::read_response(&mut self.decoder, &block, &limits());
        assert!(read.is_ok());
        block
    }
}

/// What every proxied request gets: hop-by-hop fields off, `X-Forwarded-*` on.
struct Rewriting {
    head: RequestHead,
    peer: AddressText,
    ready: Vec<RequestHead>,
}

impl Subject for Rewriting {
    fn prepare(&mut self, rounds: usize) {
        self.ready = vec![self.head.clone(); rounds];
    }

    fn run(&mut self, _rounds: usize) {
        for head in black_box(&mut self.ready) {
            rewrite_fields(head, &self.peer);
        }
    }
}

struct Logging {
    batch: Batch,
    x: Exchange,
}

impl Subject for Logging {
    fn run(&mut self, rounds: usize) {
        for _ in 0..rounds {
            self.batch.push(black_box(&self.x), Duration::from_micros(1234));
        }
    }
}

fn logging(template: Option<&str>) -> Box<dyn Subject> {
    let log = AccessLog::open(&Sink::File(Path::new("/dev/null").to_owned()), template).unwrap();
    let mut x = imagined(std::rc::Rc::new(heddle_agent::exchange::imagined::EmptyDirectory));
    x.answer.status = 200;
    x.answer.bytes_sent = 60;
    Box::new(Logging { batch: Arc::new(log).batch(), x })
}
