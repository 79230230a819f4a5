//! An upstream that is busy for as long as it is told to be. It knows nothing of who asks.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Condvar, Mutex};

use crate::place::Place;
use crate::raw::read_head;

/// Answers with its name; a request for `/hold` waits until it is let go.
pub struct Holder {
    pub address: SocketAddr,
    gate: Arc<(Mutex<bool>, Condvar)>,
}

impl Holder {
    /// One that `holds`, or answers whatever is asked.
    pub fn start(place: &Place, name: &'static str, holds: bool) -> Holder {
        let listener = TcpListener::bind((place.ip, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let gate = Arc::new((Mutex::new(holds), Condvar::new()));
        let closed = gate.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let closed = closed.clone();
                std::thread::spawn(move || {
                    let head = read_head(&mut stream);
                    if head.starts_with("GET /hold ") {
                        let shut = closed.0.lock().unwrap();
                        drop(closed.1.wait_while(shut, |shut| *shut).unwrap());
                    }
                    let _ =
                        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{name}", name.len());
                });
            }
        });
        Holder { address, gate }
    }

    pub fn let_go(&self) {
        *self.gate.0.lock().unwrap() = false;
        self.gate.1.notify_all();
    }
}
