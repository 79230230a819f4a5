//! Services to ask, for tests: on loopback, real, and as good or as bad as told. Production code never sees it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};

/// Serves each connection with `serve`, which also learns how many came before.
pub(crate) async fn server<F, W>(serve: F) -> SocketAddr
where
    F: Fn(TcpStream, usize) -> W + Send + 'static,
    W: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for nth in 0.. {
            let Ok((stream, _)) = listener.accept().await else { return };
            tokio::spawn(serve(stream, nth));
        }
    });
    address
}

/// One request: its head, and its content by `Content-Length`. `None` at the end of the connection.
pub(crate) async fn request(stream: &mut (impl AsyncRead + Unpin)) -> Option<(String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |value| value.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some((head, body))
}

/// One question to a Redis (RESP2 arrays of bulk strings), `None` at the end.
pub(crate) async fn question(stream: &mut BufStream<TcpStream>) -> Option<Vec<String>> {
    let mut line = String::new();
    let count: usize = (stream.read_line(&mut line).await.ok()? > 0).then(|| line[1..].trim().parse().unwrap())?;
    let mut words = Vec::new();
    for _ in 0..count {
        line.clear();
        stream.read_line(&mut line).await.ok()?;
        let mut word = vec![0; line[1..].trim().parse::<usize>().unwrap() + 2];
        stream.read_exact(&mut word).await.ok()?;
        words.push(String::from_utf8(word[..word.len() - 2].to_vec()).unwrap());
    }
    Some(words)
}

/// A server that gives the same answer to every request.
pub(crate) async fn constant(answer: impl Into<String>) -> SocketAddr {
    let answer = answer.into();
    Service::start(move |_, _| answer.clone()).await.address
}

/// An answer with this content.
pub(crate) fn reply(status: u16, fields: &[&str], body: &str) -> String {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    format!("HTTP/1.1 {status} -\r\n{fields}content-length: {}\r\n\r\n{body}", body.len())
}

/// Heads and contents of requests.
type Asked = Arc<Mutex<Vec<(String, String)>>>;

/// A service that remembers what it was asked.
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    asked: Asked,
}

impl Service {
    /// One that answers with what `answer` makes of a request's head and content.
    pub(crate) async fn start(answer: impl Fn(&str, &str) -> String + Send + Sync + 'static) -> Service {
        let (asked, answer) = (Asked::default(), Arc::new(answer));
        let remembered = asked.clone();
        let address = server(move |mut stream, _| {
            let (asked, answer) = (remembered.clone(), answer.clone());
            async move {
                while let Some((head, body)) = request(&mut stream).await {
                    let body = String::from_utf8_lossy(&body).into_owned();
                    let answer = answer(&head, &body);
                    asked.lock().push((head, body));
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            }
        })
        .await;
        Service { address, asked }
    }

    /// URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What it was asked so far; forgets it.
    pub(crate) fn asked(&self) -> Vec<(String, String)> {
        std::mem::take(&mut *self.asked.lock())
    }
}

/// Everything that can be wrong with a service apart from what it says: what it is, and where.
pub(crate) async fn troubles() -> Vec<(&'static str, SocketAddr)> {
    let down = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let silent = server(|mut stream, _| async move {
        let _ = request(&mut stream).await;
        std::future::pending::<()>().await;
    });
    let closing = server(|stream, _| async move { drop(stream) });
    vec![
        ("down", down),
        ("silent", silent.await),
        ("closing", closing.await),
        ("garbage", constant("220 mail.example ESMTP\r\n").await),
        ("huge", constant("HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n").await),
        ("endless", constant(format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(1_100_000))).await),
    ]
}
