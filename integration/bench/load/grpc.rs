//! Unary gRPC calls over HTTP/2: many streams on few connections; an answer counts when status, message and trailers are right.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::options::Options;
use crate::tally::Tally;
use crate::tls;

/// `to`, `certificate` (without it: in clear), `seconds`, `connections`, `streams` of each, `message` bytes.
pub async fn run(options: &Options) -> Result<Tally, String> {
    let message = message(options.number("message", 60)? as usize);
    let tally = Rc::new(RefCell::new(Tally::new()));
    let mut senders = Vec::new();
    for _ in 0..options.number("connections", 16)? {
        senders.push(open(options).await?);
    }
    let deadline = Instant::now() + options.duration()?;
    *tally.borrow_mut() = Tally::new();
    let mut tasks = JoinSet::new();
    for sender in senders {
        for _ in 0..options.number("streams", 16)? {
            let (tally, message, mut sender) = (tally.clone(), message.clone(), sender.clone());
            tasks.spawn_local(async move {
                while Instant::now() < deadline {
                    let start = Instant::now();
                    let result = unary(&mut sender, &message).await;
                    let failed = result.is_err();
                    tally.borrow_mut().add(result.map(|()| start.elapsed()), deadline);
                    if failed {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }
            });
        }
    }
    let _ = tokio::time::timeout_at((deadline + Duration::from_secs(1)).into(), tasks.join_all()).await;
    Ok(tally.replace(Tally::new()))
}

async fn open(options: &Options) -> Result<SendRequest<Bytes>, String> {
    let stream = TcpStream::connect(options.address()?).await.map_err(|error| format!("connect: {error}"))?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let failed = |error: h2::Error| format!("HTTP/2: {error}");
    if options.text("certificate").is_none() {
        let (sender, connection) = h2::client::handshake(stream).await.map_err(failed)?;
        tokio::task::spawn_local(async move { drop(connection.await) });
        return Ok(sender);
    }
    let stream = tls::connect(&tls::connector(options, b"h2")?, stream).await?;
    let (sender, connection) = h2::client::handshake(stream).await.map_err(failed)?;
    tokio::task::spawn_local(async move { drop(connection.await) });
    Ok(sender)
}

/// A gRPC message: not compressed, its length, its bytes.
fn message(length: usize) -> Bytes {
    let mut out = BytesMut::with_capacity(length + 5);
    out.put_u8(0);
    out.put_u32(length as u32);
    out.put_bytes(b'x', length);
    out.freeze()
}

async fn unary(sender: &mut SendRequest<Bytes>, message: &Bytes) -> Result<(), String> {
    let failed = |error: h2::Error| format!("HTTP/2: {error}");
    futures_util::future::poll_fn(|context| sender.poll_ready(context)).await.map_err(failed)?;
    let request = http::Request::post("https://localhost/bench.Echo/Unary")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .map_err(|error| error.to_string())?;
    let (response, mut stream) = sender.send_request(request, false).map_err(failed)?;
    stream.send_data(message.clone(), true).map_err(failed)?;
    let response = response.await.map_err(failed)?;
    if response.status() != 200 {
        return Err(format!("status {}", response.status()));
    }
    let mut body = response.into_body();
    let mut received = BytesMut::new();
    while let Some(piece) = body.data().await {
        let piece = piece.map_err(failed)?;
        body.flow_control().release_capacity(piece.len()).map_err(failed)?;
        received.extend_from_slice(&piece);
    }
    let trailers = body.trailers().await.map_err(failed)?.ok_or("no trailers")?;
    if trailers.get("grpc-status").is_none_or(|status| status != "0") {
        return Err(format!("trailers {trailers:?}"));
    }
    if received != *message { Err(format!("{} bytes instead of {}", received.len(), message.len())) } else { Ok(()) }
}
