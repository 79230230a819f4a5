//! CONNECT: a stream of opaque bytes to an application behind a peer of the mesh, or of a protocol that an HTTP request asks to switch to.

use std::task::{Context, Poll};

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use heddle_node::clock;
use heddle_xds::model::Timeouts;
use tokio::time::Instant;

use super::session::{Checkout, Lease, Stream, checkout};
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
    pub(in crate::upstream) connect: std::time::Duration,
}

/// Asks the peer for a tunnel to `authority`. Nothing of what the tunnel is for has been sent when this fails.
pub(in crate::upstream) async fn connect(
    picked: Picked,
    authority: &str,
    timeouts: &Timeouts,
    start: Instant,
) -> Result<Opened, (Picked, UpstreamError)> {
    let wanted = Checkout { host: authority, timeouts };
    let (lease, connect, _) = match checkout(&picked, &wanted, start).await {
        Ok(ready) => ready,
        Err(error) => return Err((picked, error)),
    };
    let Some(stream) = lease.open(false, false, |encoder, out| write_connect(encoder, out, authority)) else {
        return Err((picked, gone()));
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
    let (lease, connect, reused) = match checkout(&picked, &Checkout::of(request), start).await {
        Ok(ready) => ready,
        Err(error) => return Err((picked, error)),
    };
    match lease.takes_upgrades(after(start, request.timeouts.connect)).await {
        Some(true) => {}
        Some(false) => {
            let detail = "the endpoint takes no WebSocket over HTTP/2: it does not offer extended CONNECT (RFC 8441)";
            return Err((picked, UpstreamError::new(Reason::NotImplemented, Sent::Nothing, detail)));
        }
        None if clock::now() >= after(start, request.timeouts.connect) => {
            let detail = "HTTP/2: the endpoint does not say its settings in time";
            return Err((picked, UpstreamError::new(Reason::UpstreamTimeout, Sent::Nothing, detail)));
        }
        None => return Err((picked, gone())),
    }
    let Some(stream) = open(lease, request, tls, &protocol) else { return Err((picked, gone())) };
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

fn open(lease: Lease, request: &OutgoingRequest<'_>, tls: bool, protocol: &str) -> Option<Stream> {
    let write = |encoder: &mut Encoder, out: &mut Vec<u8>| {
        write_extended_connect(encoder, out, request.head, request.host, tls, protocol)
    };
    lease.open(false, false, write).inspect(|stream| stream.with(|machine, key| machine.connects(key)))
}

fn gone() -> UpstreamError {
    UpstreamError::new(Reason::UpstreamReset, Sent::Nothing, "HTTP/2: the connection takes no more requests")
}

/// Waits for the final head of the answer.
async fn answer(mut stream: Stream, limit: std::time::Duration, sent: Sent) -> Result<(Stream, ResponseHead), UpstreamError> {
    let head = std::future::poll_fn(|cx| poll_answer(&mut stream, limit, sent, cx)).await?;
    Ok((stream, head))
}

fn poll_answer(
    stream: &mut Stream,
    limit: std::time::Duration,
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
