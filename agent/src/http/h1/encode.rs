//! Heads and chunks as they go onto the wire. The codec owns framing fields: what a message carries of them is replaced by what is really sent.

use super::date::DATE_LEN;
use crate::http::chars::is_value;
use crate::http::digits::push_number;
use crate::http::{Fields, Name, RequestHead, ResponseHead, reason_phrase};

/// Framing that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireLength {
    /// No length field: bodiless messages, and responses that end with the connection.
    Absent,
    /// The head's own `Content-Length` stays, since no body follows (HEAD, 304).
    AsStated,
    /// `Content-Length`.
    Known(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// `Connection` that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// Nothing: the connection goes on, as HTTP/1.1 has it.
    Default,
    /// `close`.
    Close,
    /// `keep-alive`, for HTTP/1.0.
    KeepAlive,
    /// `upgrade`; the head's `Upgrade` stays.
    Upgrade,
}

/// Writes a request head with `host` as its `Host`. `Connection`, `Content-Length`, `Transfer-Encoding`, `Keep-Alive` and `Expect` of the
/// head are replaced or, since each hop speaks them for itself, left out; `Upgrade` stays only with [`Persistence::Upgrade`]. `TE` is said to be for this hop.
pub fn write_request_head(out: &mut Vec<u8>, head: &RequestHead, host: &str, length: WireLength, persistence: Persistence) {
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.path.as_bytes());
    if let Some(query) = &head.query {
        out.push(b'?');
        out.extend_from_slice(query.as_bytes());
    }
    out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
    out.extend_from_slice(host.as_bytes());
    out.extend_from_slice(b"\r\n");
    let written = write_fields(out, &head.fields, persistence, Name::Host.bit());
    if written & Name::Te.bit() != 0 {
        // It must not get past this hop unseen (RFC 9110 section 10.1.4).
        out.extend_from_slice(b"connection: te\r\n");
    }
    write_framing(out, &head.fields, length, persistence);
}

/// Writes a response head. The same fields as in requests are replaced; `date` is added when the head has none.
pub fn write_response_head(
    out: &mut Vec<u8>,
    head: &ResponseHead,
    length: WireLength,
    persistence: Persistence,
    date: Option<&[u8; DATE_LEN]>,
) {
    match head.status {
        200 => out.extend_from_slice(b"HTTP/1.1 200 OK\r\n"),
        status => {
            out.extend_from_slice(b"HTTP/1.1 ");
            push_number(out, u64::from(status));
            out.push(b' ');
            out.extend_from_slice(reason_phrase(status).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
    let written = write_fields(out, &head.fields, persistence, 0);
    if let Some(date) = date
        && written & Name::Date.bit() == 0
    {
        out.extend_from_slice(b"date: ");
        out.extend_from_slice(date);
        out.extend_from_slice(b"\r\n");
    }
    write_framing(out, &head.fields, length, persistence);
}

/// What the codec says by itself.
const FRAMING: u64 = Name::Connection.bit()
    | Name::ContentLength.bit()
    | Name::TransferEncoding.bit()
    | Name::KeepAlive.bit()
    | Name::ProxyConnection.bit()
    | Name::Expect.bit();

/// Writes all fields but framing and those `without`; says which were written.
fn write_fields(out: &mut Vec<u8>, fields: &Fields, persistence: Persistence, without: u64) -> u64 {
    let upgrade = if persistence == Persistence::Upgrade { 0 } else { Name::Upgrade.bit() };
    fields.write_lines(out, FRAMING | upgrade | without)
}

fn write_framing(out: &mut Vec<u8>, fields: &Fields, length: WireLength, persistence: Persistence) {
    match length {
        WireLength::Absent => {}
        WireLength::AsStated => {
            if let Some(value) = fields.get_known(Name::ContentLength).filter(|value| is_value(value)) {
                out.extend_from_slice(b"content-length: ");
                out.extend_from_slice(value);
                out.extend_from_slice(b"\r\n");
            }
        }
        WireLength::Known(bytes) => {
            out.extend_from_slice(b"content-length: ");
            push_number(out, bytes);
            out.extend_from_slice(b"\r\n");
        }
        WireLength::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    out.extend_from_slice(match persistence {
        Persistence::Default => &b"\r\n"[..],
        Persistence::Close => b"connection: close\r\n\r\n",
        Persistence::KeepAlive => b"connection: keep-alive\r\n\r\n",
        Persistence::Upgrade => b"connection: upgrade\r\n\r\n",
    });
}

/// Writes the line before a chunk of `len` bytes, not zero. CRLF follows the chunk.
pub fn write_chunk_start(out: &mut Vec<u8>, len: usize) {
    debug_assert!(len > 0);
    let digits = (usize::BITS - len.leading_zeros()).div_ceil(4);
    for place in (0..digits).rev() {
        out.push(b"0123456789abcdef"[len >> (place * 4) & 15]);
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes the last chunk and the trailers.
pub fn write_last_chunk(out: &mut Vec<u8>, trailers: Option<&Fields>) {
    out.extend_from_slice(b"0\r\n");
    if let Some(trailers) = trailers {
        trailers.each_sound(|field| {
            if super::is_trailer_allowed(field.id, field.name) {
                [field.name, b": ", field.value, b"\r\n"].into_iter().for_each(|part| out.extend_from_slice(part));
            }
        });
    }
    out.extend_from_slice(b"\r\n");
}
