//! Messages that go to an echo and come back over WebSocket tunnels that stay open. Frames are made once and compared byte by byte (RFC 6455, section 5.2),
//! as a full implementation would cost the load more than it costs a proxy.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::options::Options;
use crate::tally::Tally;

/// A binary message that is whole in one frame.
pub const BINARY: u8 = 0x82;
/// The frame is masked; the length is below 126.
pub const MASKED: u8 = 0x80;
/// Longest message whose length fits into the second byte.
pub const LONGEST: usize = 125;

/// `to`, `seconds`, `connections`, `message` bytes. One message of each tunnel is on its way at any time.
pub async fn run(options: &Options) -> Result<Tally, String> {
    let length = options.number("message", 60)? as usize;
    if length > LONGEST {
        return Err(format!("message={length}: at most {LONGEST}"));
    }
    let (sent, expected) = frames(length);
    let mut tunnels = Vec::new();
    for _ in 0..options.number("connections", 64)? {
        tunnels.push(open(options).await?);
    }
    let tally = Rc::new(RefCell::new(Tally::new()));
    let deadline = Instant::now() + options.duration()?;
    let mut tasks = JoinSet::new();
    for mut tunnel in tunnels {
        let (tally, sent, expected) = (tally.clone(), sent.clone(), expected.clone());
        tasks.spawn_local(async move {
            while Instant::now() < deadline {
                let start = Instant::now();
                let result = echo(&mut tunnel, &sent, &expected).await;
                let failed = result.is_err();
                tally.borrow_mut().add(result.map(|()| start.elapsed()), deadline);
                if failed {
                    return;
                }
            }
        });
    }
    let _ = tokio::time::timeout_at((deadline + Duration::from_secs(1)).into(), tasks.join_all()).await;
    Ok(tally.replace(Tally::new()))
}

/// The frame of a client, and the frame that an echo answers it with.
fn frames(length: usize) -> (Vec<u8>, Vec<u8>) {
    let key = [0x37, 0xfa, 0x21, 0x3d];
    let mut sent = vec![BINARY, MASKED | length as u8];
    sent.extend_from_slice(&key);
    sent.extend((0..length).map(|at| b'x' ^ key[at % 4]));
    let mut expected = vec![BINARY, length as u8];
    expected.resize(length + 2, b'x');
    (sent, expected)
}

async fn open(options: &Options) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(options.address()?).await.map_err(|error| format!("connect: {error}"))?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let opened = tokio_tungstenite::client_async("ws://localhost/", stream).await;
    // An echo says nothing of its own accord, so nothing of it is left in the buffer of the handshake.
    opened.map(|(tunnel, _)| tunnel.into_inner()).map_err(|error| format!("upgrade: {error}"))
}

async fn echo(tunnel: &mut TcpStream, sent: &[u8], expected: &[u8]) -> Result<(), String> {
    tunnel.write_all(sent).await.map_err(|error| format!("write: {error}"))?;
    let mut back = [0; LONGEST + 2];
    let mut filled = 0;
    while filled < expected.len() {
        let read = tunnel.read(&mut back[filled..]).await.map_err(|error| format!("read: {error}"))?;
        if read == 0 {
            return Err("the tunnel was closed".to_owned());
        }
        filled += read;
    }
    if back[..filled] == *expected { Ok(()) } else { Err(format!("instead of the echo: {:?}", &back[..filled])) }
}
