//! Answers that are no gRPC, as gRPC clients read them: a status by that of HTTP, and the beginning of the body as its message.

use crate::http::{Body, FieldName, Frame, Name, ResponseHead};

const MESSAGE: FieldName = FieldName::of("grpc-message");
/// Most bytes of a body that become a message. Each may take three in the field, and clients bound their fields.
const MOST: usize = 1024;

/// The beginning of a body; the rest is not read.
pub(super) async fn beginning(mut body: Body) -> Vec<u8> {
    let mut held = Vec::new();
    while held.len() < MOST {
        match body.frame().await {
            Some(Ok(Frame::Data(bytes))) => held.extend_from_slice(&bytes[..bytes.len().min(MOST - held.len())]),
            Some(Ok(Frame::Trailers(_))) => {}
            // What there is says more than nothing.
            Some(Err(_)) | None => break,
        }
    }
    held
}

/// The beginning of a body that is at hand; nothing where it has to be waited for.
pub(super) fn at_hand(body: &Body) -> Option<Vec<u8>> {
    match body {
        Body::Empty => Some(Vec::new()),
        Body::Full(bytes) => Some(bytes[..bytes.len().min(MOST)].to_vec()),
        Body::Stream(_) => None,
    }
}

/// Says status and message in the head; the body is gone.
pub(super) fn tell(head: &mut ResponseHead, body: &[u8]) {
    let coded = head.fields.contains_known(Name::ContentEncoding);
    head.fields.remove_known(Name::ContentLength);
    head.fields.remove_known(Name::ContentEncoding);
    head.fields.set_known(Name::GrpcStatus, code(head.status));
    head.fields.remove_named(&MESSAGE);
    if !body.is_empty() && !coded {
        head.fields.set_named(&MESSAGE, escaped(body));
    }
}

/// The status of gRPC for one of HTTP ("HTTP to gRPC Status Code Mapping" of gRPC).
fn code(status: u16) -> &'static str {
    match status {
        400 => "13",
        401 => "16",
        403 => "7",
        404 => "12",
        429 | 502..=504 => "14",
        _ => "2",
    }
}

/// A message as the field holds it ("Responses" of "gRPC over HTTP2").
fn escaped(body: &[u8]) -> String {
    let mut out = String::with_capacity(body.len());
    for byte in body {
        match byte {
            b'%' | 0..=0x1f | 0x7f.. => out.push_str(&format!("%{byte:02X}")),
            byte => out.push(char::from(*byte)),
        }
    }
    out
}
