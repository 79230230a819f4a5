//! A WebSocket echo for short whole messages; the handshake is tungstenite's, frames are turned around in place.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

use crate::websocket::{BINARY, LONGEST, MASKED};

/// Two bytes of head and four of mask.
const HEAD: usize = 6;

pub async fn serve(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        spawn_local(async move { drop(echo(stream).await) });
    }
}

/// Ends with the tunnel, or at the first frame that is not a short binary message.
async fn echo(stream: TcpStream) -> Result<(), tokio_tungstenite::tungstenite::Error> {
    // The client waits for the answer before it sends a frame, so the handshake has read nothing of it.
    let mut stream = tokio_tungstenite::accept_async(stream).await?.into_inner();
    let (mut bytes, mut filled) = ([0; HEAD + LONGEST], 0);
    loop {
        let read = stream.read(&mut bytes[filled..]).await?;
        filled += read;
        if read == 0 {
            return Ok(());
        }
        if filled < 2 {
            continue;
        }
        let length = usize::from(bytes[1] & !MASKED);
        if bytes[0] != BINARY || bytes[1] & MASKED == 0 || length > LONGEST {
            return Ok(());
        }
        if filled < HEAD + length {
            continue;
        }
        let answer = answer(&bytes[..HEAD + length]);
        stream.write_all(&answer).await?;
        bytes.copy_within(HEAD + length..filled, 0);
        filled -= HEAD + length;
    }
}

/// The same message without a mask.
fn answer(frame: &[u8]) -> Vec<u8> {
    let (head, payload) = frame.split_at(HEAD);
    let mut out = vec![head[0], head[1] & !MASKED];
    out.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ head[2 + at % 4]));
    out
}
