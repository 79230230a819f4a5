//! HTTP/1 response heads: read in two pieces they say what they say at once, and what is written of them is read as the same response.
#![no_main]

use heddle_agent::bench::{BodyLength, ParsedResponse};
use heddle_agent::bench::{HeadLimits, Persistence, RequestKind, ResponseHead, ResponseParser, WireLength, write_response_head};
use libfuzzer_sys::fuzz_target;

const LIMITS: HeadLimits = HeadLimits { max_bytes: 4096, max_field: 1024, max_fields: 32, max_target: 1024, connect: false, any_authority: false };

fn read(kind: RequestKind, pieces: &[&[u8]]) -> Option<(ResponseHead, ParsedResponse)> {
    let mut head = ResponseHead::default();
    let mut parser = ResponseParser::new(LIMITS, kind);
    let found = pieces.iter().try_fold(None, |found, piece| match found {
        None => parser.advance(piece, &mut head),
        found => Ok(found),
    });
    found.ok().flatten().map(|parsed| (head, parsed))
}

fuzz_target!(|data: &[u8]| {
    let [cut, kind, data @ ..] = data else { return };
    let kind = if kind & 1 == 0 { RequestKind::Other } else { RequestKind::Head };
    let cut = usize::from(*cut).min(data.len());
    let (whole, pieces) = (read(kind, &[data]), read(kind, &[&data[..cut], data]));
    assert_eq!(whole.as_ref().map(|(head, parsed)| (head.status, *parsed)), pieces.map(|(head, parsed)| (head.status, parsed)));
    let Some((head, parsed)) = whole else { return };
    assert!(parsed.consumed <= data.len());
    let length = match parsed.length {
        BodyLength::Empty if (100..200).contains(&head.status) || matches!(head.status, 204 | 304) => WireLength::Absent,
        BodyLength::Empty => WireLength::Known(0),
        BodyLength::Known(bytes) => WireLength::Known(bytes),
        BodyLength::Chunked => WireLength::Chunked,
        BodyLength::UntilClose => WireLength::Absent,
    };
    let mut wire = Vec::new();
    write_response_head(&mut wire, &head, length, Persistence::Default, None);
    let limits = HeadLimits { max_bytes: 1 << 16, max_field: 4096, max_fields: 64, max_target: 4096, connect: false, any_authority: false };
    let mut again = ResponseHead::default();
    let read = ResponseParser::new(limits, kind).advance(&wire, &mut again);
    let read = read.ok().flatten().unwrap_or_else(|| panic!("what we write is no response: {:?}", String::from_utf8_lossy(&wire)));
    assert_eq!((read.consumed, again.status), (wire.len(), head.status));
    if kind == RequestKind::Other {
        assert_eq!(read.length, parsed.length, "{:?}", String::from_utf8_lossy(&wire));
    }
});
