//! CONNECT: a stream of opaque bytes to an application behind a peer of the mesh, or of a protocol that an HTTP request asks to switch to.

use std::task::{Context, Poll};
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use heddle_node::clock;
use heddle_xds::model::Timeouts;
use tokio::time::Instant;

use super::session::{Checkout, MAX_CLOSING, Stream, checkout, no_more};
use crate::exchange::{Reason, Tunnel};
use crate::http::h2::hpack::Encoder;
use crate::http::h2::message::{write_connect, write_extended_connect};
use crate::http::{Body, Name, RequestHead, ResponseHead};
use crate::upstream::connect::after;
use crate::upstream::h1::is_late;
use crate::upstream::pools::{Outcome, Work};
use crate::upstream::target::Picked;
use crate::upstream::{OutgoingRequest, Sent, UpstreamError, UpstreamResponse};

/// The text that a server joins to the key of a WebSocket handshake (RFC 6455 section 1.3).
const WEBSOCKET: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A tunnel that stands.
pub(in crate::upstream) struct Opened {
    pub(in crate::upstream) io: Box<dyn Tunnel>,
    /// Time spent connecting; zero when the connection was there already.
    pub(in crate::upstream) connect: Duration,
}

/// Asks the peer for a tunnel to `authority`. Nothing of what the tunnel is for has been sent when this fails.
pub(in crate::upstream) async fn connect(
    picked: Picked,
    authority: &str,
    timeouts: &Timeouts,
    start: Instant,
) -> Result<Opened, (Picked, UpstreamError)> {
    let wanted = Checkout { host: authority, timeouts };
    let write = |encoder: &mut Encoder, out: &mut Vec<u8>| write_connect(encoder, out, authority);
    let (stream, connect, _) = match open(&picked, &wanted, start, false, write).await {
        Ok(opened) => opened,
        Err(error) => return Err((picked, error)),
    };
    match answer(stream, timeouts.connect, Sent::Nothing).await {
        Ok((stream, head)) if (200..300).contains(&head.status) => {
            picked.head_came(head.status, start, clock::now());
            Ok(Opened { io: Box::new(stream.into_io(Work::new(picked))), connect })
        }
        Ok((_, head)) => {
            // The peer is there, and its application is not, or it does not want us: another one may.
            let reason = if head.status < 500 { Reason::TunnelRefused } else { Reason::UpstreamConnect };
            let detail = format!("the peer answers {} to CONNECT {authority}", head.status);
            Err((picked, UpstreamError::new(reason, Sent::Nothing, detail)))
        }
        Err(error) => Err((picked, error)),
    }
}

/// Sends a request that asks to leave HTTP as an extended CONNECT, and gives its answer back as HTTP/1 would give it.
pub(super) async fn upgrade(picked: Picked, request: &OutgoingRequest<'_>, tls: bool, start: Instant) -> Outcome {
    let protocol = request.head.fields.get_known(Name::Upgrade).and_then(|value| std::str::from_utf8(value).ok());
    let Some(protocol) = protocol.map(|text| text.trim().to_ascii_lowercase()).filter(|protocol| protocol == "websocket") else {
        let detail = "only WebSocket can be asked for over HTTP/2";
        return Err((picked, UpstreamError::new(Reason::NotImplemented, Sent::Nothing, detail)));
    };
    if request.head.fields.get_all("sec-websocket-key").count() != 1 {
        let detail = "a WebSocket is asked for with one Sec-WebSocket-Key (RFC 6455 section 4.2.1)";
        return Err((picked, UpstreamError::new(Reason::BadRequest, Sent::Nothing, detail)));
    }
    let write = |encoder: &mut Encoder, out: &mut Vec<u8>| {
        write_extended_connect(encoder, out, request.head, request.host, tls, &protocol)
    };
    let (stream, connect, reused) = match open(&picked, &Checkout::of(request), start, true, write).await {
        Ok(opened) => opened,
        Err(error) => return Err((picked, error)),
    };
    let (stream, mut head) = match answer(stream, request.timeouts.read, Sent::All).await {
        Ok(answered) => answered,
        Err(error) => return Err((picked, error)),
    };
    let header = picked.head_came(head.status, start, clock::now());
    let work = Work::new(picked);
    if !(200..300).contains(&head.status) {
        let body = super::request::finish(stream, None, work, request);
        return Ok(UpstreamResponse { head, body, upgraded: None, connect, header, reused });
    }
    head.status = 101;
    head.fields.set("upgrade", protocol);
    head.fields.set("sec-websocket-accept", accept(request.head));
    let upgraded: Option<Box<dyn Tunnel>> = Some(Box::new(stream.into_io(work)));
    Ok(UpstreamResponse { head, body: Body::Empty, upgraded, connect, header, reused })
}

/// Opens a stream with a head that `encode` writes, which `extended` says to be an extended CONNECT. A connection that turns out to be closing is left for
/// another one, as by other requests: the endpoint has not seen anything of it.
async fn open(
    picked: &Picked,
    wanted: &Checkout<'_>,
    start: Instant,
    extended: bool,
    encode: impl Fn(&mut Encoder, &mut Vec<u8>),
) -> Result<(Stream, Duration, bool), UpstreamError> {
    for _ in 0..MAX_CLOSING {
        let (lease, connect, reused) = checkout(picked, wanted, start).await?;
        if extended && !lease.takes_upgrades(after(start, wanted.timeouts.connect)).await? {
            let detail = "the endpoint takes no WebSocket over HTTP/2: it does not offer extended CONNECT (RFC 8441)";
            return Err(UpstreamError::new(Reason::NotImplemented, Sent::Nothing, detail));
        }
        if let Some(stream) = lease.open(false, false, &encode) {
            stream.with(|machine, key| machine.connects(key));
            return Ok((stream, connect, reused));
        }
    }
    Err(no_more())
}

/// Waits for the final head of the answer.
async fn answer(mut stream: Stream, limit: Duration, sent: Sent) -> Result<(Stream, ResponseHead), UpstreamError> {
    let head = std::future::poll_fn(|cx| poll_answer(&mut stream, limit, sent, cx)).await?;
    Ok((stream, head))
}

fn poll_answer(
    stream: &mut Stream,
    limit: Duration,
    sent: Sent,
    cx: &mut Context<'_>,
) -> Poll<Result<ResponseHead, UpstreamError>> {
    loop {
        match stream.with(|machine, key| machine.poll_head(key, cx)) {
            Poll::Ready(Ok(head)) if head.status >= 200 => {
                stream.deadline.clear();
                return Poll::Ready(Ok(head));
            }
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(lost)) => return Poll::Ready(Err(stream.error(lost, sent))),
            Poll::Pending => break,
        }
    }
    if is_late(&mut stream.deadline, limit, cx) {
        return Poll::Ready(Err(UpstreamError::new(Reason::UpstreamTimeout, sent, "no answer to CONNECT in time")));
    }
    Poll::Pending
}

/// What the client of a WebSocket handshake over HTTP/1 expects to see (RFC 6455 section 4.2.2).
fn accept(head: &RequestHead) -> Bytes {
    let key = head.fields.get("sec-websocket-key").unwrap_or_default();
    let text = [key.trim_ascii(), WEBSOCKET].concat();
    STANDARD.encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &text)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_a_handshake_is_answered_as_the_rfc_says() {
        let mut head = RequestHead::default();
        head.fields.append("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept(&head), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
