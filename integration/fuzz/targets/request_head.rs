//! HTTP/1 request heads: read in two pieces they say what they say at once, and what is written of them is read as the same request.
#![no_main]

use heddle_agent::bench::{HeadLimits, Persistence, RequestHead, RequestParser, WireLength, write_request_head};
use heddle_agent::bench::{BodyLength, ParsedRequest};
use libfuzzer_sys::fuzz_target;

const LIMITS: HeadLimits = HeadLimits { max_bytes: 4096, max_field: 1024, max_fields: 32, max_target: 1024, connect: false, any_authority: false };

fn read(pieces: &[&[u8]]) -> Option<(RequestHead, ParsedRequest)> {
    let mut head = RequestHead::default();
    let mut parser = RequestParser::new(LIMITS);
    let found = pieces.iter().try_fold(None, |found, piece| match found {
        None => parser.advance(piece, &mut head),
        found => Ok(found),
    });
    found.ok().flatten().map(|parsed| (head, parsed))
}

fn facts(head: &RequestHead) -> (String, String, String, Option<String>, Vec<(Vec<u8>, Vec<u8>)>) {
    let fields = head.fields.iter().map(|field| (field.name.to_vec(), field.value.to_vec())).collect();
    (head.method.as_str().to_owned(), head.authority.clone(), head.path.clone(), head.query.clone(), fields)
}

fuzz_target!(|data: &[u8]| {
    let Some((&cut, data)) = data.split_first() else { return };
    let cut = usize::from(cut).min(data.len());
    let whole = read(&[data]);
    let pieces = read(&[&data[..cut], data]);
    assert_eq!(whole.as_ref().map(|(head, parsed)| (facts(head), *parsed)), pieces.map(|(head, parsed)| (facts(&head), parsed)));
    let Some((head, parsed)) = whole else { return };
    assert!(parsed.consumed <= data.len());
    // HTTP/1.0 may say nothing of the host; what goes upstream then has the upstream's own.
    if head.authority.is_empty() {
        return;
    }
    let length = match parsed.length {
        BodyLength::Empty | BodyLength::UntilClose => WireLength::Absent,
        BodyLength::Known(bytes) => WireLength::Known(bytes),
        BodyLength::Chunked => WireLength::Chunked,
    };
    let mut wire = Vec::new();
    write_request_head(&mut wire, &head, &head.authority, length, Persistence::Default);
    let limits = HeadLimits { max_bytes: 1 << 16, max_field: 4096, max_fields: 64, max_target: 4096, connect: false, any_authority: false };
    let mut again = RequestHead::default();
    let read = RequestParser::new(limits).advance(&wire, &mut again);
    let read = read.ok().flatten().unwrap_or_else(|| panic!("what we write is no request: {:?}", String::from_utf8_lossy(&wire)));
    assert_eq!((read.consumed, read.length), (wire.len(), parsed.length), "{:?}", String::from_utf8_lossy(&wire));
    let told = |head: &RequestHead| (head.method.clone(), head.authority.clone(), head.path.clone(), head.query.clone());
    assert_eq!(told(&head), told(&again));
});
