//! A real Redis server, with nothing on disk.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use crate::certificates::Pair;
use crate::place::Place;
use crate::process::{PATIENCE, Process, until};

pub struct Redis {
    pub process: Process,
    pub address: SocketAddr,
    arguments: Vec<String>,
    place: Place,
}

impl Redis {
    /// In clear, for everybody.
    pub fn start() -> Redis {
        Redis::with(&[])
    }

    /// In clear, with more arguments, for example `--requirepass secret`.
    pub fn with(arguments: &[&str]) -> Redis {
        let place = Place::new();
        let address = place.address();
        let listen = ["--port".to_owned(), address.port().to_string()];
        Redis::at(place, address, listen.into_iter().chain(arguments.iter().map(|&argument| argument.to_owned())).collect())
    }

    /// Over TLS alone.
    pub fn over_tls(pair: &Pair) -> Redis {
        let place = Place::new();
        let address = place.address();
        let [certificate, key] =
            [("cert.pem", &pair.certificate), ("key.pem", &pair.key)].map(|(name, text)| place.write(name, text));
        let port = address.port().to_string();
        let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
        let arguments = [
            "--port",
            "0",
            "--tls-port",
            &port,
            "--tls-cert-file",
            &certificate,
            "--tls-key-file",
            &key,
            "--tls-auth-clients",
            "no",
        ];
        Redis::at(place, address, arguments.iter().map(|&argument| argument.to_owned()).collect())
    }

    fn at(place: Place, address: SocketAddr, arguments: Vec<String>) -> Redis {
        let process = run(&place, address, &arguments);
        Redis { process, address, arguments, place }
    }

    /// Starts it again at the same address, empty.
    pub fn start_again(&mut self) {
        self.process = run(&self.place, self.address, &self.arguments);
    }

    /// The fields of a limit that lead to it.
    pub fn fields(&self) -> serde_json::Value {
        serde_json::json!({ "policy": "redis", "redis_host": self.address.ip().to_string(), "redis_port": self.address.port() })
    }

    /// What it says to one command in clear: everything that comes until it is told to close.
    pub fn say(&self, command: &str) -> String {
        let mut stream = TcpStream::connect_timeout(&self.address, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

fn run(place: &Place, address: SocketAddr, arguments: &[String]) -> Process {
    let mut command = Command::new("/usr/bin/redis-server");
    command.args(["--bind", &address.ip().to_string(), "--save", "", "--appendonly", "no", "--dir"]).arg(place.folder.path());
    command.args(arguments);
    let process = Process::start(command, place.path("redis.log"));
    until("redis", || TcpStream::connect(address).ok());
    process
}
