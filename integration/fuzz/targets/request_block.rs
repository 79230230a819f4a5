//! HTTP/2 request blocks: what is accepted is a request that HTTP/1 can say, and is read there as the same one.
#![no_main]

use heddle_agent::bench::message::read_request;
use heddle_agent::bench::{Decoder, HeadLimits, Persistence, RequestHead, RequestParser, WireLength, write_request_head};
use libfuzzer_sys::fuzz_target;

const LIMITS: HeadLimits = HeadLimits { max_bytes: 8192, max_field: 2048, max_fields: 32, max_target: 1024, connect: false, any_authority: false };

fuzz_target!(|data: &[u8]| {
    let mut head = RequestHead::default();
    let Ok(facts) = read_request(&mut Decoder::new(4096), data, false, &LIMITS, &mut head) else { return };
    // A path is normalised before it goes anywhere, and a tunnel is said otherwise.
    if head.protocol.is_some() || !head.path.starts_with('/') || head.authority.is_empty() {
        return;
    }
    let mut wire = Vec::new();
    let length = facts.length.map_or(WireLength::Chunked, WireLength::Known);
    write_request_head(&mut wire, &head, &head.authority, length, Persistence::Default);
    let limits = HeadLimits { max_bytes: 1 << 16, max_field: 4096, max_fields: 64, max_target: 4096, connect: false, any_authority: false };
    let mut again = RequestHead::default();
    let read = RequestParser::new(limits).advance(&wire, &mut again);
    let read = read.unwrap_or_else(|fault| panic!("{fault}: {:?}", String::from_utf8_lossy(&wire)));
    assert_eq!(read.map(|read| read.consumed), Some(wire.len()), "{:?}", String::from_utf8_lossy(&wire));
    assert_eq!((&head.method, &head.authority, &head.path, &head.query), (&again.method, &again.authority, &again.path, &again.query));
});
