//! The backends: HTTP/1 with short and long answers, HTTP/1 that takes 100 µs for an answer, a gRPC echo over cleartext HTTP/2, and a WebSocket echo.

mod grpc;
mod plain;
mod slow;
mod websocket;

use serde_json::Value;
use std::net::{SocketAddr, TcpListener};

/// Serves all on ports of their own, prints these as JSON, and ends with its standard input.
pub fn run() -> Result<(), String> {
    let listen = || {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        Ok::<(TcpListener, SocketAddr), String>((listener, address))
    };
    let ((plain, plain_at), (grpc, grpc_at)) = (listen()?, listen()?);
    let ((websocket, websocket_at), (slow, slow_at)) = (listen()?, listen()?);
    super::open::sharpen_timers();
    std::thread::spawn(move || slow::serve(&slow));
    std::thread::spawn(move || {
        let served = super::on_one_thread(async move {
            let (plain, grpc, websocket) = (local(plain)?, local(grpc)?, local(websocket)?);
            tokio::join!(plain::serve(plain), grpc::serve(grpc), websocket::serve(websocket));
            Ok(())
        });
        eprintln!("the backend has ended: {served:?}");
    });
    let ports = [("plain", plain_at), ("grpc", grpc_at), ("websocket", websocket_at), ("slow", slow_at)];
    println!("{}", ports.iter().map(|(name, at)| ((*name).to_owned(), Value::from(at.port()))).collect::<Value>());
    // Whoever started it holds the other end, so it cannot outlive them.
    std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink()).map(drop).map_err(|error| error.to_string())
}

fn local(listener: TcpListener) -> Result<tokio::net::TcpListener, String> {
    listener.set_nonblocking(true).map_err(|error| error.to_string())?;
    tokio::net::TcpListener::from_std(listener).map_err(|error| error.to_string())
}
