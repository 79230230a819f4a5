//! What an answer that is no gRPC says to clients of gRPC: the beginning of its body.

use crate::http::{Body, Frame};

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
