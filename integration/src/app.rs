//! An application that counts what reaches it, and answers when it is let. It knows nothing of proxies.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// An application that counts what reaches it. `/hold` is not answered before somebody lets go, `/fail` with 500, all else with 200, unless it is broken.
#[derive(Clone)]
pub struct App {
    pub address: SocketAddr,
    says: &'static str,
    /// How long its work takes.
    takes: Duration,
    seen: Arc<Mutex<HashMap<String, usize>>>,
    held: Arc<Mutex<Vec<TcpStream>>>,
    broken: Arc<AtomicBool>,
}

impl App {
    pub fn start() -> App {
        App::saying("ok")
    }

    /// One that says this.
    pub fn saying(text: &'static str) -> App {
        App::taking(text, Duration::ZERO)
    }

    /// One that works for so long before it does.
    pub fn taking(text: &'static str, takes: Duration) -> App {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let app = App { address, says: text, takes, seen: Arc::default(), held: Arc::default(), broken: Arc::default() };
        let serving = app.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let app = serving.clone();
                std::thread::spawn(move || app.serve(stream));
            }
        });
        app
    }

    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut stream = stream;
        while let Some(target) = next(&mut reader)? {
            *self.seen.lock().unwrap().entry(target.clone()).or_default() += 1;
            if target.contains("/hold") {
                self.held.lock().unwrap().push(stream.try_clone()?);
                continue;
            }
            if !self.takes.is_zero() {
                std::thread::sleep(self.takes);
            }
            stream.write_all(self.answer(target.contains("/fail")).as_bytes())?;
        }
        Ok(())
    }

    fn answer(&self, fails: bool) -> String {
        let status = match fails {
            _ if self.broken.load(Ordering::Relaxed) => "503 Broken",
            true => "500 Oh",
            false => "200 OK",
        };
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{}", self.says.len(), self.says)
    }

    /// From now on everything is answered with 503, or nothing any more.
    pub fn breaks(&self, broken: bool) {
        self.broken.store(broken, Ordering::Relaxed);
    }

    /// How often this was asked for, `GET /a`.
    pub fn count(&self, asked: &str) -> usize {
        self.seen.lock().unwrap().get(asked).copied().unwrap_or_default()
    }

    /// All that was asked for, and how often.
    pub fn seen(&self) -> HashMap<String, usize> {
        self.seen.lock().unwrap().clone()
    }

    /// Answers all that are held.
    pub fn let_go(&self) {
        for mut held in self.held.lock().unwrap().drain(..) {
            // Who has gone needs no answer.
            let _ = held.write_all(self.answer(false).as_bytes());
        }
    }
}

/// Method and target of the next request, whose body is read whole; nothing at the end of the connection.
fn next(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<String>> {
    let (mut first, mut field, mut length) = (String::new(), String::new(), 0);
    if reader.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    loop {
        field.clear();
        if reader.read_line(&mut field)? == 0 || field.trim().is_empty() {
            break;
        }
        if let Some(value) = field.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    std::io::copy(&mut reader.take(length), &mut std::io::sink())?;
    Ok(Some(first.split(' ').take(2).collect::<Vec<_>>().join(" ")))
}
