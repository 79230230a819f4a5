//! Connections that carry one request each behind a full TLS handshake.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::options::Options;
use crate::tally::Tally;
use crate::{answer, tls};

/// `to`, `certificate`, `seconds`, `connections` at a time, `length` of the answers.
pub async fn run(options: &Options) -> Result<Tally, String> {
    let (to, connector) = (options.address()?, tls::connector(options, b"http/1.1")?);
    let length = options.number("length", 60)? as usize;
    let tally = Rc::new(RefCell::new(Tally::new()));
    let deadline = Instant::now() + options.duration()?;
    let mut tasks = JoinSet::new();
    for _ in 0..options.number("connections", 32)? {
        let (tally, connector) = (tally.clone(), connector.clone());
        tasks.spawn_local(async move {
            let mut buffer = Vec::new();
            while Instant::now() < deadline {
                let result = once(to, &connector, &mut buffer, length).await;
                tally.borrow_mut().add(result, deadline);
            }
        });
    }
    let _ = tokio::time::timeout_at((deadline + Duration::from_secs(1)).into(), tasks.join_all()).await;
    Ok(tally.replace(Tally::new()))
}

async fn once(to: SocketAddr, connector: &TlsConnector, buffer: &mut Vec<u8>, length: usize) -> Result<Duration, String> {
    let start = Instant::now();
    let stream = TcpStream::connect(to).await.map_err(|error| format!("connect: {error}"))?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let mut stream = tls::connect(connector, stream).await?;
    stream.write_all(answer::request("Connection: close\r\n").as_bytes()).await.map_err(|error| format!("write: {error}"))?;
    answer::read(&mut stream, buffer, length).await?;
    let latency = start.elapsed();
    // The server closes first; how it says so does not matter any more.
    let _ = stream.read(&mut [0; 64]).await;
    Ok(latency)
}
