//! Connections that ask once and then only stay open. It is led step by step over standard input, as memory is read in between.

use std::io::BufRead;
use std::net::SocketAddr;

use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::options::Options;
use crate::{answer, tls};

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// `to`, `certificate` (without it: in clear), `length` of the answers. Each line of input is a number of connections to open more, or `check`,
/// which asks again on each; a line of JSON answers each.
pub async fn run(options: &Options) -> Result<(), String> {
    let (to, length) = (options.address()?, options.number("length", 60)? as usize);
    let connector = options.text("certificate").map(|_| tls::connector(options, b"http/1.1")).transpose()?;
    let mut open: Vec<Box<dyn Stream>> = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|error| error.to_string())?;
        if line == "check" {
            let (mut alive, mut first) = (0, None);
            for stream in &mut open {
                match ask(stream, length).await {
                    Ok(()) => alive += 1,
                    Err(error) => _ = first.get_or_insert(error),
                }
            }
            println!("{}", json!({ "alive": alive, "of": open.len(), "first_error": first }));
        } else {
            let more: usize = line.parse().map_err(|_| format!("`{line}`: expected a number or `check`"))?;
            for _ in 0..more {
                let mut stream = connect(to, connector.as_ref()).await?;
                ask(&mut stream, length).await?;
                open.push(stream);
            }
            println!("{}", json!({ "open": open.len() }));
        }
    }
    Ok(())
}

async fn connect(to: SocketAddr, connector: Option<&TlsConnector>) -> Result<Box<dyn Stream>, String> {
    let stream = TcpStream::connect(to).await.map_err(|error| format!("connect: {error}"))?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    match connector {
        Some(connector) => Ok(Box::new(tls::connect(connector, stream).await?)),
        None => Ok(Box::new(stream)),
    }
}

async fn ask(stream: &mut Box<dyn Stream>, length: usize) -> Result<(), String> {
    stream.write_all(answer::request("").as_bytes()).await.map_err(|error| format!("write: {error}"))?;
    stream.flush().await.map_err(|error| format!("write: {error}"))?;
    answer::read(stream, &mut Vec::new(), length).await
}
