//! A server of bytes that speaks first, as those of mail do, and its clients. It knows nothing of proxies.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use crate::process::{PATIENCE, until};

/// What it says first.
pub const GREETING: &[u8] = b"220 ready\r\n";

/// A server that greets, then says again what it hears, for as long as the test runs.
pub fn greeter() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let (mut from, mut to) = (stream.try_clone()?, stream);
                to.write_all(GREETING)?;
                std::io::copy(&mut from, &mut to)
            });
        }
    });
    address
}

/// A connection whose server has greeted, to nobody who has said anything.
pub fn greeted(address: SocketAddr) -> TcpStream {
    until("the greeting", || {
        let mut stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let mut said = vec![0; GREETING.len()];
        stream.read_exact(&mut said).ok()?;
        (said == GREETING).then_some(stream)
    })
}

/// Says something and expects to hear this.
pub fn says(stream: &mut TcpStream, sent: &[u8], answer: &[u8]) {
    stream.write_all(sent).unwrap();
    let mut said = vec![0; answer.len()];
    stream.read_exact(&mut said).unwrap();
    assert_eq!(String::from_utf8_lossy(&said), String::from_utf8_lossy(answer));
}

/// Says something and expects to hear it again.
pub fn echoes(stream: &mut TcpStream, text: &[u8]) {
    says(stream, text, text);
}
