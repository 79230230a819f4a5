//! A small HTTP/1.1 client that speaks plainly, so that stories see exactly what is on the wire.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use serde_json::Value;

use crate::process::PATIENCE;

/// An answer with a `Content-Length`, chunked, or ended by close.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub status: u16,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.text()))
    }
}

/// Sends one request on a connection of its own and waits until the server closes it; `Host` is the address when it is not given.
pub fn send(address: SocketAddr, method: &str, target: &str, fields: &[(&str, &str)], body: &[u8]) -> std::io::Result<Answer> {
    let mut stream = say(address, method, target, fields, body)?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    Ok(parse(&bytes))
}

/// The same without waiting for the end of the connection once the answer is whole: Envoy waits a second for its clients to close first.
pub fn ask(address: SocketAddr, method: &str, target: &str, fields: &[(&str, &str)], body: &[u8]) -> std::io::Result<Answer> {
    let mut stream = say(address, method, target, fields, body)?;
    let (mut bytes, mut some) = (Vec::new(), [0; 16 * 1024]);
    while !is_whole(&bytes, method == "HEAD") {
        match stream.read(&mut some)? {
            0 => break,
            read => bytes.extend_from_slice(&some[..read]),
        }
    }
    Ok(parse(&bytes))
}

fn say(address: SocketAddr, method: &str, target: &str, fields: &[(&str, &str)], body: &[u8]) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut head = format!("{method} {target} HTTP/1.1\r\nConnection: close\r\n");
    if !fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        head.push_str(&format!("Host: {address}\r\n"));
    }
    fields.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
    if !body.is_empty() || matches!(method, "POST" | "PUT" | "PATCH") {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    stream.write_all(&[head.as_bytes(), body].concat())?;
    Ok(stream)
}

/// Whether an answer, without trailers, has come as a whole; one that only its connection ends never has.
fn is_whole(bytes: &[u8], no_body: bool) -> bool {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let (answer, rest) = (head(&bytes[..end]), &bytes[end + 4..]);
    if (100..200).contains(&answer.status) && answer.status != 101 {
        return is_whole(rest, no_body);
    }
    let length = answer.field("content-length").and_then(|text| text.parse().ok());
    let chunked = answer.field("transfer-encoding") == Some("chunked");
    no_body
        || matches!(answer.status, 204 | 304)
        || length.is_some_and(|length: usize| rest.len() >= length)
        || (chunked && rest.ends_with(b"0\r\n\r\n"))
}

pub fn get(address: SocketAddr, target: &str) -> std::io::Result<Answer> {
    send(address, "GET", target, &[], b"")
}

/// A keep-alive connection that asks one thing after the other.
pub struct Conversation(TcpStream);

impl Conversation {
    pub fn open(address: SocketAddr) -> Conversation {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Conversation(stream)
    }

    /// Sends these bytes.
    pub fn say(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("the server reads");
    }

    /// Asks and waits for the answer, whose body has a length.
    pub fn ask(&mut self, request: &str) -> Answer {
        self.say(request.as_bytes());
        self.hear()
    }

    /// Whether the server closes, with nothing more to say.
    pub fn ends(&mut self) -> bool {
        match self.0.read(&mut [0]) {
            Ok(read) => read == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }

    /// The next answer, whose body has a length or is absent; interim ones too.
    pub fn hear(&mut self) -> Answer {
        let (mut bytes, mut one) = (Vec::new(), [0]);
        while !bytes.ends_with(b"\r\n\r\n") {
            let read = self.0.read(&mut one).expect("the server answers");
            assert!(read > 0, "closed after {}", String::from_utf8_lossy(&bytes));
            bytes.extend_from_slice(&one[..read]);
        }
        let mut answer = head(&bytes[..bytes.len() - 4]);
        let length = answer.field("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        answer.body = vec![0; length];
        self.0.read_exact(&mut answer.body).expect("the whole body");
        answer
    }
}

/// Sends bytes as they are and reads until the server closes.
pub fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// Parses one whole answer.
pub fn parse(bytes: &[u8]) -> Answer {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Answer::default() };
    let rest = &bytes[end + 4..];
    let answer = Answer { body: rest.to_vec(), ..head(&bytes[..end]) };
    if (100..200).contains(&answer.status) && answer.status != 101 {
        return parse(rest);
    }
    match answer.field("transfer-encoding") {
        Some("chunked") => Answer { body: dechunk(rest), ..answer },
        _ => answer,
    }
}

/// The first lines of an answer, without the empty one.
pub fn head(bytes: &[u8]) -> Answer {
    let head = String::from_utf8_lossy(bytes).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok()).unwrap_or(0);
    let fields =
        lines.filter_map(|line| line.split_once(':')).map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
    Answer { status, fields, body: Vec::new() }
}

fn dechunk(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|window| window == b"\r\n") {
        let size = std::str::from_utf8(&rest[..end]).ok().and_then(|text| usize::from_str_radix(text, 16).ok()).unwrap_or(0);
        if size == 0 || rest.len() < end + 2 + size + 2 {
            break;
        }
        body.extend_from_slice(&rest[end + 2..][..size]);
        rest = &rest[end + 2 + size + 2..];
    }
    body
}

/// Runs the real curl and gives its output; fails when curl fails.
pub fn curl(arguments: &[&str]) -> String {
    let output = Command::new("curl").args(["-sS", "--max-time", "30"]).args(arguments).output().expect("curl is installed");
    assert!(output.status.success(), "curl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
