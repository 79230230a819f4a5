//! An upstream that says what it was asked: method, target, fields and body come back as JSON. It knows nothing of proxies.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// Longest body that is read.
const MAX_BODY: usize = 1024 * 1024;

/// Most requests that are remembered.
const MAX_REMEMBERED: usize = 10_000;

/// What was asked, in order.
type Asked = Arc<Mutex<Vec<Value>>>;

/// A server with a name, on a port of its own, for as long as the test runs.
pub struct Echo {
    pub address: SocketAddr,
    asked: Asked,
}

impl Echo {
    /// Answers with 200, or what `x-want-status` asks for, and says its name as `x-upstream`.
    pub fn start(name: &str) -> Echo {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, name): (Asked, Arc<str>) = (Arc::default(), name.into());
        let count = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (name, count) = (name.clone(), count.clone());
                std::thread::spawn(move || converse(&stream, &name, &count));
            }
        });
        Echo { address, asked }
    }

    /// How many requests have come so far.
    pub fn asked(&self) -> u64 {
        self.asked.lock().unwrap().len() as u64
    }

    /// What they were: method, target, fields and body.
    pub fn told(&self) -> Vec<Value> {
        self.asked.lock().unwrap().clone()
    }
}

/// Answers one request after the other until the peer has enough.
fn converse(stream: &TcpStream, name: &str, asked: &Asked) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    loop {
        let (first, fields) = head(&mut reader)?;
        let body = body(&mut reader, &fields)?;
        let mut words = first.split(' ');
        let (method, target) = (words.next()?, words.next()?);
        let field = |name: &str| fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let status = field("x-want-status").unwrap_or("200");
        let told = json!({ "method": method, "target": target, "fields": fields, "body": String::from_utf8_lossy(&body) });
        let text = told.to_string();
        {
            let mut asked = asked.lock().unwrap();
            assert!(asked.len() < MAX_REMEMBERED, "more than anybody asks");
            asked.push(told);
        }
        let told = text;
        let told = if method == "HEAD" { "" } else { told.as_str() };
        let length = if method == "HEAD" { String::new() } else { format!("content-length: {}\r\n", told.len()) };
        let head = format!(
            "HTTP/1.1 {status} Echo\r\ncontent-type: application/json\r\nx-upstream: {name}\r\nserver: echo\r\n{length}\r\n{told}"
        );
        writer.write_all(head.as_bytes()).ok()?;
    }
}

type Fields = Vec<(String, String)>;

fn head(reader: &mut BufReader<&TcpStream>) -> Option<(String, Fields)> {
    let mut line = String::new();
    let mut next = |reader: &mut BufReader<&TcpStream>| {
        line.clear();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        Some(line.trim_end().to_owned())
    };
    let first = next(reader)?;
    let mut fields = Fields::new();
    loop {
        let line = next(reader)?;
        let Some((name, value)) = line.split_once(':') else { return Some((first, fields)) };
        fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

fn body(reader: &mut BufReader<&TcpStream>, fields: &Fields) -> Option<Vec<u8>> {
    let field = |name: &str| fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let mut body = Vec::new();
    let mut take = |reader: &mut BufReader<&TcpStream>, length: usize| {
        let length = length.min(MAX_BODY);
        let read = reader.by_ref().take(length as u64).read_to_end(&mut body).ok()?;
        (read == length).then_some(())
    };
    if field("transfer-encoding") == Some("chunked") {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let size = usize::from_str_radix(line.trim(), 16).ok()?;
            take(reader, size)?;
            reader.read_line(&mut line).ok()?;
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = field("content-length") {
        take(reader, length.parse().ok()?)?;
    }
    Some(body)
}

/// What an echo says that it was asked.
pub fn asked(body: &[u8]) -> Option<Value> {
    serde_json::from_slice(body).ok().filter(|told: &Value| told["method"].is_string())
}
