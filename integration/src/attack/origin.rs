//! A strict origin: it reads HTTP/1.1 as narrowly as can be, notes each request, and complains of what no proxy may forward.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request as it arrived.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub line: String,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Its end never came: no request that anybody would act on.
    pub aborted: bool,
    /// What is wrong with it.
    pub faults: Vec<String>,
}

impl Seen {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn target(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or("")
    }

    /// `METHOD target body`, as tables name it.
    pub fn summary(&self) -> String {
        let line = self.line.trim_end_matches(" HTTP/1.1");
        if self.body.is_empty() { line.to_owned() } else { format!("{line} {}", String::from_utf8_lossy(&self.body)) }
    }
}

/// Bytes to answer with, in pieces, and whether the connection ends behind them.
pub struct Reply {
    pub pieces: Vec<Arc<[u8]>>,
    pub close: bool,
    /// Answers before the request body is read, and never reads it.
    pub early: bool,
}

impl Reply {
    pub fn ok() -> Reply {
        Reply::bytes("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    }

    pub fn bytes(text: impl Into<Vec<u8>>) -> Reply {
        Reply { pieces: vec![text.into().into()], close: false, early: false }
    }

    pub fn closing(self) -> Reply {
        Reply { close: true, ..self }
    }

    pub fn early(self) -> Reply {
        Reply { early: true, ..self }
    }
}

type Answer = dyn Fn(&Seen) -> Reply + Send + Sync;

/// The origin; its threads end with their connections.
pub struct Origin {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Origin {
    /// One that answers everything with 200.
    pub fn start() -> Origin {
        Origin::answering(|_| Reply::ok())
    }

    pub fn answering(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (notes, answer): (_, Arc<Answer>) = (seen.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (notes, answer) = (notes.clone(), answer.clone());
                std::thread::spawn(move || converse(stream, &notes, &*answer));
            }
        });
        Origin { address, seen }
    }

    /// Requests whose target starts with `prefix`, in the order of their arrival.
    pub fn seen(&self, prefix: &str) -> Vec<Seen> {
        self.seen.lock().unwrap().iter().filter(|seen| seen.target().starts_with(prefix)).cloned().collect()
    }

    /// Everything that was wrong with any request.
    pub fn faults(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.iter().flat_map(|seen| seen.faults.iter().map(move |fault| format!("{}: {fault}", seen.line))).collect()
    }

    /// How many requests came in all, also those that could not be read.
    pub fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

/// What cannot be read ends the connection; that it came is noted.
struct Broken;

struct Reader {
    stream: TcpStream,
    held: Vec<u8>,
}

fn converse(stream: TcpStream, notes: &Mutex<Vec<Seen>>, answer: &Answer) {
    let mut out = stream.try_clone().unwrap();
    let _ = stream.set_nodelay(true);
    let mut reader = Reader { stream, held: Vec::new() };
    while !reader.held.is_empty() || reader.fill() {
        let mut seen = Seen::default();
        let head = reader.head(&mut seen);
        let reply = if head.is_ok() { answer(&seen) } else { Reply::ok().closing() };
        let body = if head.is_ok() && !reply.early { reader.body(&mut seen) } else { Ok(()) };
        // Kept alive by what has been read and judged, and by nothing else.
        let goes_on = head.is_ok() && body.is_ok() && !reply.close && !reply.early;
        seen.aborted = body.is_err();
        notes.lock().unwrap().push(seen);
        if body.is_err() {
            return;
        }
        for (index, piece) in reply.pieces.iter().enumerate() {
            if index > 0 {
                std::thread::park_timeout(Duration::from_millis(30));
            }
            if out.write_all(piece).is_err() {
                return;
            }
        }
        if !goes_on {
            let _ = out.shutdown(if reply.early { std::net::Shutdown::Both } else { std::net::Shutdown::Write });
            return;
        }
    }
}

impl Reader {
    fn fill(&mut self) -> bool {
        let mut piece = [0; 4096];
        match self.stream.read(&mut piece) {
            Ok(read) if read > 0 => {
                self.held.extend_from_slice(&piece[..read]);
                true
            }
            _ => false,
        }
    }

    /// A line that ends with CRLF and holds neither alone.
    fn line(&mut self, seen: &mut Seen) -> Result<String, Broken> {
        loop {
            if let Some(end) = self.held.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.held.drain(..=end).collect();
                if !line.ends_with(b"\r\n") || line[..line.len() - 2].contains(&b'\r') {
                    seen.faults.push("bare CR or LF".to_owned());
                }
                return Ok(String::from_utf8_lossy(&line[..line.len() - 2]).into_owned());
            }
            if !self.fill() {
                return Err(Broken);
            }
        }
    }

    fn head(&mut self, seen: &mut Seen) -> Result<(), Broken> {
        seen.line = self.line(seen)?;
        let words: Vec<&str> = seen.line.split(' ').collect();
        let formed = words.len() == 3 && words[2] == "HTTP/1.1" && words[1].starts_with(['/', '*']);
        if !formed || seen.line.contains('#') {
            seen.faults.push("request line".to_owned());
        }
        loop {
            let line = self.line(seen)?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').unwrap_or(("", &line));
            let token =
                !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(&byte));
            if !token || value.contains(['\0', '\r']) {
                seen.faults.push(format!("field line {line:?}"));
            }
            seen.fields.push((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()));
        }
        self.judge(seen);
        Ok(())
    }

