//! Changes over the Admin API at a steady rate, on kept connections. It knows what is written, not who hears of it.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::agent;
use super::ledger::{Ledger, Reach};
use crate::heddle::KEY;

/// Connections to the Admin API.
const CONNECTIONS: usize = 16;
/// Addresses of one upstream.
pub const ENDPOINTS_EACH: usize = 10;
/// The agent that a listener of its own concerns.
pub const CHOSEN: usize = 0;

/// How large the configuration is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub routes: usize,
    pub endpoints: usize,
}

impl Size {
    pub fn upstreams(self) -> usize {
        self.endpoints.div_ceil(ENDPOINTS_EACH).max(1)
    }

    /// What a number stands for: routes come first, then upstreams, then the listener.
    pub fn subject(self, target: usize) -> Subject {
        match target.checked_sub(self.routes) {
            None => Subject::Routes,
            Some(n) if n < self.upstreams() => Subject::Endpoints,
            Some(_) => Subject::OneListener,
        }
    }
}

/// What is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// Routes and the addresses of upstreams in turn; every agent has to hear of them.
    Everything,
    /// Routes alone.
    Routes,
    /// The addresses of upstreams alone.
    Endpoints,
    /// A listener that names one node.
    OneListener,
}

/// Puts the whole configuration, as fast as the Admin API takes it.
pub async fn seed(admin: SocketAddr, size: Size) -> Result<(), String> {
    let upstreams = (0..size.upstreams()).map(move |n| (format!("/upstreams/u{n}"), upstream(size, n, None)));
    let routes = (0..size.routes).map(move |n| (format!("/routes/r{n}"), route(size, n, None)));
    for part in [upstreams.collect::<Vec<_>>(), routes.collect(), vec![("/listeners/chosen".to_owned(), listener(None))]] {
        let queue = Rc::new(RefCell::new(part));
        let mut workers = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let queue = queue.clone();
            workers.spawn_local(async move {
                let mut connection = Connection::open(admin).await?;
                while let Some((path, body)) = { queue.borrow_mut().pop() } {
                    connection.put(&path, &body).await?;
                }
                Ok::<_, String>(())
            });
        }
        while let Some(done) = workers.join_next().await {
            done.map_err(|error| error.to_string())??;
        }
    }
    Ok(())
}

/// What became of the writes.
#[derive(Debug, Clone)]
pub struct Written {
    /// From the first write's turn to the last answer.
    pub took: Duration,
    /// From a write's turn to the Admin API's answer.
    pub answers: Vec<Duration>,
}

/// Writes `count` changes at `rate` a second; each has its turn whatever became of those before it.
pub async fn write(
    admin: SocketAddr,
    size: Size,
    subject: Subject,
    rate: f64,
    count: usize,
    ledger: &Rc<RefCell<Ledger>>,
) -> Result<Written, String> {
    let next = Rc::new(Cell::new(0));
    let start = Instant::now() + Duration::from_millis(20);
    let mut workers = JoinSet::new();
    for _ in 0..CONNECTIONS.min(count) {
        let (next, ledger) = (next.clone(), ledger.clone());
        workers.spawn_local(async move {
            let mut connection = Connection::open(admin).await?;
            let mut answers = Vec::new();
            loop {
                let turn = next.replace(next.get() + 1);
                if turn >= count {
                    return Ok::<_, String>(answers);
                }
                let due = start + Duration::from_secs_f64(turn as f64 / rate);
                tokio::time::sleep_until(due.into()).await;
                let (target, reach) = target(size, subject, turn);
                let (number, mark) = ledger.borrow_mut().begin(target, reach);
                let (path, body) = content(size, target, &mark);
                connection.put(&path, &body).await?;
                let now = Instant::now();
                ledger.borrow_mut().accepted(number, now);
                answers.push(now.saturating_duration_since(due));
            }
        });
    }
    let mut answers = Vec::with_capacity(count);
    while let Some(done) = workers.join_next().await {
        answers.extend(done.map_err(|error| error.to_string())??);
    }
    Ok(Written { took: start.elapsed(), answers })
}

