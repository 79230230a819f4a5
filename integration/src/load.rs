//! Keep-alive connections that send without pause and count what goes wrong.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::process::PATIENCE;

/// What a connection of the load is made of.
trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// How the load reaches its server.
#[derive(Clone)]
struct Way {
    address: SocketAddr,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    request: String,
    /// Between an answer and the next request.
    pause: Duration,
}

impl Way {
    fn open(&self) -> Result<Box<dyn Stream>, String> {
        let stream = TcpStream::connect_timeout(&self.address, PATIENCE).map_err(|error| format!("connect: {error}"))?;
        stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.set_nodelay(true)).map_err(|error| error.to_string())?;
        let Some((config, name)) = &self.tls else { return Ok(Box::new(stream)) };
        let session = ClientConnection::new(config.clone(), name.clone()).map_err(|error| format!("TLS: {error}"))?;
        Ok(Box::new(StreamOwned::new(session, stream)))
    }
}

/// Load in the background until it is stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    threads: Vec<JoinHandle<First>>,
}

/// What came of it.
pub struct Tally {
    pub requests: u64,
    /// How many failed.
    pub failed: u64,
    /// The first few failures, in words.
    pub failures: Vec<String>,
}

/// Keeps the first few failures; the rest would say the same.
#[derive(Default)]
struct First {
    count: u64,
    texts: Vec<String>,
}

impl First {
    fn push(&mut self, text: String) {
        self.count += 1;
        if self.texts.len() < 20 {
            self.texts.push(text);
        }
    }
}

impl Load {
    /// `connections` keep-alive connections that ask for `target`; each answer must be 200.
    pub fn start(address: SocketAddr, target: &str, connections: usize) -> Load {
        Load::paced(address, target, connections, Duration::ZERO)
    }

    /// The same with requests that are never sent twice.
    pub fn posting(address: SocketAddr, target: &str, connections: usize) -> Load {
        Load::posting_paced(address, target, connections, Duration::ZERO)
    }

    /// `start` with a pause behind each answer: load for long runs on a machine that others share.
    pub fn paced(address: SocketAddr, target: &str, connections: usize, pause: Duration) -> Load {
        Load::begin(Way { address, tls: None, request: request(target, "test.example"), pause }, connections)
    }

    /// `posting` with a pause behind each answer.
    pub fn posting_paced(address: SocketAddr, target: &str, connections: usize, pause: Duration) -> Load {
        let request = format!("POST {target} HTTP/1.1\r\nHost: test.example\r\nContent-Length: 4\r\n\r\nmore");
        Load::begin(Way { address, tls: None, request, pause }, connections)
    }

    /// The same over TLS, to the server that `name` stands for.
    pub fn tls(address: SocketAddr, config: Arc<ClientConfig>, name: &str, target: &str, connections: usize) -> Load {
        let server = ServerName::try_from(name.to_owned()).expect("a name");
        let way = Way { address, tls: Some((config, server)), request: request(target, name), pause: Duration::ZERO };
        Load::begin(way, connections)
    }

    fn begin(way: Way, connections: usize) -> Load {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..connections)
            .map(|_| {
                let (stop, done, way) = (stop.clone(), done.clone(), way.clone());
                std::thread::spawn(move || drive(&way, &stop, &done))
            })
            .collect();
        Load { stop, done, threads }
    }

    pub fn requests(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    pub fn stop(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let firsts: Vec<First> = self.threads.into_iter().map(|thread| thread.join().expect("a load thread")).collect();
        let failed = firsts.iter().map(|first| first.count).sum();
        let failures = firsts.into_iter().flat_map(|first| first.texts).collect();
        Tally { requests: self.done.load(Ordering::Relaxed), failed, failures }
    }
}

fn request(target: &str, host: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

fn drive(way: &Way, stop: &AtomicBool, done: &AtomicU64) -> First {
    let mut failures = First::default();
    while !stop.load(Ordering::Relaxed) {
        let ended = way.open().and_then(|stream| converse(stream, way, stop, done));
        if let Err(failure) = ended {
            failures.push(failure);
        }
    }
    failures
}

/// Asks again and again on one connection until told to stop, or until the server says that it closes behind an answer.
fn converse(mut stream: Box<dyn Stream>, way: &Way, stop: &AtomicBool, done: &AtomicU64) -> Result<(), String> {
    let mut buffer = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(way.request.as_bytes()).map_err(|error| format!("write: {error}"))?;
        let closes = one_answer(&mut *stream, &mut buffer)?;
        done.fetch_add(1, Ordering::Relaxed);
        if closes {
            return Ok(());
        }
        if !way.pause.is_zero() {
            std::thread::sleep(way.pause);
        }
    }
    Ok(())
}

fn one_answer(stream: &mut dyn Stream, buffer: &mut Vec<u8>) -> Result<bool, String> {
    buffer.clear();
    let mut piece = [0; 4096];
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
            let length = head
                .split("content-length: ")
                .nth(1)
                .and_then(|rest| rest.split("\r\n").next())
                .and_then(|text| text.parse::<usize>().ok());
            if buffer.len() >= end + 4 + length.unwrap_or(0) {
                return if head.starts_with("http/1.1 200") {
                    Ok(head.contains("connection: close"))
                } else {
                    Err(format!("answer: {head}"))
                };
            }
        }
        match stream.read(&mut piece) {
            Ok(0) => return Err(format!("closed in the middle of an answer after {} bytes", buffer.len())),
            Ok(read) => buffer.extend_from_slice(&piece[..read]),
            // A machine that was halted for a moment interrupts reads with a limit (signal(7)): nothing was read.
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(format!("read: {error}")),
        }
    }
}