    /// What no proxy may forward.
    fn judge(&self, seen: &mut Seen) {
        let count = |name: &str| seen.fields.iter().filter(|(key, _)| key == name).count();
        let mut faults = Vec::new();
        for (name, most) in [("host", 1), ("content-length", 1), ("transfer-encoding", 1)] {
            if count(name) > most {
                faults.push(format!("{} x {name}", count(name)));
            }
        }
        if count("host") == 0 {
            faults.push("no host".to_owned());
        }
        if count("content-length") + count("transfer-encoding") > 1 {
            faults.push("two framings".to_owned());
        }
        let upgrade = seen.field("connection").is_some_and(|value| value == "upgrade");
        // That trailers are read a proxy says for itself, and for its next hop alone (RFC 9110 section 10.1.4).
        if count("te") > 0 && (count("te"), seen.field("te"), seen.field("connection")) != (1, Some("trailers"), Some("te")) {
            faults.push("te was forwarded".to_owned());
        }
        for name in ["keep-alive", "proxy-connection", "http2-settings", "expect", "proxy", "upgrade"] {
            if count(name) > 0 && !(name == "upgrade" && upgrade) {
                faults.push(format!("{name} was forwarded"));
            }
        }
        if seen.fields.iter().any(|(name, _)| name.contains('_')) {
            faults.push("a name with an underscore".to_owned());
        }
        seen.faults.extend(faults);
    }

    fn body(&mut self, seen: &mut Seen) -> Result<(), Broken> {
        if let Some(length) = seen.field("content-length") {
            let Ok(length) = length.parse::<usize>() else {
                seen.faults.push("content-length".to_owned());
                return Err(Broken);
            };
            seen.body = self.exactly(length)?;
        } else if seen.field("transfer-encoding").is_some() {
            if seen.field("transfer-encoding") != Some("chunked") {
                seen.faults.push("transfer-encoding".to_owned());
            }
            loop {
                let line = self.line(seen)?;
                let Ok(size) = usize::from_str_radix(&line, 16) else {
                    seen.faults.push(format!("chunk size {line:?}"));
                    return Err(Broken);
                };
                if size == 0 {
                    break;
                }
                let piece = self.exactly(size)?;
                seen.body.extend(piece);
                if self.exactly(2)? != b"\r\n" {
                    seen.faults.push("chunk end".to_owned());
                }
            }
            while !self.line(seen)?.is_empty() {}
        }
        Ok(())
    }

    fn exactly(&mut self, len: usize) -> Result<Vec<u8>, Broken> {
        while self.held.len() < len {
            if !self.fill() {
                return Err(Broken);
            }
        }
        Ok(self.held.drain(..len).collect())
    }
}