/// What the write of a turn changes.
fn target(size: Size, subject: Subject, turn: usize) -> (usize, Reach) {
    match subject {
        Subject::Everything if turn.is_multiple_of(2) => target(size, Subject::Routes, turn / 2),
        Subject::Everything => target(size, Subject::Endpoints, turn / 2),
        Subject::Routes => (turn % size.routes, Reach::All),
        Subject::Endpoints => (size.routes + turn % size.upstreams(), Reach::All),
        Subject::OneListener => (size.routes + size.upstreams(), Reach::One(CHOSEN)),
    }
}

fn content(size: Size, target: usize, mark: &str) -> (String, Value) {
    match size.subject(target) {
        Subject::Routes => (format!("/routes/r{target}"), route(size, target, Some(mark))),
        Subject::Endpoints => {
            let n = target - size.routes;
            (format!("/upstreams/u{n}"), upstream(size, n, Some(mark)))
        }
        _ => ("/listeners/chosen".to_owned(), listener(Some(mark))),
    }
}

/// A route as gateways have them: host, path, methods, a plugin, a shared upstream. What it is rewritten to is told in every dialect, its name is not.
fn route(size: Size, n: usize, mark: Option<&str>) -> Value {
    let rewritten = format!("/{}/$1", mark.unwrap_or("route"));
    json!({
        "name": "route", "uri": format!("/api/{n}/*"), "host": format!("h{}.example.com", n % 50), "methods": ["GET", "POST"],
        "upstream_id": format!("u{}", n % size.upstreams()), "plugins": { "proxy-rewrite": { "regex_uri": ["^/api/[0-9]+/(.*)", rewritten] } },
    })
}

fn upstream(size: Size, n: usize, mark: Option<&str>) -> Value {
    let each = ENDPOINTS_EACH.min(size.endpoints);
    let node = |k: usize| {
        let zone = mark.filter(|_| k == 0).unwrap_or("zone-a");
        json!({ "host": format!("10.{}.{}.{}", n / 250 % 250, n % 250, k + 1), "port": 8080, "weight": 1, "zone": zone })
    };
    json!({ "type": "roundrobin", "nodes": (0..each).map(node).collect::<Vec<_>>() })
}

/// A listener of the chosen agent alone.
fn listener(mark: Option<&str>) -> Value {
    json!({ "address": "127.0.0.1:0", "protocol": "http", "nodes": [agent::name(CHOSEN)], "server_header": { "server": mark.unwrap_or("heddle") } })
}

/// A kept HTTP/1.1 connection.
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(admin: SocketAddr) -> Result<Connection, String> {
        let stream = TcpStream::connect(admin).await.map_err(|error| format!("the Admin API at {admin}: {error}"))?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        Ok(Connection { stream, buffer: Vec::with_capacity(4096) })
    }

    async fn put(&mut self, path: &str, body: &Value) -> Result<(), String> {
        let body = body.to_string();
        let request = format!(
            "PUT /apisix/admin{path} HTTP/1.1\r\nHost: admin\r\nX-API-KEY: {KEY}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
        let status = self.answer().await.map_err(|error| format!("PUT {path}: {error}"))?;
        if matches!(status, 200 | 201) {
            Ok(())
        } else {
            Err(format!("PUT {path} is answered with {status}: {}", String::from_utf8_lossy(&self.buffer)))
        }
    }

    /// The status; the whole answer, with its length, is in the buffer.
    async fn answer(&mut self) -> std::io::Result<u16> {
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
            let answer = crate::client::head(&self.buffer[..end]);
            let length: usize = answer.field("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
            if self.buffer.len() >= end + 4 + length {
                return Ok(answer.status);
            }
        }
    }
}
