//! Heads and trailers as blocks. A field that is none is left out: nobody breaks a connection, whatever a filter was told to set.

use super::WireLength;
use crate::http::chars::is_token;
use crate::http::digits::Digits;
use crate::http::fields::FieldRef;
use crate::http::h1::{is_authority, is_trailer_allowed};
use crate::http::h2::hpack::Encoder;
use crate::http::{Fields, Name, RequestHead, ResponseHead};

/// Whether a request can be said in HTTP/2; what of it cannot, otherwise.
pub fn check_request(head: &RequestHead, host: &str) -> Result<(), &'static str> {
    if !is_authority(host.as_bytes()) {
        return Err("the host is no authority");
    }
    if !is_token(head.method.as_str().as_bytes()) {
        return Err("the method cannot be sent");
    }
    let visible = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if head.path.is_empty() || !visible(&head.path) || !head.query.as_deref().is_none_or(visible) {
        return Err("the path cannot be sent");
    }
    Ok(())
}

/// Writes a request head with `host` as its authority. Fields of the connection do not travel, but for `te: trailers`: gRPC demands it to find
/// proxies that drop trailers.
pub fn write_request(encoder: &mut Encoder, out: &mut Vec<u8>, head: &RequestHead, host: &str, tls: bool, length: WireLength) {
    encoder.begin(out);
    encoder.method(out, head.method.as_str().as_bytes());
    encoder.scheme(out, tls);
    encoder.authority(out, host.as_bytes());
    encoder.path(out, head.path.as_bytes(), head.query.as_ref().map(String::as_bytes));
    let mut trailers = false;
    head.fields.each_sound(|field| match field.id {
        Name::Te => trailers |= names_trailers(field.value),
        Name::Host | Name::Expect => {}
        Name::ContentLength if length != WireLength::AsStated => {}
        id if id.is_hop_by_hop() => {}
        id => {
            trailers |= id == Name::ContentType && field.value.starts_with(b"application/grpc");
            write_field(encoder, out, field);
        }
    });
    write_length(encoder, out, length);
    if trailers {
        encoder.field(out, Name::Te, b"te", b"trailers");
    }
}

/// Writes a CONNECT for opaque bytes to `authority` (RFC 9113 section 8.5): it has neither scheme nor path.
pub fn write_connect(encoder: &mut Encoder, out: &mut Vec<u8>, authority: &str) {
    encoder.begin(out);
    encoder.method(out, b"CONNECT");
    encoder.authority(out, authority.as_bytes());
}

/// Writes an extended CONNECT (RFC 8441 section 4) for a request that asks to leave HTTP for `protocol`. What only the handshake of HTTP/1 needs stays
/// here.
pub fn write_extended_connect(
    encoder: &mut Encoder,
    out: &mut Vec<u8>,
    head: &RequestHead,
    host: &str,
    tls: bool,
    protocol: &str,
) {
    encoder.begin(out);
    encoder.method(out, b"CONNECT");
    encoder.scheme(out, tls);
    encoder.authority(out, host.as_bytes());
    encoder.path(out, head.path.as_bytes(), head.query.as_ref().map(String::as_bytes));
    encoder.field(out, Name::Other, b":protocol", protocol.as_bytes());
    head.fields.each_sound(|field| {
        let stays = !matches!(field.id, Name::Host | Name::Expect | Name::ContentLength) && !field.id.is_hop_by_hop();
        if stays && !field.name.eq_ignore_ascii_case(b"sec-websocket-key") {
            write_field(encoder, out, field);
        }
    });
}

fn names_trailers(value: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// Writes a final response head; `date` is added when the head has none.
pub fn write_response(encoder: &mut Encoder, out: &mut Vec<u8>, head: &ResponseHead, length: WireLength, date: Option<&[u8]>) {
    encoder.begin(out);
    encoder.status(out, if (200..600).contains(&head.status) { head.status } else { 500 });
    let mut dated = false;
    head.fields.each_sound(|field| {
        let stays = match field.id {
            Name::ContentLength => length == WireLength::AsStated,
            // Authentication towards a proxy that asks for it is end to end with us.
            Name::ProxyAuthenticate => true,
            id => !id.is_hop_by_hop(),
        };
        if stays {
            dated |= field.id == Name::Date;
            write_field(encoder, out, field);
        }
    });
    write_length(encoder, out, length);
    if let Some(date) = date
        && !dated
    {
        encoder.field(out, Name::Date, b"date", date);
    }
}

/// Writes an interim response head (1xx).
pub fn write_interim(encoder: &mut Encoder, out: &mut Vec<u8>, head: &ResponseHead) {
    encoder.begin(out);
    encoder.status(out, head.status);
    head.fields.each_sound(|field| {
        if field.id != Name::ContentLength && !field.id.is_hop_by_hop() {
            write_field(encoder, out, field);
        }
    });
}

/// Writes `100 Continue`.
pub fn write_continue(encoder: &mut Encoder, out: &mut Vec<u8>) {
    encoder.begin(out);
    encoder.status(out, 100);
}

/// Writes trailers.
pub fn write_trailers(encoder: &mut Encoder, out: &mut Vec<u8>, trailers: &Fields) {
    encoder.begin(out);
    trailers.each_sound(|field| {
        if is_trailer_allowed(field.id, field.name) {
            write_field(encoder, out, field);
        }
    });
}

fn write_field(encoder: &mut Encoder, out: &mut Vec<u8>, field: FieldRef<'_>) {
    encoder.field(out, field.id, field.name, field.value.trim_ascii());
}

fn write_length(encoder: &mut Encoder, out: &mut Vec<u8>, length: WireLength) {
    if let WireLength::Known(bytes) = length {
        encoder.field(out, Name::ContentLength, b"content-length", Digits::default().of(bytes));
    }
}
