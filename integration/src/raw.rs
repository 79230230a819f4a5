//! An upstream of the story's own that speaks bytes: each connection is served by a function on a thread.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use crate::place::Place;
use crate::process::PATIENCE;

/// Serves until the test process ends.
pub struct Raw {
    pub address: SocketAddr,
}

impl Raw {
    pub fn start(serve: impl Fn(&mut TcpStream) + Send + Sync + 'static) -> Raw {
        let listener = TcpListener::bind((Place::new().ip, 0)).unwrap();
        let (address, serve) = (listener.local_addr().unwrap(), Arc::new(serve));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serve = serve.clone();
                std::thread::spawn(move || {
                    let mut stream = stream;
                    let _ = stream.set_read_timeout(Some(PATIENCE));
                    let _ = stream.set_nodelay(true);
                    serve(&mut stream);
                });
            }
        });
        Raw { address }
    }

    /// Answers every request with these bytes.
    pub fn saying(bytes: &'static str) -> Raw {
        Raw::start(move |stream| {
            while !read_head(stream).is_empty() {
                let _ = stream.write_all(bytes.as_bytes());
            }
        })
    }
}

/// Reads the head of a request; empty at the end of the connection.
pub fn read_head(stream: &mut TcpStream) -> String {
    let (mut bytes, mut one) = (Vec::new(), [0]);
    while !bytes.ends_with(b"\r\n\r\n") {
        match stream.read(&mut one) {
            Ok(read) if read > 0 => bytes.push(one[0]),
            _ => return String::new(),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
