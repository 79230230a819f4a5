//! Responses and trailers that come (RFC 9113 sections 8.1 and 8.3.2). It trusts a server no more than a client.

use super::BlockFault;
use super::read::{Judge, lenient};
use crate::http::h1::{HeadLimits, is_trailer_allowed};
use crate::http::h2::hpack::{Class, Decoder, Field};
use crate::http::{Fields, Name, ResponseHead};

/// Reads a response head, final or interim, and the length of the content that it announces.
pub fn read_response(
    decoder: &mut Decoder,
    block: &[u8],
    limits: &HeadLimits,
) -> Result<(ResponseHead, Option<u64>), BlockFault> {
    let (mut judge, mut head) = (Judge::new(limits), ResponseHead::default());
    decoder.decode(block, |field| match field.class {
        Class::Field(_) | Class::Bad => {
            if let Some((id, value)) = admit(&mut judge, &field) {
                head.fields.push_line(&field.line(id, value));
            }
        }
        Class::Status => {
            if judge.admit_pseudo(&field) {
                take_status(&mut judge, field.value, &mut head);
            }
        }
        _ => judge.malformed("a response with a pseudo-field of requests"),
    })?;
    if head.status == 0 {
        judge.malformed("no status");
    }
    judge.verdict()?;
    Ok((head, judge.length))
}

fn take_status(judge: &mut Judge, value: &[u8], head: &mut ResponseHead) {
    match value {
        [first @ b'1'..=b'5', second @ b'0'..=b'9', third @ b'0'..=b'9'] => {
            head.status = u16::from(first - b'0') * 100 + u16::from(second - b'0') * 10 + u16::from(third - b'0');
        }
        _ => judge.malformed("bad status"),
    }
}

/// Reads trailers into `out`, which is empty. Those that may not stand there are dropped.
pub fn read_trailers(decoder: &mut Decoder, block: &[u8], limits: &HeadLimits, out: &mut Fields) -> Result<(), BlockFault> {
    let mut judge = Judge::new(limits);
    decoder.decode(block, |field| match field.class {
        Class::Field(_) | Class::Bad => {
            if let Some((id, value)) = admit(&mut judge, &field).filter(|(id, _)| is_trailer_allowed(*id, field.name)) {
                out.push_line(&field.line(id, value));
            }
        }
        _ => judge.malformed("a pseudo-field in trailers"),
    })?;
    judge.verdict()
}

/// Known name and value of a field that may be taken in.
fn admit<'a>(judge: &mut Judge, field: &Field<'a>) -> Option<(Name, &'a [u8])> {
    let id = judge.admit(field)?;
    let value = lenient(field);
    if value.is_none() {
        judge.malformed("a value with bytes that it must not have");
    }
    Some((id, value?))
}
