//! HTTP/1 with short and long answers, which asks less of the load's core than nginx would: the proxy is to be what holds a request up.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

/// A request head of a benchmark is shorter than that.
const LONGEST_HEAD: usize = 8192;

/// The answers: 60 bytes, and 64 KiB for `/64k`. The fields are those that nginx sends.
struct Answers {
    short: Vec<u8>,
    long: Vec<u8>,
}

pub async fn serve(listener: TcpListener) {
    let answer = |length: usize| {
        let head = "HTTP/1.1 200 OK\r\nServer: bench\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Type: text/plain\r\n";
        format!("{head}Content-Length: {length}\r\nConnection: keep-alive\r\n\r\n{}", "x".repeat(length)).into_bytes()
    };
    let answers: &'static Answers = Box::leak(Box::new(Answers { short: answer(60), long: answer(65536) }));
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        spawn_local(async move { drop(connection(stream, answers).await) });
    }
}

/// Requests have no body; one after the other.
async fn connection(mut stream: TcpStream, answers: &Answers) -> std::io::Result<()> {
    let mut head = Vec::with_capacity(LONGEST_HEAD);
    while head.len() < LONGEST_HEAD {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
        if head.ends_with(b"\r\n\r\n") {
            let answer = if head.starts_with(b"GET /64k") { &answers.long } else { &answers.short };
            stream.write_all(answer).await?;
            head.clear();
        }
    }
    Ok(())
}
