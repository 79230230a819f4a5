//! A raw client: it sends bytes as they are, reads whole answers off the connection, and says whether the connection is still open.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::client::Answer;
use crate::process::PATIENCE;

/// What bytes travel in.
pub trait Carrier: Read + Write + Send {}

impl<T: Read + Write + Send> Carrier for T {}

/// Where and how to connect.
#[derive(Clone)]
pub struct Door {
    pub name: &'static str,
    pub address: SocketAddr,
    /// Sent in clear before everything else.
    pub hello: Vec<u8>,
    pub tls: Option<(Arc<ClientConfig>, String)>,
}

impl Door {
    pub fn plain(address: SocketAddr) -> Door {
        Door { name: "plain", address, hello: Vec::new(), tls: None }
    }

    pub fn tls(address: SocketAddr, config: Arc<ClientConfig>, host: &str) -> Door {
        Door { name: "tls", address, hello: Vec::new(), tls: Some((config, host.to_owned())) }
    }

    pub fn saying(name: &'static str, address: SocketAddr, hello: impl Into<Vec<u8>>) -> Door {
        Door { name, address, hello: hello.into(), tls: None }
    }

    pub fn open(&self) -> Raw {
        let mut stream = TcpStream::connect_timeout(&self.address, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.write_all(&self.hello).unwrap();
        let socket = stream.try_clone().unwrap();
        let carrier: Box<dyn Carrier> = match &self.tls {
            None => Box::new(stream),
            Some((config, host)) => {
                let name = ServerName::try_from(host.clone()).unwrap();
                Box::new(StreamOwned::new(ClientConnection::new(config.clone(), name).unwrap(), stream))
            }
        };
        Raw { carrier, socket, held: Vec::new() }
    }
}

/// An open connection.
pub struct Raw {
    carrier: Box<dyn Carrier>,
    pub socket: TcpStream,
    held: Vec<u8>,
}

/// What one look for more gave.
enum More {
    Bytes,
    End,
    /// Nothing within the time.
    Late,
}

impl Raw {
    /// Sends as much as is taken: a server that has refused already may close meanwhile.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.carrier.write_all(bytes.as_ref()).and_then(|()| self.carrier.flush());
    }

    fn more(&mut self) -> More {
        let mut piece = [0; 16 * 1024];
        match self.carrier.read(&mut piece) {
            Ok(0) => More::End,
            Ok(read) => {
                self.held.extend_from_slice(&piece[..read]);
                More::Bytes
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => More::Late,
            Err(_) => More::End,
        }
    }

    /// The next final answer; `None` when the connection ends before one. Interim answers are passed over.
    pub fn answer(&mut self, is_head: bool) -> Option<Answer> {
        loop {
            if let Some(end) = self.held.windows(4).position(|window| window == b"\r\n\r\n") {
                let head: Vec<u8> = self.held.drain(..end + 4).collect();
                let mut answer = crate::client::parse(&head);
                if (100..200).contains(&answer.status) && answer.status != 101
                    || answer.status == 0 && head.starts_with(b"HTTP/1.1 1")
                {
                    continue;
                }
                self.body(&mut answer, is_head)?;
                return Some(answer);
            }
            match self.more() {
                More::Bytes => {}
                More::End => return None,
                More::Late => panic!("neither an answer nor an end; held: {:?}", String::from_utf8_lossy(&self.held)),
            }
        }
    }

    fn body(&mut self, answer: &mut Answer, is_head: bool) -> Option<()> {
        if is_head || matches!(answer.status, 101 | 204 | 304) {
            return Some(());
        }
        if let Some(length) = answer.field("content-length").map(|text| text.parse::<usize>().unwrap()) {
            answer.body = self.exactly(length)?;
        } else if answer.field("transfer-encoding").is_some() {
            loop {
                let size = usize::from_str_radix(&self.line()?, 16).unwrap();
                let piece = self.exactly(size + 2)?;
                if size == 0 {
                    break;
                }
                answer.body.extend_from_slice(&piece[..size]);
            }
        } else {
            while let More::Bytes = self.more() {}
            answer.body = std::mem::take(&mut self.held);
        }
        Some(())
    }

    fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.held.windows(2).position(|window| window == b"\r\n") {
                let line: Vec<u8> = self.held.drain(..end + 2).take(end).collect();
                return Some(String::from_utf8_lossy(&line).into_owned());
            }
            match self.more() {
                More::Bytes => {}
                _ => return None,
            }
        }
    }

    /// Exactly so many bytes; `None` when the connection ends before.
    pub fn exactly(&mut self, len: usize) -> Option<Vec<u8>> {
        while self.held.len() < len {
            match self.more() {
                More::Bytes => {}
                More::End => return None,
                More::Late => panic!("neither bytes nor an end; held: {:?}", String::from_utf8_lossy(&self.held)),
            }
        }
        Some(self.held.drain(..len).collect())
    }

    /// Whether the server has closed, with nothing more said.
    pub fn is_closed(&mut self) -> bool {
        self.held.is_empty() && matches!(self.more(), More::End)
    }

    /// All that comes until the server closes.
    pub fn rest(&mut self) -> Vec<u8> {
        while let More::Bytes = self.more() {}
        std::mem::take(&mut self.held)
    }

    /// What comes within so many milliseconds, or until the server closes.
    pub fn rest_within(&mut self, millis: u64) -> Vec<u8> {
        self.socket.set_read_timeout(Some(Duration::from_millis(millis))).unwrap();
        let rest = self.rest();
        self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        rest
    }

    /// Whether nothing comes and the connection stays open for this long.
    pub fn is_quiet(&mut self, time: Duration) -> bool {
        self.socket.set_read_timeout(Some(time)).unwrap();
        let quiet = self.held.is_empty() && matches!(self.more(), More::Late);
        self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        quiet
    }
}
